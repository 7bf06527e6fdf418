"""Other people's packages: fusion variants, terms of the loss, measures, readers and sweep files
that work without an edit here.

A package joins by an entry point of the group `keyseg`, which names a module of it:

    [project.entry-points.keyseg]
    mine = "mine"

That module is imported before anything starts, so that what it registers is there; the folders
`experiments/` and `sweeps/` beside it are searched like those of the checkout. Without an entry
point a `_target_` can name whatever can be imported.

Light: every command line imports this.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from keyseg.config import ConfigError, RunConfig, flatten
from keyseg.runs.private_files import holds_a_secret, looks_secret

GROUP = "keyseg"
"""Of the entry points."""

_NEEDED_ANYWAY = ("keyseg", "hydra_plugins")


@dataclass(frozen=True)
class Package:
    """A top-level package, or a module, with its code. `place`: its folder, or its one file.

    `joined`: it has an entry point; the others are named by a `_target_`.
    """

    name: str
    version: str | None
    place: Path
    joined: bool

    @property
    def installed(self) -> bool:
        """Whether it lies among the libraries of this Python."""
        return any(part in ("site-packages", "dist-packages") for part in self.place.parts)

    @property
    def carried(self) -> bool:
        """Whether its files go where the code goes: a library that is merely named stays."""
        return self.joined or not self.installed

    def files(self) -> list[tuple[str, Path]]:
        """Its files, by their names from the folder that it is imported from, sorted.

        Without those that are hidden, are Python's own (.pyc), or look like secrets.
        """
        if self.place.is_file():
            return [(self.place.name, self.place)]
        every = ((f.relative_to(self.place.parent), f) for f in self.place.rglob("*"))
        return sorted((name.as_posix(), file) for name, file in every if _kept(name, file))

    def copy(self, folder: Path) -> Path:
        """Copy it into a folder to import from; where it lies there."""
        for name, file in self.files():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, folder / name)
        return folder / self.place.name

    def source(self) -> str:
        """12 hex digits over the names and contents of its files."""
        total = hashlib.sha256()
        for name, file in self.files():
            content = file.read_bytes()
            total.update(f"{name}\0{len(content)}\0".encode() + content)
        return total.hexdigest()[:12]


def load() -> None:
    """Import what packages name as their entry points.

    Raises:
        ConfigError: an entry point cannot be imported; names the package and what is wrong.
    """
    for point in _entry_points():
        where = f"package {_owner(point)} (entry point {point.name} = {point.value})"
        try:
            point.load()
        except ConfigError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise ConfigError(f"{where} cannot be imported: {reason}") from error


def joined() -> list[Package]:
    """Packages with an entry point."""
    named = {point.value.partition(":")[0].partition(".")[0]: point for point in _entry_points()}
    return [package for name in sorted(named) if (package := _package(name, joined=True))]


def of(cfg: RunConfig) -> list[Package]:
    """The packages that a run depends on: those that joined, and those that its config names."""
    own = joined()
    known = {package.name for package in own} | set(_NEEDED_ANYWAY)
    flat = flatten(cfg)
    tops = {str(v).partition(".")[0] for k, v in flat.items() if k.endswith("._target_")}
    named = [_package(name, joined=False) for name in sorted(tops - known)]
    return [*own, *(package for package in named if package)]


def carried(configs: Iterable[RunConfig]) -> list[Package]:
    """Those that runs depend on and whose files go where the code goes, each once."""
    by_name = {package.name: package for cfg in configs for package in of(cfg)}
    return [by_name[name] for name in sorted(by_name) if by_name[name].carried]


def described(cfg: RunConfig) -> dict[str, dict[str, Any]]:
    """`of` as it stands in run.json: version, and the hash of the source where that is carried."""
    return {
        package.name: {
            "version": package.version,
            "source": package.source() if package.carried else None,
        }
        for package in of(cfg)
    }


def folders(name: str) -> list[Path]:
    """The folders of that name (experiments, sweeps) in packages that joined."""
    places = [package.place / name for package in joined() if package.place.is_dir()]
    return [place for place in places if place.is_dir()]


@cache
def _entry_points() -> tuple[metadata.EntryPoint, ...]:
    points = metadata.entry_points(group=GROUP)
    return tuple(sorted(points, key=lambda point: (point.value, point.name)))


def _owner(point: metadata.EntryPoint) -> str:
    dist = point.dist
    return f"{dist.name} {dist.version}" if dist else point.module


def _package(name: str, *, joined: bool) -> Package | None:
    """None where there is no source: what is built into Python."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None or name in sys.stdlib_module_names:
        return None
    if spec.submodule_search_locations:
        place = Path(next(iter(spec.submodule_search_locations)))
    elif spec.origin and Path(spec.origin).is_file():
        place = Path(spec.origin)
    else:
        return None
    return Package(name, _version(name), place.resolve(), joined)


def _version(name: str) -> str | None:
    """Of the distribution that a top-level package comes from."""
    owners = {
        d.name: d.version
        for point in _entry_points()
        if (d := point.dist) and point.value.partition(":")[0].partition(".")[0] == name
    }
    if owners:
        return next(iter(owners.values()))
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        names = metadata.packages_distributions().get(name, [])
        return metadata.version(names[0]) if names else None


def _kept(name: Path, file: Path) -> bool:
    hidden = any(part.startswith(".") or part == "__pycache__" for part in name.parts)
    if hidden or name.suffix == ".pyc" or not file.is_file():
        return False
    return not looks_secret(name.as_posix()) and not holds_a_secret(file)
