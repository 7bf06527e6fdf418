from collections.abc import Callable
from copy import deepcopy
from functools import cache

import pytest
from hydra import compose, initialize_config_dir

from keyseg.config import PROJECT, RunConfig, validate

Compose = Callable[..., RunConfig]


@pytest.fixture(scope="session")
def compose_run() -> Compose:
    """From overrides to a checked config, as `python run.py OVERRIDES` composes it."""

    @cache
    def composed(*overrides: str) -> RunConfig:
        with initialize_config_dir(str(PROJECT / "experiments"), version_base="1.3"):
            return validate(compose("config", list(overrides)))

    return lambda *overrides: deepcopy(composed(*overrides))


@pytest.fixture
def run_config(compose_run: Compose) -> RunConfig:
    """The default run."""
    return compose_run()
