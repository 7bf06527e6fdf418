"""What is asked of every file: imports run downward only and without circles, what starts often
starts fast, and a name is one thing's.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterable
from pathlib import Path

import pytest

from keyseg.config import PROJECT
from keyseg.runs.samples import SAMPLE_COLUMNS, SEVERAL_COLUMNS
from tests.structure import Import, circles, floors, imports, module_graph, room_graph

# One line = one floor. A module may import from its own room and from the floors above it here.
FLOORS = (
    ("config",),
    ("runs",),
    ("data",),
    ("metrics", "dialects"),
    ("model",),
    ("train",),
    ("predict",),
    ("tracking",),
    ("worker",),
    ("sweep", "report", "cell"),
    ("commands",),
    ("cli",),
    ("__main__",),
)
BESIDE = (
    "tiny",
)  # the recipe of the bundled backbones: imports models and data, nobody imports it
MOST_ROOMS = 17

LIGHT = ("config", "runs", "tracking", "cell", "sweep", "report", "commands", "cli")
LIGHT_FILES = ("worker/cell.py", "worker/several.py", "worker/precompute.py")
HEAVY = ("torch", "transformers", "peft", "segment_anything", "mlflow")

MODULES = sorted((PROJECT / "keyseg").rglob("*.py"))


def room(file: Path) -> str:
    """`keyseg/sweep/progress.py` -> `sweep`."""
    return file.relative_to(PROJECT / "keyseg").with_suffix("").parts[0]


def each(files: Iterable[Path]) -> pytest.MarkDecorator:
    """A test for each of them: only for those that could fail it."""
    return pytest.mark.parametrize("file", list(files), ids=lambda f: str(f.relative_to(PROJECT)))


def has(file: Path, line: str) -> bool:
    """Whether a line begins so. Every process collects the tests: it reads no syntax for that."""
    return re.search(f"^{line}", file.read_text(), re.MULTILINE) is not None


def imports_of_ours(file: Path) -> list[str]:
    """Modules of keyseg that a module imports."""
    return [entry.name for entry in imports(file) if entry.name.startswith("keyseg.")]


def packages(found: list[Import]) -> set[str]:
    return {entry.name.split(".")[0] for entry in found}


def test_every_room_has_a_floor_and_there_are_few():
    rooms = room_graph(PROJECT)
    placed = [name for names in (*FLOORS, BESIDE) for name in names]
    assert sorted(rooms) == sorted(placed)
    assert len(rooms) <= MOST_ROOMS


def test_there_is_no_circle_of_modules_or_rooms():
    """Late imports count, and those for type checkers."""
    assert circles(module_graph(PROJECT)) == []
    assert circles(room_graph(PROJECT)) == []


def test_a_circle_is_seen(tmp_path):
    """In modules, late, for types only, and of rooms whose modules make none."""
    for name in ("a", "b", "c"):
        (tmp_path / "keyseg" / name).mkdir(parents=True)
        (tmp_path / "keyseg" / name / "__init__.py").write_text("")
    (tmp_path / "keyseg/a/one.py").write_text("from keyseg.b import one\n")
    (tmp_path / "keyseg/b/one.py").write_text("def f():\n    from keyseg.c.one import g\n")
    (tmp_path / "keyseg/c/one.py").write_text("")
    assert circles(module_graph(tmp_path)) == circles(room_graph(tmp_path)) == []
    assert floors(room_graph(tmp_path)) == {"a": 3, "b": 2, "c": 1}
    (tmp_path / "keyseg/c/two.py").write_text("import keyseg.a.one\n")
    assert circles(module_graph(tmp_path)) == []
    assert circles(room_graph(tmp_path)) == [["a", "b", "c"]]
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from keyseg.a.one import x\n"
    (tmp_path / "keyseg/c/one.py").write_text(text)
    assert circles(module_graph(tmp_path)) == [["keyseg.a.one", "keyseg.b.one", "keyseg.c.one"]]


@each(f for f in MODULES if room(f) not in (*BESIDE, "__init__") and has(f, " *from keyseg"))
def test_imports_run_downward(file):
    here = room(file)
    floor = {name: i for i, names in enumerate(FLOORS) for name in names}
    for name in imports_of_ours(file):
        other = name.split(".")[1]
        assert other not in BESIDE, f"{file} imports {name}"
        if other in floor:  # else it is a name of the package itself
            below = other == here or floor[other] < floor[here]
            assert below, f"{file} imports {name}, which is not below it"


@each(f for f in MODULES if has(f, " *(from|import) "))
def test_only_tracking_imports_mlflow_and_light_rooms_nothing_heavy(file):
    here, found = room(file), list(imports(file))
    if here != "tracking":
        assert "mlflow" not in packages(found)
    if here in LIGHT or file.relative_to(PROJECT / "keyseg").as_posix() in LIGHT_FILES:
        at_import = packages([entry for entry in found if not entry.late and not entry.typing])
        assert not at_import & set(HEAVY)


@each(f for f in MODULES if room(f) == "model" or f.name == "losses.py")
def test_model_and_losses_run_on_a_bare_gpu_node(file):
    assert not packages(list(imports(file))) & {"hydra", "mlflow", "pandas"}


@each(f for f in MODULES if has(f, " +(from|import) "))
def test_late_imports_are_for_the_start_and_say_so(file):
    """What is late is a library that takes time to load, or our own module that needs one.

    For our own the file says why, in its head or in a comment.
    """
    late = [entry.name for entry in imports(file) if entry.late]
    standard = {name.split(".")[0] for name in late} & set(sys.stdlib_module_names)
    assert not standard, f"{file} imports {standard} late: they take no time"
    if any(name.startswith("keyseg.") for name in late):
        tokens = list(tokenize.generate_tokens(io.StringIO(file.read_text()).readline))
        head = tokens[0].string if tokens[0].type == tokenize.STRING else ""
        comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
        said = [
            text for text in (head, *comments) if re.search(r"\b(import|load)(s|ed)?\b", text, re.I)
        ]
        assert said, f"{file} imports {late} late and does not say why"


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


def test_a_class_has_its_name_alone():
    """Within the package: who reads `Cell` need not ask which."""
    places: dict[str, list[str]] = {}
    for file in MODULES:
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(str(file.relative_to(PROJECT)))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_a_constant_stands_once():
    """Its name is one thing's; modules of one folder may agree on a name, as stages do."""
    places: dict[str, set[Path]] = {}
    for file in MODULES:
        for node in ast.parse(file.read_text()).body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            targets = [node.target] if isinstance(node, ast.AnnAssign) and node.value else targets
            for name in (n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)):
                if name.isupper() and len(name) > 1 and not name.startswith("_"):
                    places.setdefault(name, set()).add(file.relative_to(PROJECT).parent)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


@pytest.mark.parametrize("folder", ["keyseg", "hydra_plugins", "benchmarks", "tests"])
def test_nothing_is_unpacked_that_could_be_written_out(folder):
    """`*("a", "b")` steers the formatter, and a reader stops at it."""
    for file in sorted((PROJECT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Starred) and isinstance(node.value, ast.Tuple | ast.List):
                raise AssertionError(f"{file}:{node.lineno}: {ast.unparse(node)}")


def test_values_are_called_by_what_they_are():
    """Participles had up to seven meanings each: `found` was a match, a run, a table, a path."""
    for file in sorted((PROJECT / "keyseg").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            stored = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            name = node.id if stored else node.arg if isinstance(node, ast.arg) else ""
            assert name not in ("found", "held", "told"), f"{file}:{node.lineno}"


def test_the_page_on_the_architecture_names_what_there_is():
    page = (PROJECT / "docs" / "architecture.md").read_text()
    tree = page.partition("```\nkeyseg/\n")[2].partition("```")[0]
    assert {name for name in room_graph(PROJECT) if name not in tree} == {"__main__"}
    folder = Path()
    for line in tree.splitlines():
        indent = len(line) - len(line.lstrip())
        names = re.findall(r"(?:^ *|\s{2,})([\w/]+/|[\w/]+\.py)(?=\s)", line)
        assert names, line
        folder = Path(names[0]) if indent == 2 and names[0].endswith("/") else folder
        for name in names:
            place = Path(name) if indent == 2 else folder / name
            assert (PROJECT / "keyseg" / place).exists(), line
    for path in re.findall(r"`((?:\w+/)+\w+\.py)`", page):
        assert (PROJECT / path).exists() or (PROJECT / "keyseg" / path).exists(), path
    for column in (*SAMPLE_COLUMNS, *SEVERAL_COLUMNS):
        assert f"| `{column}` |" in page
    rooms = room_graph(PROJECT)
    found = len(circles(module_graph(PROJECT))) + len(circles(rooms))
    today = re.search(r"today \| (\d+) \| \d+ \| \d+ \| (\d+) \|", page)
    assert today is not None
    assert today.groups() == (str(len(rooms)), str(found))
