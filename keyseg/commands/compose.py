"""The config that `python run.py OVERRIDES` would run, for commands that need a part of it."""

from __future__ import annotations

from collections.abc import Sequence

from keyseg.config import PROJECT, RunConfig, validate
from keyseg.runs import targets

# Imported late: what only this command needs, so that no other waits for it.


def compose_config(overrides: Sequence[str]) -> RunConfig:
    """Compose and check.

    Raises:
        ConfigError: an override names no group, option or key; says which one is near.
    """
    from hydra import compose, initialize_config_dir

    from keyseg.sweep.overrides import check, whole_mappings

    overrides = whole_mappings(overrides)
    check(overrides)
    with initialize_config_dir(str(PROJECT / "experiments"), version_base="1.3"):
        cfg = validate(compose("config", list(overrides)))
    targets.trust(cfg)
    return cfg
