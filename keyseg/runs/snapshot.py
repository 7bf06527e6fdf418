"""A copy of the code that a job runs, so that an edit after submit changes no queued job.

Tracked files as they are in the checkout, and new files of code that git does not ignore (without
those that look like secrets: private_files.py); beside them other people's packages that the
configs need, since it is the first place to import from. Snapshots are
named by their content: sweeps that run the same code share one, and none is ever written twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from keyseg.config import PROJECT, ConfigError
from keyseg.runs.packages import Package
from keyseg.runs.private_files import holds_a_secret, looks_secret
from keyseg.runs.provenance import CODE, CODE_ENDINGS, SNAPSHOT, git

_LARGEST = 64 * 2**20  # bytes, of one file


def files(root: Path = PROJECT) -> list[str]:
    """Names of the files that are code, relative to the root, sorted; none that look secret."""
    return sorted(name for name in _listed(root) if not _secret(root, name))


def left_out(root: Path = PROJECT) -> list[str]:
    """Names of the files that would be code if they did not look like secrets."""
    return sorted(name for name in _listed(root) if _secret(root, name))


def _secret(root: Path, name: str) -> bool:
    return looks_secret(name) or holds_a_secret(root / name)


def _listed(root: Path) -> list[str]:
    """Files that git knows, and new ones that are code by their ending."""
    known, new = _git_files(root, "--cached"), _git_files(root, "--others", "--exclude-standard")
    # A root that is ignored by the repository around it (a copy in outputs/) lists nothing.
    names = {*known, *(n for n in new if Path(n).suffix in CODE_ENDINGS)} or set(_walk(root))
    return [name for name in names if (root / name).is_file()]


def _git_files(root: Path, *which: str) -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", *which, "--", *CODE], cwd=root, capture_output=True, check=False
    )
    return [os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]


def name_of(root: Path = PROJECT, packages: Sequence[Package] = ()) -> str:
    """12 hex digits over commit, names and contents, those of packages beside it included.

    Raises:
        ConfigError: a file is too large to be code; names it.
    """
    total = hashlib.sha256(str(git(root).commit).encode())
    for name, file in _contents(root, packages):
        content = file.read_bytes()
        if len(content) > _LARGEST:
            raise ConfigError(
                f"{file}: {len(content) / 2**20:.0f} MiB is too large for a snapshot of the "
                f"code (at most {_LARGEST / 2**20:.0f}): move it out of the code or into .gitignore"
            )
        total.update(f"{name}\0{len(content)}\0".encode() + content)
    return total.hexdigest()[:12]


def take(folder: Path, root: Path = PROJECT, packages: Sequence[Package] = ()) -> Path:
    """Copy the code into `folder`/NAME and return that; one that is there already is kept."""
    target = folder / name_of(root, packages)
    if target.exists():
        return target
    temporary = folder / f".{target.name}.{os.getpid()}"
    try:
        for name, file in _contents(root, packages):
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, temporary / name)
        (temporary / SNAPSHOT).write_text(json.dumps(asdict(git(root))))
        try:
            temporary.rename(target)
        except OSError:  # another process was faster
            if not target.exists():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _contents(root: Path, packages: Sequence[Package]) -> Iterator[tuple[str, Path]]:
    """Names in the snapshot, and where each file is now."""
    yield from ((name, root / name) for name in files(root))
    yield from (named for package in packages for named in package.files())


def _walk(root: Path) -> Iterator[str]:
    for top in CODE:
        files = [root / top] if (root / top).is_file() else (root / top).rglob("*")
        for file in files:
            if "__pycache__" not in file.parts and file.is_file():
                yield file.relative_to(root).as_posix()
