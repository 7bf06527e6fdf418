"""The code that a result depends on: which definitions, and a fingerprint of them.

From the work of a cell, and from the classes and functions that its config names, references are
followed through the source, definition by definition; nothing is imported or run. What is left out
cannot change a result: it keeps, shows or compares what was computed. Comments, docstrings, type
hints, log lines and formatting do not count, nor the file that a definition stands in.

Light: every launch and every status asks.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from keyseg.config import RunConfig, flatten
from keyseg.runs import disk, named_terms
from keyseg.runs.run_directory import RunDirectory

WORK = ("keyseg.worker.run.work",)
"""Where the work of a cell begins."""

EVALUATION = (
    "keyseg.worker.evaluation.samples_of",
    "keyseg.train.build.build",
    "keyseg.train.trainer.load_trainable",
)
"""Where the work on other data begins, without the training before it."""

INTERVENTION = ("keyseg.predict.intervention.Reading", "keyseg.predict.states.States")
"""What reads a split with a token's state replaced, and by what."""

LEFT_OUT = (
    "keyseg.commands",
    "keyseg.config",
    "keyseg.predict",
    "keyseg.report",
    "keyseg.runs",
    "keyseg.sweep",
    "keyseg.tracking",
    "keyseg.worker.log",
    "keyseg.worker.system_load",
)
"""Rooms that no result depends on, but for what is asked for by name. What `config` decides is in
the config, which has a hash.
"""

LIBRARIES = ("torch", "transformers", "peft")

CODE_FILE = "code.json"
"""In a run directory: the `parts` of the code that computed it."""


@dataclass(frozen=True)
class Code:
    """The definitions that results depend on. `parts`: "FILE: NAME", or a library -> its hash.

    `targets`: the classes and functions that the config named.
    """

    targets: tuple[str, ...]
    parts: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """16 hex digits; a definition that moves to another file changes nothing."""
        lines = sorted(f"{_name(part)} {value}" for part, value in self.parts.items())
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def targets(cfg: RunConfig) -> tuple[str, ...]:
    """The classes and functions that a config names, by `_target_` or as a term of the loss.

    Without what makes the data: that has a fingerprint. With what replaces a token's state under
    test, where the config asks for that.
    """
    flat = flatten(cfg)
    names = {str(v) for k, v in flat.items() if k.endswith("._target_") and ".prepare." not in k}
    terms = [name for name, spec in cfg.loss.terms.items() if "_target_" not in spec]
    replaced = INTERVENTION if cfg.evaluation.intervention else ()
    return tuple(sorted(names.union(replaced, *map(named_terms.places, terms))))


@cache
def of(named: tuple[str, ...], work: tuple[str, ...] = WORK) -> Code:
    """The code of cells that name these classes and functions (`targets`), as it is now.

    `work`: where it begins.
    """
    ours = ("keyseg", *(target.partition(".")[0] for target in named))
    seen: set[tuple[str, str]] = set()
    todo = [_split(target) for target in (*work, *named)]
    asked = {module for module, _ in todo}
    parts: dict[str, str] = {}
    while todo:
        module_name, name = todo.pop()
        if (module_name, name) in seen:
            continue
        if module_name not in asked and _left_out(module_name, ours):
            continue
        module = _module(module_name)
        seen.add((module_name, name))
        if module is None:
            continue
        for one in module.wanted(name):
            if one.digest:
                parts[f"{module.shown}: {one.name}"] = one.digest
            todo += one.references
    for library in LIBRARIES:
        try:
            # without "+cu128": the machine that submits may have another build
            parts[library] = metadata.version(library).partition("+")[0]
        except metadata.PackageNotFoundError:
            continue
    return Code(named, parts)


def record(run: RunDirectory, cfg: RunConfig) -> str:
    """Write what computes this run from now on into its directory; the fingerprint."""
    code = of(targets(cfg))
    write(run.path, code)
    run.update(code={"fingerprint": code.fingerprint, "targets": code.targets})
    return code.fingerprint


def write(folder: Path, code: Code) -> None:
    """List the parts of the code that computed what lies in a folder."""
    content = json.dumps(dict(sorted(code.parts.items())), indent=0)
    disk.replace(folder / CODE_FILE, content.encode())


def changes(info: Mapping[str, Any], path: Path) -> list[str]:
    """What of today's code is other than that of a run: definitions as "FILE: NAME".

    Args:
        info: the run's run.json.
        path: its directory.

    Returns:
        Nothing for a run of today's code, and for one from before this was recorded.
    """
    known = info.get("code")
    if not known:
        return []
    today = of(tuple(known["targets"]))
    if today.fingerprint == known["fingerprint"]:
        return []
    return differences(parts_of(path), today.parts) or ["definitions that are not recorded"]


def parts_of(path: Path) -> dict[str, str]:
    """The parts that a run directory lists; {} where it lists none that can be read."""
    try:
        content = json.loads((path / CODE_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Parts with another content, and those that only one side has; a move is none."""
    old = {(_name(part), value) for part, value in before.items()}
    new = {(_name(part), value) for part, value in after.items()}
    other = [p for p, value in after.items() if (_name(p), value) not in old]
    gone = [p for p, value in before.items() if (_name(p), value) not in new]
    names = {_name(part) for part in other}
    return sorted([*other, *(part for part in gone if _name(part) not in names)])


def listed(changed: Iterable[str], most: int = 3) -> str:
    """The first few changes in one line."""
    every = list(changed)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more


# -- the source ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Definition:
    """A name of a module. references: (module, name) of what it uses; name "" is all of it.

    digest: "" of a name that only stands for one elsewhere. always: it runs on import.
    """

    name: str
    digest: str
    references: list[tuple[str, str]]
    always: bool = False


@dataclass
class _Module:
    """What a module defines. `imports`: local name -> (module, name or "" for the module)."""

    shown: str
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)
    definitions: dict[str, _Definition] = field(default_factory=dict)

    def wanted(self, name: str) -> Iterator[_Definition]:
        """A definition and what runs whenever the module is imported; "": all definitions."""
        if name in self.imports and name not in self.definitions:  # handed on from elsewhere
            yield _Definition(name, "", [self.imports[name]])
        for one in self.definitions.values():
            if name in ("", one.name) or one.always:
                yield one


@cache
def _module(name: str) -> _Module | None:
    """A module's source, read; None where there is none."""
    path = _file(name)
    if path is None:
        return None
    tree = ast.parse(path.read_bytes())
    top = name.partition(".")[0]
    depth = name.count(".") + (path.name == "__init__.py")
    module = _Module("/".join([*path.parts[-depth - 1 : -1], path.name] if depth else [path.name]))
    module.imports = dict(_imports(tree, name, path))
    local = {n.name for n in tree.body if isinstance(n, _NAMED)}
    local |= {t for n in tree.body for t in _assigned(n)}
    for number, node in enumerate(tree.body):
        if isinstance(node, ast.Import | ast.ImportFrom) or _is_docstring(node) or _typing(node):
            continue
        names = [node.name] if isinstance(node, _NAMED) else _assigned(node)
        scope = module.imports | dict(_imports(node, name, path))
        references = list(_references(node, name, local, scope))
        # what a decorator of ours registers is used without being named
        registers = isinstance(node, _NAMED) and any(
            ref[0].partition(".")[0] == top
            for decorator in node.decorator_list
            for ref in _references(decorator, name, local, scope)
        )
        for one in names or [f"line {number}"]:
            digest = _digest(node)
            if not names:
                one = f"on import ({digest})"
            module.definitions[one] = _Definition(one, digest, references, registers or not names)
    return module


_NAMED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _assigned(node: ast.stmt) -> list[str]:
    """Names that a statement of a module binds."""
    if isinstance(node, ast.AnnAssign):
        return [node.target.id] if isinstance(node.target, ast.Name) else []
    if not isinstance(node, ast.Assign):
        return []
    nodes = [n for target in node.targets for n in ast.walk(target)]
    if any(isinstance(n, ast.Subscript | ast.Attribute) for n in nodes):
        return []  # an entry in something else: it happens on import
    return [n.id for n in nodes if isinstance(n, ast.Name)]


def _typing(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _imports(tree: ast.AST, name: str, path: Path) -> Iterator[tuple[str, tuple[str, str]]]:
    """Local names that imports in a tree bind, without those inside definitions of a module."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(tree, ast.Module) and (isinstance(node, _NAMED) or _typing(node)):
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.asname or alias.name.partition(".")[0]
                yield bound, (alias.name, "")
        elif isinstance(node, ast.ImportFrom):
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            above = package.split(".")[: len(package.split(".")) - max(0, node.level - 1)]
            base = [*above, node.module] if node.level and node.module else above
            source = ".".join(base) if node.level else str(node.module)
            for alias in node.names:
                whole = f"{source}.{alias.name}"
                target = (whole, "") if _ours(whole) and _file(whole) else (source, alias.name)
                yield alias.asname or alias.name, target
        else:
            yield from _imports(node, name, path)


def _ours(name: str) -> bool:
    """Whether a module may be one whose source is followed: a library's is never looked for."""
    top = name.partition(".")[0]
    return top == "keyseg" or not _is_library(top)


@cache
def _is_library(top: str) -> bool:
    spec = None if top in sys.stdlib_module_names else _spec(top)
    return spec is None or "site-packages" in str(spec.origin)


def _references(
    node: ast.AST, module: str, local: set[str], imports: Mapping[str, tuple[str, str]]
) -> Iterator[tuple[str, str]]:
    """(module, name) of all that a tree names; module and "" where a module is used as a whole."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        target = imports.get(node.value.id)
        if target is not None and target[1] == "":
            yield target[0], node.attr
            return
    if isinstance(node, ast.Name):
        if node.id in imports:
            yield imports[node.id]
        elif node.id in local:
            yield module, node.id
    for child in ast.iter_child_nodes(node):
        yield from _references(child, module, local, imports)


def _digest(node: ast.AST) -> str:
    return hashlib.sha256(_plain(node).encode()).hexdigest()[:12]


_LOGGERS = ("log", "logger", "logging")


def _plain(node: Any) -> str:
    """Source as text that says what it does: the same for any Python version and formatting."""
    if isinstance(node, list):
        return "[" + ",".join(_plain(one) for one in node if not _silent(one)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    skipped = {"type_comment", "kind", "type_params", "ctx"}
    if isinstance(node, ast.arg):
        skipped.add("annotation")
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        skipped.add("returns")
    said = [
        f"{name}={_plain(value)}"
        for name, value in ast.iter_fields(node)
        if name not in skipped and value not in (None, [])
    ]
    constant = type(node).__name__ + (repr(node.value) if isinstance(node, ast.Constant) else "")
    return f"{constant}({' '.join(said)})"


def _silent(node: Any) -> bool:
    """Statements that compute nothing: docstrings, imports (followed by themselves), log lines."""
    if isinstance(node, ast.Import | ast.ImportFrom) or _is_docstring(node):
        return True
    call = node.value if isinstance(node, ast.Expr) else None
    function = call.func if isinstance(call, ast.Call) else None
    on = function.value if isinstance(function, ast.Attribute) else None
    return isinstance(on, ast.Name) and on.id.lower().strip("_") in _LOGGERS


# -- files -----------------------------------------------------------------------------------------


@cache
def _spec(name: str) -> ModuleSpec | None:
    """Where a module lies, without importing the packages around it."""
    parent, _, _ = name.rpartition(".")
    try:
        if not parent:
            return importlib.util.find_spec(name)
        above = _spec(parent)
        places = above.submodule_search_locations if above else None
        return PathFinder.find_spec(name, list(places)) if places else None
    except (ImportError, ValueError, AttributeError):
        return None


@cache
def _file(name: str) -> Path | None:
    spec = _spec(name)
    origin = spec.origin if spec else None
    return Path(origin) if origin and origin.endswith(".py") else None


def _left_out(module: str, ours: tuple[str, ...]) -> bool:
    if module.partition(".")[0] not in ours:
        return True
    return any(module == room or module.startswith(f"{room}.") for room in LEFT_OUT)


def _split(target: str) -> tuple[str, str]:
    module, _, name = target.rpartition(".")
    return module, name


def _name(part: str) -> str:
    """`keyseg/model/fusion.py: Full` -> `Full`."""
    return part.rpartition(": ")[2]
