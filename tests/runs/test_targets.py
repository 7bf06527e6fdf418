"""A stored config names classes; nothing of somebody else's is called, or imported."""

import sys

import pytest

from keyseg.config import ConfigError
from keyseg.data import mix
from keyseg.data.files import DataError
from keyseg.model.fusion import Full
from keyseg.runs import targets
from keyseg.runs.run_directory import RunDirectory
from keyseg.sweep.cells import frozen
from keyseg.train.build import build_fusion


@pytest.fixture(autouse=True)
def nothing_allowed(monkeypatch):
    monkeypatch.delenv(targets.PACKAGES_VARIABLE, raising=False)


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A package of somebody's that leaves a mark when it is imported."""
    folder = tmp_path / "lab_of_somebody"
    folder.mkdir()
    mark = tmp_path / "imported"
    (folder / "__init__.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    (folder / "gate.py").write_text(
        "from torch import nn\nfrom keyseg.model.fusion import Full\nimport os\n\n"
        "class Gate(Full):\n    pass\n\n"
        "def read(root, split):\n    return []\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield mark
    for name in [n for n in sys.modules if n.startswith("lab_of_somebody")]:
        del sys.modules[name]


GATE = "lab_of_somebody.gate.Gate"


def stored(tmp_path, run_config, **fusion):
    run = RunDirectory.create(tmp_path / "run", run_config)
    run_config.fusion = {"name": "full", **fusion}
    run.freeze(run_config)
    return run.config


@pytest.mark.parametrize(
    "target",
    [
        "torch.hub.load",  # runs a folder's hubconf.py
        "os.system",
        "builtins.eval",
        "keyseg.predict.export.export",  # a function of ours, no class
        "keyseg.runs.run_directory.RunDirectory",  # a class of ours, no module of torch
        "keyseg.train.build.nn.Linear",
        "keyseg.model.fusion.torch",
        "Full",
        "",
    ],
)
def test_a_stored_fusion_is_a_module_of_keyseg(tmp_path, run_config, monkeypatch, target):
    monkeypatch.setattr("os.system", lambda command: pytest.fail("called"))
    monkeypatch.setattr("torch.hub.load", lambda *a, **k: pytest.fail("called"))
    cfg = stored(tmp_path, run_config, _target_=target, repo_or_dir=str(tmp_path), source="local")
    with pytest.raises(ConfigError, match=r"fusion\._target_="):
        build_fusion(cfg, 8)


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "shutil.rmtree",
        "keyseg.runs.snapshot.take",  # takes a root, and writes
        "keyseg.runs.disk.remove_leftovers",
        "keyseg.data.example.Example",
    ],
)
@pytest.mark.parametrize("what", ["prepare", "sources"])
def test_a_stored_reader_is_a_function_of_the_data_room(run_config, monkeypatch, what, target):
    for name in ("os.system", "shutil.rmtree"):
        monkeypatch.setattr(name, lambda *a, **k: pytest.fail("called"))
    spec = {"_target_": target, "root": "x", "command": "x"}
    data = run_config.data | {what: spec if what == "prepare" else {"long": spec}}
    call = {
        "prepare": lambda: mix.prepare(data),
        "sources": lambda: mix.read_source(data, "long", "train"),
    }
    with pytest.raises(DataError, match=rf"data\.{what}.*_target_={target}"):
        call[what]()


def test_a_package_is_not_even_imported_before_it_is_allowed(
    lab, tmp_path, run_config, monkeypatch
):
    cfg = stored(tmp_path, run_config, _target_=GATE, heads=2)
    with pytest.raises(ConfigError, match=r"export KEYSEG_PACKAGES=lab_of_somebody"):
        build_fusion(cfg, 8)
    assert not lab.exists()
    monkeypatch.setenv(targets.PACKAGES_VARIABLE, "other, lab_of_somebody")
    assert isinstance(build_fusion(cfg, 8), Full)
    assert lab.exists()


def test_what_is_handed_on_from_a_library_is_no_class_of_the_package(lab, monkeypatch):
    monkeypatch.setenv(targets.PACKAGES_VARIABLE, "lab_of_somebody")
    with pytest.raises(ConfigError, match="another package"):
        targets.find("fusion._target_", "lab_of_somebody.gate.nn")


def test_what_is_composed_here_is_trusted_by_the_processes_that_it_starts(lab, run_config):
    from omegaconf import OmegaConf

    run_config.fusion = {"name": "gate", "_target_": GATE, "heads": 2}
    cfg = frozen(OmegaConf.structured(run_config))
    assert targets.allowed() == ["keyseg", "lab_of_somebody"]
    assert isinstance(build_fusion(cfg, 8), Full)
    reader = {"_target_": "lab_of_somebody.gate.read", "root": "x"}
    assert mix.read_source({"sources": {"a": reader}}, "a", "train") == []


@pytest.mark.parametrize("place", ["fusion", "prompt", "list"])
def test_a_stored_config_reads_no_environment(tmp_path, run_config, monkeypatch, place):
    monkeypatch.setenv("SECRET", "s3cret")
    run = RunDirectory.create(tmp_path / "run", run_config)
    text = run.config_file.read_text()
    wanted = "${oc.env:SECRET}"
    before, after = {
        "fusion": ("name: full", f"name: {wanted}"),
        "prompt": ("name: short", f"name: '{wanted}'"),
        "list": ("- q_proj", f"- {wanted}"),
    }[place]
    assert before in text
    run.config_file.write_text(text.replace(before, after, 1))
    with pytest.raises(ConfigError, match="holds a reference") as error:
        run.config  # noqa: B018
    assert "s3cret" not in str(error.value)


def test_an_exported_model_names_keysegs_classes_only(monkeypatch):
    from keyseg.predict.exported_script import _class

    assert _class("keyseg.model.fusion.Full") is Full
    for target in ("torch.hub.load", "os.system", "keyseg.predict.export.export"):
        with pytest.raises(SystemExit, match=target):
            _class(target)
