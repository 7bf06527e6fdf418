"""The Hydra sweeper `hydra/sweeper=optuna`: what Hydra hands over, read and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from keyseg.sweep import finish
from keyseg.sweep.launcher import EXIT_FAILED, EXIT_INTERRUPTED, command, sigterm_is_ctrl_c
from keyseg.sweep.overrides import fail, one_line_errors
from keyseg.sweep.tune.control import GivenUp
from keyseg.sweep.tune.options import OptunaConfig, options
from keyseg.sweep.tune.tuning import Tuning


class OptunaSweeper(Sweeper):
    """Cells chosen by Optuna, one after the other, as many at a time as the launcher takes."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what Hydra hands over, and make the launcher."""
        self.hydra_context = hydra_context
        self.config = config
        self.launcher: Any = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Spend the budget, run default and best, report; ends the program with 1 on failure."""
        with one_line_errors(), sigterm_is_ctrl_c():
            console = Console()
            assert self.config is not None
            overrides = self.read_overrides(arguments)
            tuning = Tuning(self.launcher, self.config, self.read_options(), overrides, console)
            try:
                return tuning.run()
            except KeyboardInterrupt:
                text = self.launcher.stopped.format(sweep=tuning.name, command=command())
                finish.print_line(console, text)
                raise SystemExit(EXIT_INTERRUPTED) from None
            except GivenUp as error:
                fail(f"{error}; mend it and give the same command again", EXIT_FAILED)

    def read_options(self) -> OptunaConfig:
        """The sweeper's part of the config, checked."""
        names = {f.name for f in fields(OptunaConfig)}
        plain = {
            k: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v
            for k, v in self.values.items()
            if k in names
        }
        return options(plain)

    def read_overrides(self, arguments: Sequence[str]) -> list[Override]:
        """Those of `hydra.sweeper.params`, then those of the command line."""
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        given = [f"{k}={v}" for k, v in (self.values.get("params") or {}).items()]
        return parser.parse_overrides([*given, *arguments])
