"""Where other people's packages define a term of the loss that a config names without a path.

Found in the source of the packages that joined; nothing is imported.

Light: every launch and every status asks.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import PurePosixPath

from keyseg.runs import packages

_DECORATOR = ("keyseg.train.losses", "term")


@cache
def places(name: str) -> tuple[str, ...]:
    """`package.module.function` of each function that is the term `name`, sorted.

    A term of keyseg itself has no place here: its code counts in every cell.
    """
    every = (
        f"{_dotted(file)}.{function}"
        for package in packages.joined()
        for file, path in package.files()
        if file.endswith(".py")
        for function in _terms(path.read_bytes(), name)
    )
    return tuple(sorted(every))


def _dotted(file: str) -> str:
    """`mine/losses.py` -> `mine.losses`."""
    parts = PurePosixPath(file).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _terms(source: bytes, name: str) -> Iterator[str]:
    """Functions of a module under `@term(...)` that go by this name."""
    if _DECORATOR[1].encode() not in source:
        return
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a package may keep files that this Python does not read
        return
    known = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module == _DECORATOR[0]
        for alias in node.names
        if alias.name == _DECORATOR[1]
    }
    for function in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
        calls = (call for call in function.decorator_list if isinstance(call, ast.Call))
        terms = [call for call in calls if _is_term(call.func, known)]
        if any(name == (_given(call) or function.name) for call in terms):
            yield function.name


def _is_term(function: ast.expr, known: set[str]) -> bool:
    """`@term(...)`, under another name too, and `@losses.term(...)`."""
    if isinstance(function, ast.Attribute):
        return function.attr == _DECORATOR[1]
    return isinstance(function, ast.Name) and function.id in known


def _given(call: ast.Call) -> str | None:
    """The name that a term is given where it is not the function's: `term(over, name)`."""
    named = [keyword.value for keyword in call.keywords if keyword.arg == "name"]
    for value in (*call.args[1:2], *named):
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            return value.value
    return None
