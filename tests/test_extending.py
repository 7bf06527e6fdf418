"""What docs/extending.md promises, done once by a package that lies outside the checkout.

A fusion variant, a term of the loss, a measure, a reader, a sweep file, a figure, a section and a
launcher, in a real sweep of two small cells; then what is wrong with a package, found by --dry.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from keyseg.config import PROJECT
from keyseg.runs.run_directory import RunDirectory

FILES = {
    "mine/__init__.py": '"""A package of somebody else."""\n',
    "mine/join.py": '"""What joins keyseg."""\n\nfrom mine import losses, measures, report\n',
    "mine/variants.py": '''
import torch
from torch import nn

from keyseg.model.fusion import Variant


class Gate(Variant):
    """`s* = s + sigmoid(W [s; k]) * V k`."""

    uses_seg, uses_key, uses_context = True, True, False

    def __init__(self, dim, n_keys, width=1):
        super().__init__()
        if width < 1:
            raise ValueError(f"width={width}: must be 1 or more")
        self.gate = nn.Linear(2 * dim, dim)
        self.value = nn.Linear(dim, dim)

    def forward(self, seg, key, context, context_mask):
        k = key.mean(dim=1)
        return seg + self.gate(torch.cat([seg, k], dim=-1)).sigmoid() * self.value(k)
''',
    "mine/losses.py": '''
from keyseg.train.losses import term


@term(over="masks")
def edge(logits, targets, power=1.0):
    """How much neighbouring pixels differ."""
    p = logits.float().sigmoid()
    return (p[:, 1:] - p[:, :-1]).abs().pow(power).mean((1, 2))
''',
    "mine/measures.py": """
from keyseg.metrics import EXAMPLES, Measure, Term, register

poor = Term("poor", lambda e: e.iou < 0.9)
register(Measure("poor_rate", "Poor", poor, EXAMPLES, -1, "share with IoU < 0.9"))
""",
    "mine/report.py": """
from keyseg.report.figures.registry import figure
from keyseg.report.sections import section


@figure("areas", title="Areas", caption="Predicted areas.", place="verdicts")
def areas(data):
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(3, 2))
    drawn.subplots().hist([c.samples["intersection"].sum() for c in data.sweep.finished])
    return drawn


@section("remarks", title="Remarks of mine", place="results")
def remarks(data):
    return [f"{len(data.sweep.finished)} cells were looked at."]
""",
    "mine/data.py": '''
from keyseg.data import refer


def read(root, split, colour, **options):
    """Expressions of refer files, in capitals."""
    from dataclasses import replace

    return [replace(e, query=e.query.upper()) for e in refer.read(root, split=split, **options)]
''',
    "mine/experiments/fusion/gate.yaml": "# Gated KEY.\n_target_: mine.variants.Gate\n",
    "mine/experiments/fusion/gate_copy.yaml": "name: gate\n_target_: mine.variants.Gate\n",
    "mine/experiments/loss/edged.yaml": "defaults: [balanced, _self_]\nterms: {edge: 0.5}\n",
    "mine/experiments/data/capitals.yaml": """
defaults: [scenes, _self_]
sources:
  short: {_target_: mine.data.read, colour: red}
""",
    "mine/sweeps/edges.yaml": """# @package _global_
# Does a gate help?
hydra:
  mode: MULTIRUN
  sweeper:
    params: {fusion: "gate,gate_copy", loss: edged, data: capitals}
ablation:
  name: edges
  question: Does a gate help?
  baseline: {fusion: gate}
  metrics: [giou, poor_rate]
""",
    "mine-0.3.dist-info/METADATA": "Metadata-Version: 2.1\nName: mine\nVersion: 0.3\n",
    "mine-0.3.dist-info/entry_points.txt": "[keyseg]\nmine = mine.join\n",
    "hydra_plugins/mine.py": '''
from dataclasses import dataclass

from hydra.core.config_store import ConfigStore

from hydra_plugins.keyseg import LocalLauncher
from keyseg.sweep.local.launcher import LocalConfig


class QuietLauncher(LocalLauncher):
    """Says its name."""

    def run_cells(self, plan, cells, console):
        console.print("run by mine")
        return super().run_cells(plan, cells, console)


@dataclass
class QuietConfig(LocalConfig):
    _target_: str = "hydra_plugins.mine.QuietLauncher"


ConfigStore.instance().store("quiet", QuietConfig, group="hydra/launcher", provider="mine")
''',
}


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the package is imported from."""
    return write(tmp_path_factory.mktemp("outside"), FILES)


class Shell:
    """Commands in a folder, with the package in reach or without it."""

    def __init__(self, folder: Path, package: Path) -> None:
        self.folder = folder
        self.package = package

    def __call__(
        self, *command: str, package: Path | str | None = None, **environment: str
    ) -> tuple[int, str, str]:
        paths = [PROJECT, self.package if package is None else package]
        done = subprocess.run(
            [sys.executable, *command],
            cwd=self.folder,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(str(p) for p in paths if p),
                "MLFLOW_TRACKING_URI": f"sqlite:///{self.folder / 'mlflow.db'}",
                "COLUMNS": "200",
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        return done.returncode, done.stdout, done.stderr

    def run(self, *overrides: str, **how: str) -> tuple[int, str, str]:
        places = (f"paths.outputs={self.folder / 'out'}", f"paths.reports={self.folder / 'rep'}")
        return self(str(PROJECT / "run.py"), *overrides, *places, **how)


@pytest.fixture(scope="session")
def shell(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    return Shell(tmp_path_factory.mktemp("work"), package)


SHORT = (
    "optim.steps=2",
    "optim.eval_every=2",
    "optim.checkpoint_every=2",
    "optim.warmup=0",
    "runtime.log_every=1",
    "evaluation.val_images=2",
    "evaluation.max_new_tokens=8",
)


@pytest.fixture(scope="session")
def finished(shell: Shell, small_overrides: tuple[str, ...]) -> tuple[dict[str, RunDirectory], str]:
    """The cells of the package's sweep by label, and what was printed."""
    small = [o for o in small_overrides if not o.startswith("model.frozen")]
    command = ("-m", "+sweeps=edges", "hydra/launcher=quiet", *small, *SHORT)
    code, out, err = shell.run(*command)
    assert code == 0, out + err
    found = [RunDirectory(file.parent) for file in shell.folder.glob("out/edges/*/run.json")]
    return {str(run.info["label"]): run for run in found}, out


def test_a_sweep_of_the_package_is_found_and_run_by_its_launcher(finished):
    cells, out = finished
    assert "run by mine" in out
    assert {label: run.status for label, run in cells.items()} == {
        "gate": "done",
        "gate_copy": "done",
    }


def test_an_option_is_called_what_its_file_is_called(finished):
    cells, _ = finished
    run = cells["gate_copy"].config
    assert (run.fusion["name"], run.loss.name, run.data["name"]) == (
        "gate_copy",
        "edged",
        "capitals",
    )


def test_a_term_is_trained_logged_and_part_of_the_total(finished):
    cells, _ = finished
    rows = cells["gate"].metrics()
    last = rows[rows["step"] == 2].set_index("name")["value"]
    cfg = cells["gate"].config.loss
    own = {"text": cfg.text, "bce": cfg.bce, "dice": cfg.dice, "keyword": cfg.keyword.weight}
    weights = {**own, "edge": 0.5}
    total = sum(weight * last[f"train/{name}"] for name, weight in weights.items())
    assert last["train/edge"] > 0
    assert last["train/loss"] == pytest.approx(total, rel=1e-4)


def test_a_measure_is_in_the_summary_and_in_the_tables(finished, shell):
    cells, _ = finished
    for scores in cells["gate"].info["summary"].values():
        assert 0 <= scores["poor_rate"] <= 1
    page = (shell.folder / "rep/edges/index.html").read_text()
    assert "Further measures" in page
    assert "share with IoU &lt; 0.9" in page
    table = pd.read_csv(shell.folder / "rep/edges/tables/results.csv")
    assert any("poor_rate" in str(column) for column in [*table.columns, *table.to_numpy().ravel()])


def test_figure_and_section_are_on_both_pages(finished, shell):
    report = shell.folder / "rep/edges"
    page, plain = (report / "index.html").read_text(), (report / "report.md").read_text()
    assert (report / "figures/areas.png").exists()
    for text in ("Areas", "Predicted areas.", "Remarks of mine", "2 cells were looked at."):
        assert text in page
        assert text in plain
    assert 'id="figure-areas"' in page
    assert page.index("<h2>Results</h2>") < page.index("Remarks of mine")


def test_a_reader_is_called(finished):
    cells, _ = finished
    samples = cells["gate"].samples()
    short = samples[samples["slice_style"] == "short"]
    assert len(short)
    assert short["query"].str.isupper().all()


def test_the_run_says_which_package_it_needed(finished, package):
    cells, _ = finished
    found = cells["gate"].info["packages"]["mine"]
    assert found["version"] == "0.3"
    assert len(found["source"]) == 12


def test_the_mlflow_model_has_the_package_in_it(finished, shell, tmp_path):
    cells, _ = finished
    code = (
        "import sys; from pathlib import Path; from keyseg.runs import packages\n"
        "from keyseg.runs.run_directory import RunDirectory; from keyseg.tracking import model\n"
        "packages.load(); model.write(RunDirectory(sys.argv[1]), Path(sys.argv[2]))"
    )
    folder = tmp_path / "model"
    status, out, err = shell("-c", code, str(cells["gate"].path), str(folder))
    assert status == 0, out + err
    assert (folder / "code/mine/variants.py").exists()
    load = (
        "import sys, mlflow.pyfunc; m = mlflow.pyfunc.load_model(sys.argv[1])\n"
        "import mine; print(mine.__file__)"
    )
    status, _, err = shell("-c", load, str(folder), package="")
    assert status
    assert "export KEYSEG_PACKAGES=mine" in err
    status, out, err = shell("-c", load, str(folder), package="", KEYSEG_PACKAGES="mine")
    assert status == 0, err
    assert out.strip() == str(folder / "code/mine/__init__.py")


def test_an_export_says_what_it_needs(finished, shell, tmp_path):
    cells, _ = finished
    folder = tmp_path / "exported"
    command = ("-m", "keyseg", "export", str(cells["gate"].path), str(folder))
    status, out, err = shell(*command)
    assert status == 0, out + err
    assert json.loads((folder / "keyseg.json").read_text())["needs"] == ["mine==0.3"]
    assert "segment-anything, mine==0.3 and keyseg" in (folder / "README.md").read_text()


def test_jobs_run_a_copy_of_the_package(finished, shell, tmp_path):
    cells, _ = finished
    code = (
        "import sys; from pathlib import Path; from keyseg.runs import packages, snapshot\n"
        "from keyseg.runs.run_directory import RunDirectory\n"
        "needed = packages.carried([RunDirectory(sys.argv[1]).config])\n"
        "print(snapshot.take(Path(sys.argv[2]), packages=needed))"
    )
    status, out, err = shell("-c", code, str(cells["gate"].path), str(tmp_path))
    assert status == 0, err
    taken = Path(out.strip())
    for name in ("mine/variants.py", "mine/experiments/fusion/gate.yaml", "keyseg/config.py"):
        assert (taken / name).exists()
    variants = shell.package / "mine/variants.py"
    before = variants.read_text()
    try:
        variants.write_text(before + "\n# another day\n")
        status, out, err = shell("-c", code, str(cells["gate"].path), str(tmp_path))
    finally:
        variants.write_text(before)
    assert Path(out.strip()) != taken


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["fusion=full", "fusion.heads=5"], "fusion=full (keyseg.model.fusion.Full)"),
        (["fusion=gate", "+fusion.width=0"], "width=0: must be 1 or more"),
        (["fusion=gate", "+fusion.wdth=3"], "unexpected keyword argument 'wdth'"),
        (["fusion=gate", "fusion._target_=mine.variants.Gat"], "fusion._target_=mine.variants.Gat"),
        (["loss=edged", "+loss.terms.edgy=1"], "no such term. Did you mean 'edge'?"),
        (["+loss.terms.edge={weight: 1, pwer: 2}"], "unexpected keyword argument 'pwer'"),
        (["data=capitals", "+data.sources.long.colour=red"], "data.sources.long"),
        (["fusion=gate", "fusion.name=other"], "called what its file is called"),
    ],
)
def test_what_is_wrong_is_said_by_dry(shell, overrides, message):
    status, out, err = shell.run("-m", "--dry", *overrides, "seed=0,1")
    assert status == 2, out + err
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_an_entry_point_that_cannot_be_imported_is_named(shell, tmp_path):
    broken = write(tmp_path, {**FILES, "mine/losses.py": "import no_such_thing\n"})
    status, _, err = shell.run("--dry", "seed=1", package=broken)
    assert status == 2
    assert "package mine 0.3 (entry point mine = mine.join) cannot be imported" in err
    assert "no_such_thing" in err


@pytest.mark.parametrize("way", ["--config-dir={}", "hydra.searchpath=[file://{}]"])
def test_a_folder_of_options_is_enough(shell, tmp_path, way):
    write(tmp_path, {"fusion/wide.yaml": (PROJECT / "experiments/fusion/full.yaml").read_text()})
    status, out, err = shell.run(way.format(tmp_path), "fusion=wide", "--dry", package="")
    assert status == 0, err
    assert out.startswith("wide · seed 0: ")
    status, _, err = shell.run(way.format(tmp_path), "fusion=wid", "--dry", package="")
    assert status == 2
    assert "Did you mean 'wide'?" in err


def test_a_place_that_is_not_there_is_said(shell, tmp_path):
    status, _, err = shell.run(f"hydra.searchpath=[file://{tmp_path}/none]", "--dry", package="")
    assert status == 2
    assert f"hydra.searchpath: there is no folder {tmp_path}/none" in err


def test_help_lists_what_the_package_brings(shell):
    status, out, _ = shell(str(PROJECT / "run.py"), "--help")
    assert status == 0
    assert "gate " in out
    assert "Gated KEY." in out
    assert "Does a gate help?" in out
