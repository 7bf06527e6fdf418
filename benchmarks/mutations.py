"""How many faults the tests find: a sample of mutations of keyseg/, each tried by itself.

    python benchmarks/mutations.py                     60 mutations: an hour of one core
    python benchmarks/mutations.py --count 10 --seed 1
    python benchmarks/mutations.py --commit 364ae30    code and tests of that commit
    python benchmarks/mutations.py --rounds 1          by tests that name the module, slow ones too
    python benchmarks/mutations.py --only 3f2a,91bc    some of them again, by the start of their ids
    python benchmarks/mutations.py --results FILE      keeps what came out; given again, it goes on

A mutation changes one place: a sign, a bound, a condition, a constant, or a line that is left out.
The sample has as many of each kind, and is chosen by a hash of the place and the seed: other code
changes it only where the code is other. A commit (HEAD if none is named) is cloned to a temporary
folder and mutated there. Tests run in three rounds, each up to the first failure: the quick ones
that import the module, name it or carry its name; the slow ones among these, and those of its room;
all other quick ones. Where the first round is the only one, slow tests are in it: commits that call
other tests slow can be compared. Tests that start a server are left out. The first test that fails
must pass on the code as it was: otherwise it counts for nothing and is left out from then on. A
round that takes more than its seconds of CPU, or ten times that by the clock, decides nothing: it
is counted apart.

Tests run in processes forked from one that has loaded torch and the other libraries; mutmut and
cosmic-ray start a new one each time, ten seconds of imports for each mutation. The last line is
JSON.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import hashlib
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

PROJECT = Path(__file__).resolve().parents[1]
KINDS = ("sign", "bound", "condition", "constant", "line")
LIBRARIES = (
    "hydra",
    "matplotlib.figure",
    "mlflow",
    "optuna",
    "pandas",
    "peft",
    "pycocotools.mask",
    "pytest",
    "scipy.stats",
    "segment_anything",
    "torch",
    "transformers",
)
LEFT_OUT = ("keyseg/tiny/", "keyseg/cell.py", "keyseg/__main__.py", "keyseg/worker/__main__.py")
TIME = "time"
SERVERS = ("tests/browser/", "tests/slurm/", "tests/tracking/test_postgres.py")


@dataclass(frozen=True)
class Mutation:
    """One change. line, column and end: of the text in the file that `after` stands for."""

    id: str
    kind: str
    file: str
    inside: str
    line: int
    start: int
    end: int
    before: str
    after: str

    def __str__(self) -> str:
        before, after = (" ".join(text.split())[:70] for text in (self.before, self.after))
        return f"{self.id[:6]} {self.file}:{self.line} {self.inside}: {before} -> {after}"


# -- places ----------------------------------------------------------------------------------------

_SIGNS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
_BOUNDS = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
_OPPOSITE = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
_DELETED = (ast.Expr, ast.Assign, ast.AugAssign, ast.Raise, ast.Return, ast.Continue, ast.Break)


def places(root: Path) -> Iterator[Mutation]:
    """Every mutation of a checkout."""
    for path in sorted((root / "keyseg").rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if not name.startswith(LEFT_OUT):
            yield from _of_file(name, path.read_bytes())


def _of_file(file: str, source: bytes) -> Iterator[Mutation]:
    starts = [0]
    for text in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(text))
    seen: dict[tuple[str, ...], int] = {}
    for kind, node, inside, changed in _changes(ast.parse(source), "", False):
        assert isinstance(node, ast.expr | ast.stmt)
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        before, after = source[start:end].decode(), ast.unparse(changed)
        if isinstance(changed, ast.expr):
            after = f"({after})"
        what = (file, inside, kind, " ".join(before.split()), after)
        seen[what] = seen.get(what, 0) + 1
        name = hashlib.sha256("\0".join((*what, str(seen[what]))).encode()).hexdigest()
        yield Mutation(name, kind, file, inside, node.lineno, start, end, before, after)


def _changes(
    node: ast.AST, inside: str, function: bool
) -> Iterator[tuple[str, ast.AST, str, ast.AST]]:
    """(kind, node, the definition that it stands in, what it becomes) below a node."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or _silent(child):
                continue
            where, within = inside, function
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                where = f"{inside}.{child.name}" if inside else child.name
                within = not isinstance(child, ast.ClassDef)
            for kind, changed in _mutants(child, node, within):
                yield kind, child, where, changed
            yield from _changes(child, where, within)


def _silent(node: ast.AST) -> bool:
    """What computes nothing: docstrings, texts with values in them, log lines, type checks."""
    if isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom):
        return True
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
        return True
    if not isinstance(node, ast.Expr):
        return False
    if isinstance(node.value, ast.Constant):
        return True
    called = node.value.func if isinstance(node.value, ast.Call) else None
    return isinstance(called, ast.Attribute) and ast.unparse(called.value) == "log"


def _mutants(node: ast.AST, parent: ast.AST, function: bool) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node, ast.BinOp) and type(node.op) in _SIGNS:
        sides = (node.left, node.right)
        texts = (ast.JoinedStr, ast.List, ast.Tuple, ast.ListComp)
        if not any(isinstance(side, texts) or _is_text(side) for side in sides):
            yield "sign", _with(node, op=_SIGNS[type(node.op)]())
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "sign", node.operand
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        [op] = node.ops
        if type(op) in _BOUNDS:
            yield "bound", _with(node, ops=[_BOUNDS[type(op)]()])
        elif type(op) in _OPPOSITE:
            yield "condition", _with(node, ops=[_OPPOSITE[type(op)]()])
    if isinstance(node, ast.BoolOp):
        yield "condition", _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "condition", node.operand
    if isinstance(node, ast.Constant) and not isinstance(parent, ast.UnaryOp):
        if isinstance(node.value, bool):
            yield "constant", ast.Constant(not node.value)
        elif isinstance(node.value, int):
            bound = isinstance(parent, ast.Slice | ast.Subscript)
            yield "bound" if bound else "constant", ast.Constant(node.value + 1)
        elif isinstance(node.value, float):
            yield "constant", ast.Constant(2 * node.value or 1.0)
    if function and isinstance(node, _DELETED):
        yield "line", ast.Pass()


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _with(node: ast.AST, **fields: object) -> ast.AST:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def sample(every: list[Mutation], count: int, seed: int) -> list[Mutation]:
    """As many of each kind, in the order of their hashes."""

    def order(mutation: Mutation) -> str:
        return hashlib.sha256(f"{seed} {mutation.id}".encode()).hexdigest()

    ordered = sorted(every, key=order)
    each = -(-count // len(KINDS))
    chosen = [m for kind in KINDS for m in [m for m in ordered if m.kind == kind][:each]]
    return sorted(chosen, key=order)[:count]


# -- tests -----------------------------------------------------------------------------------------


def rounds(root: Path, file: str, slow: tuple[str, ...]) -> list[list[str]]:
    """Files of tests for a mutated file, in three rounds."""
    module = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    room = file.split("/")[1].removesuffix(".py")
    every = [f.relative_to(root).as_posix() for f in sorted((root / "tests").rglob("test_*.py"))]
    every = [name for name in every if not name.startswith(SERVERS)]
    named = [n for n in every if _carries(n, file) or _names(root / n, module)]
    named.sort(key=lambda name: not _carries(name, file))
    near = [name for name in every if name in named or name.startswith(f"tests/{room}/")]
    is_slow = {name: name.removeprefix("tests/").startswith(slow) for name in every}
    first = [name for name in named if not is_slow[name]]
    second = [name for name in near if name not in first]
    third = [name for name in every if name not in (*first, *second) and not is_slow[name]]
    return [first, second, third]


def _carries(test: str, file: str) -> bool:
    return Path(test).stem == f"test_{Path(file).stem}"


def _names(test: Path, module: str) -> bool:
    """Imports the module, or says its name: as of a command, or where it is replaced."""
    source, name = test.read_text(), module.rpartition(".")[2]
    if len(name) > 5 and re.search(rf"\b{name}\b", source):
        return True
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
        if module in names:
            return True
    return False


class _First:
    """A plugin of pytest: notes the first test, or file, that fails."""

    def __init__(self, note: Path) -> None:
        self.note = note

    def pytest_runtest_logreport(self, report: object) -> None:
        self._look(report)

    def pytest_collectreport(self, report: object) -> None:
        self._look(report)

    def _look(self, report: object) -> None:
        if getattr(report, "failed", False) and not self.note.exists():
            self.note.write_text(str(getattr(report, "nodeid", "")))


def failing(root: Path, tests: list[str], skipped: set[str], seconds: float) -> str | None:
    """The first test that fails; TIME where they take more CPU than that; None: all pass."""
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / "failed"
        child = os.fork()
        if child == 0:
            _test(root, tests, skipped, note, Path(folder))
        end = time.monotonic() + 10 * seconds
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() > end or _cpu(child) > seconds:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return note.read_text() if note.exists() else TIME
            time.sleep(0.2)
        with contextlib.suppress(ProcessLookupError):  # what its tests left behind
            os.killpg(child, signal.SIGKILL)
        if note.exists():
            return note.read_text()
        code = os.waitstatus_to_exitcode(ended[1])
        if code not in (0, 5):  # 5: all of them were left out
            raise RuntimeError((Path(folder) / "out.txt").read_text())
        return None


def _cpu(process: int) -> float:
    """Seconds of CPU that a process and all below it have taken."""
    taken = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        first = psutil.Process(process)
        for each in (first, *first.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = each.cpu_times()
                taken += sum(times[:4])  # user and system, its own and of children that ended
    return taken


def _test(root: Path, tests: list[str], skipped: set[str], note: Path, folder: Path) -> None:
    """The work of the child: never returns."""
    os.setsid()
    os.chdir(root)
    sys.path.insert(0, str(root))
    os.environ |= {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    with (folder / "out.txt").open("w") as out:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(out.fileno(), stream.fileno())
    import pytest

    left = [f"--deselect={name}" for name in sorted(skipped)]
    loaded = "ignore::pytest.PytestAssertRewriteWarning"  # libraries that bring plugins
    options = [
        "-x",
        "-q",
        "-W",
        loaded,
        "-p",
        "no:cacheprovider",
        f"--basetemp={folder / 'tmp'}",
        *left,
    ]
    code = 70
    try:
        code = int(pytest.main([*options, *tests], plugins=[_First(note)]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Bench:
    """A clone of a commit, in which one place at a time is mutated."""

    def __init__(self, root: Path, seconds: float, most: int) -> None:
        self.root = root
        self.most = most
        self.seconds = seconds
        self.unfit: set[str] = set()
        self.fit: set[str] = set()
        sys.path.insert(0, str(root))
        scope: dict[str, tuple[str, ...]] = {}
        for node in ast.parse((root / "tests/conftest.py").read_text()).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SLOW":
                scope["slow"] = ast.literal_eval(node.value)
        self.slow = scope.get("slow", ()) if most > 1 else ()

    def found_by(self, mutation: Mutation) -> str | None:
        """The test that finds a mutation; None: it survives."""
        path = self.root / mutation.file
        whole = path.read_bytes()
        for tests in rounds(self.root, mutation.file, self.slow)[: self.most]:
            while tests:
                changed = mutation.after.encode()
                path.write_bytes(whole[: mutation.start] + changed + whole[mutation.end :])
                try:
                    failed = failing(self.root, tests, self.unfit, self.seconds)
                finally:
                    path.write_bytes(whole)
                if failed is None:
                    break
                if failed == TIME or self.passes(failed):
                    return failed
        return None

    def passes(self, test: str) -> bool:
        """Whether a test passes on the code as it is; else it is left out from now on."""
        if test not in self.fit:
            sound = failing(self.root, [test], set(), self.seconds) is None
            (self.fit if sound else self.unfit).add(test)
        return test in self.fit


class Results:
    """What came of each mutation of a commit, in as many rounds; kept in a file of lines."""

    def __init__(self, file: Path | None, commit: str, rounds: int) -> None:
        self.file = file
        self.of = {"commit": commit, "rounds": rounds}
        text = file.read_text() if file is not None and file.exists() else ""
        whole, _, torn = text.rpartition("\n")
        if torn:  # a full disk, or the power: what it was of is tried again
            assert file is not None
            file.write_text(whole + "\n" if whole else "")
        kept = [json.loads(line) for line in whole.splitlines()]
        self.tests = {k["id"]: k["test"] for k in kept if self.of.items() <= k.items()}

    def add(self, id: str, test: str | None) -> None:
        """Note the test that found a mutation; None: it survived."""
        self.tests[id] = test
        if self.file is not None:
            with self.file.open("a") as out:
                out.write(json.dumps({**self.of, "id": id, "test": test}) + "\n")


def clone(commit: str, folder: Path) -> Path:
    """The commit in a folder of its own."""
    root = folder / "checkout"
    git = ["git", "clone", "--quiet", "--no-checkout", "--shared", str(PROJECT), str(root)]
    subprocess.run(git, check=True)
    subprocess.run(["git", "checkout", "--quiet", "--detach", commit], cwd=root, check=True)
    return root


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commit", default="HEAD")
    parser.add_argument("--seconds", type=float, default=300, help="CPU that a round may take")
    parser.add_argument("--rounds", type=int, default=3, choices=(1, 2, 3))
    parser.add_argument("--only", default="", help="ids, or their first digits, by commas")
    parser.add_argument("--results", type=Path, help="a file of lines: what is in it is not tried")
    parser.add_argument("--list", action="store_true", help="show the sample and test nothing")
    asked = parser.parse_args()
    commit = ["git", "rev-parse", "--short", asked.commit]
    name = subprocess.run(commit, cwd=PROJECT, check=True, capture_output=True, text=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.pop("CI", None)
    with tempfile.TemporaryDirectory() as folder:
        root = clone(name.stdout.strip(), Path(folder))
        chosen = sample(list(places(root)), asked.count, asked.seed)
        if asked.only:
            chosen = [m for m in chosen if m.id.startswith(tuple(asked.only.split(",")))]
        if asked.list:
            print(*chosen, sep="\n")
            return
        for library in LIBRARIES:
            importlib.import_module(library)
        bench = Bench(root, asked.seconds, asked.rounds)
        results = Results(asked.results, name.stdout.strip(), asked.rounds)
        found: dict[str, str | None] = {}
        began = time.monotonic()
        for mutation in chosen:
            if mutation.id not in results.tests:
                results.add(mutation.id, bench.found_by(mutation))
            found[str(mutation)] = results.tests[mutation.id]
            print(f"{found[str(mutation)] or 'SURVIVES'}: {mutation}", flush=True)
        shutil.rmtree(root)
    survivors = [mutation for mutation, test in found.items() if test is None]
    undecided = [mutation for mutation, test in found.items() if test == TIME]
    print(
        json.dumps(
            {
                "benchmark": "mutations",
                "commit": name.stdout.strip(),
                "seed": asked.seed,
                "rounds": asked.rounds,
                "mutations": len(found),
                "found": len(found) - len(survivors) - len(undecided),
                "survived": survivors,
                "undecided": undecided,
                "left_out": sorted(bench.unfit),
                "minutes": round((time.monotonic() - began) / 60, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
