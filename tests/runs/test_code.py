"""Which code a result depends on, found in the source."""

import importlib.util
import json
import shutil

import pytest

from keyseg.config import PROJECT
from keyseg.runs import code, named_terms, packages

FULL = ("keyseg.data.refer.read", "keyseg.model.fusion.Full")
CROSS = ("keyseg.data.refer.read", "keyseg.model.fusion.Cross")


def forget():
    named_terms.places.cache_clear()
    for cached in (code.of, code._module, code._spec, code._file, code._is_library):
        cached.cache_clear()


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the package that may be edited: it is the one that is looked at."""
    for file in (PROJECT / "keyseg").rglob("*.py"):
        there = tmp_path / file.relative_to(PROJECT)
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, there)
    find = importlib.util.find_spec

    def spec_of(name):
        if name not in ("keyseg", "lab"):
            return find(name)
        folder = tmp_path / name
        return importlib.util.spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )

    monkeypatch.setattr(importlib.util, "find_spec", spec_of)
    forget()
    yield tmp_path
    forget()


def edit(root, file, before, after):
    path = root / file
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    forget()


def test_what_a_cell_depends_on_and_what_not():
    parts = code.of(FULL).parts
    names = {part.rpartition(": ")[2] for part in parts}
    assert {"Full", "work", "Trainer", "evaluate", "KeySeg", "compute_losses", "torch"} <= names
    assert not {"Cross", "CrossSelf", "RunDirectory", "mirror", "validate"} & names
    files = {part.partition(": ")[0] for part in parts}
    left_out = ("sweep", "report", "tracking", "commands", "runs", "predict", "tiny")
    assert not [f for f in files if f.startswith(tuple(f"keyseg/{room}/" for room in left_out))]
    assert "keyseg/data/reason_seg.py" not in files  # another reader
    assert parts["torch"] == code.of(CROSS).parts["torch"] != ""


def test_what_replaces_a_state_counts_where_it_is_asked_for(compose_run):
    asked = code.of(code.targets(compose_run("evaluation.intervention=key-swap"))).parts
    assert "keyseg/predict/intervention.py: Reading" in asked
    assert {"States", "_Means"} <= {part.partition(": ")[2] for part in asked}
    assert "keyseg/data/relatives.py: relatives" in asked
    assert not [part for part in asked if part.startswith("keyseg/predict/predictor")]
    assert not [part for part in code.of(code.targets(compose_run())).parts if "predict/" in part]


def test_another_formula_changes_its_variant_alone(copy):
    full, cross = code.of(FULL), code.of(CROSS)
    edit(copy, "keyseg/model/fusion.py", "class Cross(", "class Cross(Reads, ")
    assert code.of(FULL).fingerprint == full.fingerprint
    changed = code.differences(cross.parts, code.of(CROSS).parts)
    assert changed == ["keyseg/model/fusion.py: Cross"]


@pytest.mark.parametrize(
    ("file", "before", "after", "told"),
    [
        # what every variant uses
        ("model/fusion.py", "class Attention(", "class Attention(Odd, ", "Attention"),
        # several calls away from the work of a cell
        ("model/resample.py", "def at_decoder(", "@odd\ndef at_decoder(", "at_decoder"),
        ("train/losses.py", "def dice_loss(", "@odd\ndef dice_loss(", "dice_loss"),
        # a constant
        ("train/selection.py", '"giou"', '"ciou"', "SELECTED_BY"),
        # a reader that the config names
        ("data/refer.py", "def expressions(", "@odd\ndef expressions(", "expressions"),
    ],
)
def test_changes_that_count(copy, file, before, after, told):
    then = code.of(FULL).parts
    edit(copy, f"keyseg/{file}", before, after)
    assert code.differences(then, code.of(FULL).parts) == [f"keyseg/{file}: {told}"]


def test_changes_that_do_not_count(copy):
    then = code.of(FULL).fingerprint
    fusion = copy / "keyseg/model/fusion.py"
    fusion.write_text(
        "# a comment\n" + fusion.read_text() + "\n\ndef nobody_uses() -> int:\n    return 1\n"
    )
    trainer = "keyseg/train/trainer.py"
    edit(copy, trainer, '"""State of one training run."""', '"""Said otherwise."""')
    edit(
        copy, trainer, "self.step += 1", "self.step += (\n  1)\n                log.info('a step')"
    )
    edit(copy, trainer, "def resume(self) -> int:", "def resume(self):")
    edit(copy, "keyseg/runs/disk.py", "def replace(", "def replace_it(")
    edit(copy, "keyseg/sweep/cells.py", "def frozen(", "def froze(")
    assert code.of(FULL).fingerprint == then


def test_a_class_that_moves_changes_nothing(copy):
    fusion = copy / "keyseg/model/fusion.py"
    then = code.of(FULL)
    (copy / "keyseg/model/variants.py").write_text(fusion.read_text())
    fusion.write_text("from keyseg.model.variants import FusionVariant, Attention, mlp\n")
    forget()
    moved = code.of((FULL[0], "keyseg.model.variants.Full"))
    assert "keyseg/model/variants.py: Full" in moved.parts
    assert code.differences(then.parts, moved.parts) == []
    assert moved.fingerprint == then.fingerprint


def test_a_class_of_somebody_elses_package(copy):
    lab = copy / "lab"
    lab.mkdir()
    (lab / "__init__.py").write_text("raise RuntimeError('nothing is imported to look at it')\n")
    (lab / "gate.py").write_text(
        "from lab import tools\nfrom keyseg.model.fusion import mlp\nimport torch\n\n"
        "class Gate(torch.nn.Module):\n    def forward(self, x):\n        return tools.twice(x)\n"
    )
    (lab / "tools.py").write_text(
        "def twice(x):\n    return 2 * x\n\ndef other(x):\n    return x\n"
    )
    forget()
    named = ("lab.gate.Gate",)
    then = code.of(named)
    assert {"lab/gate.py: Gate", "lab/tools.py: twice"} <= then.parts.keys()
    assert "lab/tools.py: other" not in then.parts
    edit(copy, "lab/tools.py", "return 2 * x", "return x + x")
    assert code.differences(then.parts, code.of(named).parts) == ["lab/tools.py: twice"]


def test_what_is_registered_by_a_decorator_counts(copy):
    losses = copy / "keyseg/train/losses.py"
    losses.write_text(
        losses.read_text()
        + "\n\nTERMS = {}\n\ndef term(f):\n    TERMS[f.__name__] = f\n    return f\n\n"
        + "@term\ndef edge(x):\n    return x\n"
    )
    forget()
    then = code.of(FULL).parts
    assert "keyseg/train/losses.py: edge" in then
    edit(
        copy, "keyseg/train/losses.py", "def edge(x):\n    return x", "def edge(x):\n    return -x"
    )
    assert code.differences(then, code.of(FULL).parts) == ["keyseg/train/losses.py: edge"]


def test_a_term_that_is_named_without_its_path_counts(copy, monkeypatch, compose_run):
    """`+loss.terms.edge=1`, of a package that joined: the term alone, not its neighbours."""
    lab = copy / "lab"
    lab.mkdir()
    (lab / "__init__.py").write_text("raise RuntimeError('nothing is imported to look at it')\n")
    (lab / "terms.py").write_text(
        "from keyseg.train import losses\nfrom keyseg.train.losses import term as loss\n\n"
        "@loss(over='masks')\ndef edge(logits, targets):\n    return soft(logits)\n\n"
        "def soft(logits):\n    return logits.sigmoid()\n\n"
        "@losses.term('masks', 'corner')\ndef at_corners(logits, targets):\n    return logits\n"
    )
    joined = packages.Package("lab", None, lab, joined=True)
    monkeypatch.setattr(packages, "joined", lambda: [joined])
    forget()
    named = code.targets(compose_run("+loss.terms.edge=1"))
    assert "lab.terms.edge" in named
    assert "lab.terms.at_corners" in code.targets(compose_run("+loss.terms.corner=1"))
    assert not [t for t in code.targets(compose_run()) if t.startswith("lab")]
    then = code.of(named)
    edit(copy, "lab/terms.py", "return logits\n", "return -logits\n")  # the term beside it
    assert code.of(named).fingerprint == then.fingerprint
    edit(copy, "lab/terms.py", "logits.sigmoid()", "logits.tanh()")
    assert code.differences(then.parts, code.of(named).parts) == ["lab/terms.py: soft"]


def test_other_libraries_are_other_code(monkeypatch):
    then = code.of(FULL)
    forget()
    monkeypatch.setattr(code.metadata, "version", lambda name: "99.0+cu1")
    changed = code.differences(then.parts, code.of(FULL).parts)
    forget()
    assert changed == ["peft", "torch", "transformers"]


def test_the_code_of_a_run(tmp_path, run_config, monkeypatch):
    from keyseg.runs.run_directory import RunDirectory

    run = RunDirectory.create(tmp_path / "run", run_config)
    assert code.changes(run.info, run.path) == []  # from before this was recorded
    mark = code.record(run, run_config)
    assert run.info["code"]["fingerprint"] == mark
    assert "keyseg.model.fusion.Full" in run.info["code"]["targets"]
    assert code.changes(run.info, run.path) == []
    parts = code.parts_of(run.path)
    parts["keyseg/model/fusion.py: Full"] = "other"
    (run.path / code.CODE_FILE).write_text(json.dumps(parts))
    run.update(code=run.info["code"] | {"fingerprint": "f" * 16})
    assert code.changes(run.info, run.path) == ["keyseg/model/fusion.py: Full"]
    (run.path / code.CODE_FILE).unlink()  # that it is other code is known, if not where
    assert len(code.changes(run.info, run.path)) > 100
