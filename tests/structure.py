"""How keyseg/ hangs together, read from its imports: `python tests/structure.py [CHECKOUT]`.

A room is what lies directly in keyseg/: a folder or a module. Room A has an arrow to room B if
something in A imports something in B, at whatever time: late imports and those for type checkers
count too. A room stands one floor above the highest room that it has an arrow to. A circle is a set
of modules, or of rooms, each of which leads to all others.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

Graph = Mapping[str, Collection[str]]


@dataclass(frozen=True)
class Import:
    """One import. `late`: inside a function. `typing`: for type checkers only."""

    name: str
    line: int
    late: bool = False
    typing: bool = False


def imports(file: Path) -> tuple[Import, ...]:
    """Everything that a module imports, by its dotted name; `from a import b` is `a.b`."""
    return _imports(file, file.read_text())


@cache
def _imports(file: Path, source: str) -> tuple[Import, ...]:
    def visit(node: ast.AST, late: bool, typing: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(alias.name, child.lineno, late, typing)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{file}: relative import"
                for alias in child.names:
                    yield Import(f"{child.module}.{alias.name}", child.lineno, late, typing)
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            checked = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
            yield from visit(child, late or inside, typing or checked)

    return tuple(visit(ast.parse(source), late=False, typing=False))


def modules(root: Path) -> dict[str, Path]:
    """Dotted names of the package's modules and their files."""
    files = {}
    for file in sorted((root / "keyseg").rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return files


def module_graph(root: Path) -> dict[str, set[str]]:
    """Every module and the modules of the package that it imports."""
    known = modules(root)
    graph: dict[str, set[str]] = {name: set() for name in known}
    for name, file in known.items():
        for imported in imports(file):
            parts = imported.name.split(".")
            while parts and ".".join(parts) not in known:
                parts.pop()  # what is imported from a module is no module
            if parts and parts != ["keyseg"]:
                graph[name].add(".".join(parts))
        graph[name].discard(name)
    return graph


def room(module: str) -> str:
    """`keyseg.sweep.progress` -> `sweep`; "" is the package itself."""
    return ".".join(module.split(".")[1:2])


def room_graph(root: Path) -> dict[str, set[str]]:
    """Every room and the rooms that it has an arrow to."""
    graph: dict[str, set[str]] = {}
    for module, others in module_graph(root).items():
        if room(module):
            graph.setdefault(room(module), set()).update(map(room, others))
    return {name: others - {name, ""} for name, others in graph.items()}


def circles(graph: Graph) -> list[list[str]]:
    """Sets of nodes each of which leads to all others (strongly connected, Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        path.append(node)
        for other in graph.get(node, ()):
            if other not in index:
                visit(other)
            if other in path:
                low[node] = min(low[node], low[other])
        if low[node] == index[node]:
            circle = path[path.index(node) :]
            del path[path.index(node) :]
            if len(circle) > 1:
                found.append(sorted(circle))

    for node in graph:
        if node not in index:
            visit(node)
    return sorted(found)


def floors(graph: Graph) -> dict[str, int]:
    """The floor of each room, from 1; rooms of a circle share theirs."""
    group = {node: tuple(circle) for circle in circles(graph) for node in circle}
    floor: dict[tuple[str, ...], int] = {}

    def visit(node: str) -> int:
        own = group.get(node, (node,))
        if own not in floor:
            below = {other for member in own for other in graph.get(member, ())} - set(own)
            floor[own] = 1 + max(map(visit, below), default=0)
        return floor[own]

    return {node: visit(node) for node in graph}


def main(root: Path) -> None:
    """Print the floors, and the numbers of docs/architecture.md."""
    rooms = room_graph(root)
    floor = floors(rooms)
    for level in sorted(set(floor.values()), reverse=True):
        print(f"{level:3}  {'  '.join(sorted(name for name in rooms if floor[name] == level))}")
    found = [*circles(module_graph(root)), *circles(rooms)]
    print(
        f"{len(rooms)} rooms on {max(floor.values())} floors, "
        f"{sum(map(len, rooms.values()))} arrows, {len(found)} circles"
    )
    for circle in found:
        print("circle:", ", ".join(circle))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1])
