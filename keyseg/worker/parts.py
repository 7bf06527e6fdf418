"""Can what configs name be made? Asked before anything starts: fusion variant, terms of the loss.

`python -m keyseg.worker.parts` reads configs from stdin and prints what is wrong with one. It is a
process of its own because torch is loaded for it, which whoever launches runs does without; and it
imports from where workers import, so that what they would not find is missed now.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from keyseg.config import PROJECT, ConfigError, RunConfig, resolve_path, validate
from keyseg.runs import packages
from keyseg.runs.environment import worker_environment

WRONG = 2
"""Exit code of the process where a config is wrong, which it says on stdout."""

_CODE = ("keyseg/model/*.py", "keyseg/train/losses.py")
_CHANNELS = 256
"""Of SAM's prompts in all public sizes."""


def check(configs: Iterable[RunConfig], *, remember: bool = False) -> Callable[[], None]:
    """Begin to make the parts of these configs; the function that is returned waits for the end.

    Args:
        configs: checked ones.
        remember: what was found right is noted under paths.data, and not made again as long as
            neither the config nor the code of these parts changes.

    Raises:
        ConfigError: (the function) a part cannot be made; names its key and says why.
    """
    unknown = {key: cfg for cfg in configs if not (key := _note(cfg)).exists()}

    def noted() -> None:
        if remember:
            for file in unknown:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.touch()

    if not unknown:
        return noted
    if "torch" in sys.modules:
        for cfg in unknown.values():
            make(cfg)
        return noted
    process = subprocess.Popen(
        [sys.executable, "-m", "keyseg.worker.parts"],
        env=worker_environment(1),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    content = json.dumps([asdict(cfg) for cfg in unknown.values()])

    def wait() -> None:
        said, trouble = process.communicate(content)
        if process.returncode == WRONG:
            raise ConfigError(said.strip())
        if process.returncode:
            last = (trouble.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
            raise ConfigError(f"the parts of the model cannot be made: {last}")
        noted()

    return wait


def make(cfg: RunConfig) -> None:
    """Make the parts of a config, of the size that they will have, and drop them.

    Raises:
        ConfigError: one cannot be made.
    """
    import torch

    from keyseg.model.variant import build_fusion
    from keyseg.train.losses import weighted_terms

    weighted_terms(cfg.loss)
    with torch.random.fork_rng(devices=[]):  # nobody else's draws are others for it
        build_fusion(cfg, _channels(cfg))


def _channels(cfg: RunConfig) -> int:
    """Of SAM's prompts, as the config's SAM has them; a file that is missing is told elsewhere."""
    file = resolve_path(cfg.model.sam) / "config.json"
    try:
        return int(json.loads(file.read_bytes())["prompt_dim"])
    except (OSError, ValueError, KeyError):
        return _CHANNELS


def _note(cfg: RunConfig) -> Path:
    """The file that says that these parts can be made."""
    asked = [cfg.fusion, cfg.model.tokens.n_keys, _channels(cfg), cfg.loss.terms]
    total = hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode())
    for package in packages.of(cfg):
        total.update(f"{package.name} {package.version}".encode())
        total.update(package.source().encode() if package.carried else b"")
    for pattern in _CODE:
        for file in sorted(PROJECT.glob(pattern)):
            total.update(file.read_bytes())
    return resolve_path(cfg.paths.data) / "parts" / total.hexdigest()[:16]


def main() -> int:
    """See the module."""
    given: list[dict[str, Any]] = json.load(sys.stdin)
    try:
        packages.load()
        for content in given:
            make(validate(content))
    except ConfigError as error:
        print(" ".join(str(error).split()))
        return WRONG
    return 0


if __name__ == "__main__":
    sys.exit(main())
