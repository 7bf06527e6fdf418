"""Imports run downward only, and what starts often starts fast."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from keyseg.config import PROJECT

# One line = one floor. A module may import from its own room and from the floors above it here.
FLOORS = (
    ("config", "metrics"),
    ("runs",),
    ("data",),
    ("model",),
    ("train",),
    ("predict",),
    ("tracking",),
    ("worker", "cell"),
    ("sweep", "report"),
    ("commands",),
    ("cli", "__main__"),
)
BESIDE = (
    "tiny",
)  # the recipe of the bundled backbones: imports models and data, nobody imports it

LIGHT = ("config", "runs", "tracking", "cell", "sweep", "report", "commands", "cli")
LIGHT_FILES = ("worker/cell.py", "worker/several.py", "worker/precompute.py")
HEAVY = ("torch", "transformers", "peft", "segment_anything", "mlflow")

MODULES = sorted((PROJECT / "keyseg").rglob("*.py"))


def room(file: Path) -> str:
    """`keyseg/sweep/progress.py` -> `sweep`."""
    return file.relative_to(PROJECT / "keyseg").with_suffix("").parts[0]


def imported(file: Path, *, at_import_time: bool = False) -> list[str]:
    """Dotted names that a file imports; without those inside functions and TYPE_CHECKING."""
    found = []

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.extend(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{file}: relative import"
                found.append(f"{child.module}")
                found.extend(f"{child.module}.{alias.name}" for alias in child.names)
            elif (at_import_time and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)) or (
                at_import_time
                and isinstance(child, ast.If)
                and "TYPE_CHECKING" in ast.dump(child.test)
            ):
                continue
            visit(child)

    visit(ast.parse(file.read_text()))
    return found


@pytest.mark.parametrize("file", MODULES, ids=lambda f: str(f.relative_to(PROJECT)))
def test_imports_run_downward(file):
    here = room(file)
    if here in (*BESIDE, "__init__"):
        return
    floor = {name: i for i, names in enumerate(FLOORS) for name in names}
    assert here in floor, f"keyseg/{here} has no floor yet: give it one in this test"
    for name in imported(file):
        parts = name.split(".")
        if parts[0] != "keyseg" or len(parts) < 2 or parts[1] not in {*floor, *BESIDE}:
            continue
        assert parts[1] not in BESIDE, f"{file} imports {name}"
        assert floor[parts[1]] <= floor[here], f"{file} imports {name}, which is above it"


@pytest.mark.parametrize("file", MODULES, ids=lambda f: str(f.relative_to(PROJECT)))
def test_only_tracking_imports_mlflow_and_light_rooms_nothing_heavy(file):
    here = room(file)
    everywhere = {name.split(".")[0] for name in imported(file)}
    if here != "tracking":
        assert "mlflow" not in everywhere
    if here in LIGHT or file.relative_to(PROJECT / "keyseg").as_posix() in LIGHT_FILES:
        at_import = {name.split(".")[0] for name in imported(file, at_import_time=True)}
        assert not at_import & set(HEAVY)


@pytest.mark.parametrize("file", MODULES, ids=lambda f: str(f.relative_to(PROJECT)))
def test_model_and_losses_run_on_a_bare_gpu_node(file):
    if room(file) == "model" or file.name == "losses.py":
        assert not {name.split(".")[0] for name in imported(file)} & {"hydra", "mlflow", "pandas"}


def test_a_launch_and_a_report_load_nothing_heavy():
    code = (
        "import sys, keyseg.sweep.launcher, keyseg.sweep.single, keyseg.report, keyseg.cli, "
        "keyseg.runs.run_directory, keyseg.tracking.sync, keyseg.runs.provenance, keyseg.data\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_command_lines_load_no_tables_and_no_drawing_either():
    """`run.py --help` is Hydra with our launcher."""
    code = (
        "import sys, keyseg.cli, keyseg.sweep.launcher, keyseg.sweep.slurm.launcher\n"
        "print({'numpy', 'pandas', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
