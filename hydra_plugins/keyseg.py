"""What keyseg hands to Hydra, which takes plugins from this namespace only.

No `__init__.py` may stand beside this file: the namespace belongs to all plugins.
"""

from copy import copy
from dataclasses import fields, make_dataclass
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from hydra._internal.core_plugins import file_config_source
from hydra._internal.core_plugins.basic_sweeper import BasicSweeperConf
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

from keyseg import report
from keyseg.config import NAMED, PROJECT
from keyseg.runs import packages
from keyseg.runs.drops import JudgedBudget
from keyseg.runs.looks import TakenLook
from keyseg.sweep import group_help, launcher
from keyseg.sweep.design import Design, contrasts_of
from keyseg.sweep.local import launcher as local_launcher
from keyseg.sweep.slurm import launcher as slurm_launcher
from keyseg.sweep.tune import options as tune_options
from keyseg.sweep.tune import sweeper as tune_sweeper


class _Reports:
    """A sweep ends with a report, and asks it what is still open. They meet here: neither room
    imports the other."""

    def build_report(self, sweep_dir: Path, out_dir: Path) -> Path:
        """Write the report of a sweep, and the page of all; its page."""
        page = report.build(sweep_dir, out_dir).html
        report.write_overview(out_dir.parent)
        return page

    def decide(self, sweep_dir: Path) -> TakenLook:
        """Take the next look at a sweep whose seeds come by looks."""
        return report.decide(sweep_dir)

    def judge_budget(self, sweep_dir: Path, steps: int) -> JudgedBudget:
        """Compare the variants of a sweep at a budget."""
        return report.judge_budget(sweep_dir, steps)

    def expected_share(self, design: Design) -> float:
        """Of the cells that may come, how many are expected to, by simulation."""
        assert design.looks is not None
        return report.expected_share(design.looks, contrasts_of(design))


class LocalLauncher(_Reports, local_launcher.LocalLauncher):
    """`hydra/launcher=local`."""


class DebugLauncher(_Reports, local_launcher.DebugLauncher):
    """`hydra/launcher=debug`."""


class SlurmLauncher(_Reports, slurm_launcher.SlurmLauncher):
    """`hydra/launcher=slurm`."""


class AutoLauncher(slurm_launcher.AutoLauncher):
    """`hydra/launcher=auto`."""

    here, cluster = LocalLauncher, SlurmLauncher


class GridSweeper(launcher.GridSweeper):
    """`hydra/sweeper=grid`."""


class OptunaSweeper(tune_sweeper.OptunaSweeper):
    """`hydra/sweeper=optuna`."""


class FileConfigSource(file_config_source.FileConfigSource):
    """Config files, of which an option of a group is called what its file is called.

    So a file that was copied and changed does not run under the old name. Of two classes with one
    scheme and one name Hydra keeps the one that came first.
    """

    def load_config(self, config_path: str) -> ConfigResult:
        """A file, with `name` in it where the group has names."""
        loaded = super().load_config(config_path)
        group, _, option = config_path.rpartition("/")
        if group in NAMED:
            whole = loaded.header.get("package") == "_global_"
            options = OmegaConf.select(loaded.config, group) if whole else loaded.config
            if isinstance(options, DictConfig):
                options["name"] = option.removesuffix(".yaml")
        return loaded


SourcesRegistry.instance().types[FileConfigSource.scheme()] = FileConfigSource


class SweepsSource(file_config_source.FileConfigSource):
    """A root of which only the folder `sweeps` is seen as a place of configs.

    A plain `file://` entry would make groups of all other folders there, in completion and help.
    """

    @staticmethod
    def scheme() -> str:
        """Prefix of the entry in the search path."""
        return "keyseg"

    def is_group(self, config_path: str) -> bool:
        """Whether this is `sweeps` or below (or the root, which holds it)."""
        return _visible(config_path) and super().is_group(config_path)

    def is_config(self, config_path: str) -> bool:
        """Whether this is a file in `sweeps`."""
        return _visible(config_path) and config_path != "" and super().is_config(config_path)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """What is in a visible folder."""
        return super().list(config_path, results_filter) if _visible(config_path) else []


class SweepsSearchPath(SearchPathPlugin):
    """Makes `+sweeps=NAME` find sweeps/NAME.yaml, from any working directory, and group options and
    sweeps of other people's packages as well.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the project's root, and what packages bring."""
        search_path.append(provider="keyseg", path=f"keyseg://{PROJECT}")
        for folder in packages.folders("experiments"):
            search_path.append(provider="package", path=f"file://{folder}")
        for folder in packages.folders("sweeps"):
            search_path.append(provider="package", path=f"keyseg://{folder.parent}")


def _visible(config_path: str) -> bool:
    return config_path == "" or config_path.split("/")[0] == "sweeps"


def _schema(options: type) -> type:
    """The options of a plugin, mappings without a type: `KEY={...}` is null, then what is given."""
    hints = get_type_hints(options)
    free = {name for name, hint in hints.items() if get_origin(hint) is dict}
    return make_dataclass(
        options.__name__,
        [(f.name, Any if f.name in free else hints[f.name], copy(f)) for f in fields(options)],
    )


OmegaConf.register_new_resolver("keyseg.groups", group_help.groups, replace=True)

_store = ConfigStore.instance()
for _name, _options in {
    "local": local_launcher.LocalConfig,
    "slurm": slurm_launcher.SlurmConfig,
    "auto": slurm_launcher.AutoConfig,
    "debug": local_launcher.DebugConfig,
}.items():
    _store.store(_name, _schema(_options), group="hydra/launcher", provider="keyseg")
# "basic" is what Hydra takes where nobody chooses, which leaves the choice to a file in sweeps/:
# an `override hydra/sweeper` in experiments/config.yaml would win over one there.
for _name in ("grid", "basic"):
    _store.store(
        _name,
        BasicSweeperConf(_target_="hydra_plugins.keyseg.GridSweeper"),
        group="hydra/sweeper",
        provider="keyseg",
    )
_store.store("optuna", _schema(tune_options.OptunaConfig), group="hydra/sweeper", provider="keyseg")
