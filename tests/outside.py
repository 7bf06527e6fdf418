"""A package outside the checkout that adds one of everything, and a finished sweep of it.

The one real sweep of the tests, from the command to MLflow and the report: whoever only reads a
finished sweep takes this one.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from keyseg.config import PROJECT
from keyseg.runs.run_directory import RunDirectory
from tests import forked
from tests.plain import plain_for
from tests.sharing import once

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
        self,
        *command: str,
        package: Path | str | None = None,
        new: bool = False,
        **environment: str,
    ) -> tuple[int, str, str]:
        """`python COMMAND`; new: in a process that has loaded nothing before."""
        paths = [PROJECT, self.package if package is None else package]
        env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(str(p) for p in paths if p),
            "MLFLOW_TRACKING_URI": f"sqlite:///{self.folder / 'mlflow.db'}",
            "COLUMNS": "200",
            **environment,
        }
        if not new:
            done = forked.run(*command, cwd=self.folder, env=env, timeout=900)
        else:
            words = [sys.executable, *command]
            done = subprocess.run(
                words,
                cwd=self.folder,
                env=env,
                capture_output=True,
                text=True,
                check=False,
                timeout=900,
            )
        return done.returncode, done.stdout, done.stderr

    def run(self, *overrides: str, new: bool = False, **how: str) -> tuple[int, str, str]:
        places = (f"paths.outputs={self.folder / 'out'}", f"paths.reports={self.folder / 'rep'}")
        words = (*overrides, *plain_for(overrides), *places)
        return self(str(PROJECT / "run.py"), *words, new=new, **how)


@pytest.fixture(scope="session")
def shell(package: Path, empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    folder = tmp_path_factory.mktemp("work")
    shutil.copy(empty_store, folder / "mlflow.db")
    return Shell(folder, package)


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
def real_sweep(
    request: pytest.FixtureRequest, shell: Shell, small_overrides: tuple[str, ...]
) -> tuple[dict[str, RunDirectory], str]:
    """The cells of the package's sweep by label, and what was printed."""
    once(request, "a real sweep")
    small = [o for o in small_overrides if not o.startswith("model.frozen")]
    command = ("-m", "+sweeps=edges", "hydra/launcher=quiet", *small, *SHORT)
    code, out, err = shell.run(*command, new=True)
    assert code == 0, out + err
    found = [RunDirectory(file.parent) for file in shell.folder.glob("out/edges/*/run.json")]
    return {str(run.info["label"]): run for run in found}, out
