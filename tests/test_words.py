"""How the code reads: what is asked of every file that a test can ask."""

import ast
from pathlib import Path

import pytest

from keyseg.config import PROJECT

FOLDERS = ("keyseg", "hydra_plugins", "benchmarks", "tests")
FILES = [file for folder in FOLDERS for file in sorted((PROJECT / folder).rglob("*.py"))]


def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


@pytest.mark.parametrize("folder", FOLDERS)
def test_nothing_is_unpacked_that_could_be_written_out(folder):
    """`*("a", "b")` steers the formatter, and a reader stops at it."""
    for file in FILES:
        if file.is_relative_to(PROJECT / folder):
            for node in ast.walk(tree(file)):
                if isinstance(node, ast.Starred) and isinstance(node.value, ast.Tuple | ast.List):
                    raise AssertionError(f"{file}:{node.lineno}: {ast.unparse(node)}")


def test_a_class_has_its_name_alone():
    """Within the package: who reads `Cell` need not ask which."""
    places: dict[str, list[str]] = {}
    for file in sorted((PROJECT / "keyseg").rglob("*.py")):
        for node in tree(file).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(str(file.relative_to(PROJECT)))
    shared = {name: files for name, files in places.items() if len(files) > 1}
    assert shared == {}
