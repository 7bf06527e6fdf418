"""Misspelt overrides end in one line with the nearest name, before anything is built."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from keyseg.config import NAMED, PROJECT, ConfigError, RunConfig
from keyseg.data.files import DataError
from keyseg.runs import packages
from keyseg.runs.disk import DiskFullError, read_only
from keyseg.runs.private_files import without_passwords

if TYPE_CHECKING:
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

EXIT_USAGE = 2
"""Exit code for a command line or a config that is wrong."""

CONFIGS = PROJECT / "experiments"

_OPEN = ("fusion", "data", "loss.terms", "ablation", "hydra")
"""Groups whose keys are free: they are the arguments of whatever `_target_` names."""

SEARCHPATH = "hydra.searchpath"
"""Hydra's key for more places of configs: [file:///folder, pkg://package.folder]."""


FLAGS = {"--dry": "dry=true", "--detach": "detach=true"}
"""Our own flags, which Hydra does not know, as the overrides that they stand for."""


_WHOLE = re.compile(r"(hydra\.(sweeper|launcher)\.\w+|ablation(\.\w+)?|model\.sizes)=\s*\{")
"""Overrides of mappings whose keys are the user's to give."""

_OF_ABLATION = re.compile(r"ablation(\.\w+)+=")
"""Overrides of a single key of the block that a sweep's file fills."""


def plain_flags(arguments: Sequence[str]) -> list[str]:
    """The command line with our own flags written as overrides, and these at its end.

    Hydra takes overrides in one piece only: an option between two of them is refused.
    """
    from hydra._internal.utils import get_args_parser

    options = [FLAGS.get(argument, argument) for argument in arguments]
    overrides: list[str] = get_args_parser().parse_intermixed_args(options).overrides
    for override in overrides:
        options.remove(override)
    return options + overrides


def whole_mappings(arguments: Sequence[str]) -> list[str]:
    """The command line such that `KEY={...}` is all of a mapping with free keys.

    Hydra would merge it into what is there, and refuse keys that are not; `+KEY={...}` still adds.
    Of `ablation` no key need be there: what it knows is checked later.
    """
    problems: list[str] = []
    for argument in arguments:
        if _WHOLE.match(argument):
            key = argument.partition("=")[0]
            add = "++" if key.startswith("ablation.") else ""
            problems += [f"{add}{key}=null", f"++{argument}"]
        elif _OF_ABLATION.match(argument):
            problems.append(f"++{argument}")
        else:
            problems.append(argument)
    return problems


@contextmanager
def one_line_errors(arguments: Sequence[str] = (), configs: Path = CONFIGS) -> Iterator[None]:
    """Check the overrides among `arguments`; end with one line for a wrong config, a full disk,
    or a folder that is somebody else's.

    Everything else passes through: a traceback is for our own mistakes, not for the user's.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        overrides = task_overrides(arguments)
        if overrides:
            check(overrides, configs, _config_dir(arguments))
        if overrides or not arguments:  # else it asks for help
            packages.load()
        yield
    except (ConfigError, DataError) as error:
        fail(str(error))
    except DiskFullError as error:
        fail(str(error), code=1)  # nothing is wrong with the command line
    except OSError as error:
        if not read_only(error) or error.filename is None:
            raise
        fail(
            f"{error.filename}: {error.strerror}. Runs of somebody else can be looked at (`keyseg "
            "status`, `keyseg report --out`); paths.outputs, paths.data and paths.reports put your "
            "own elsewhere",
            code=1,
        )
    except (HydraException, OmegaConfBaseException) as error:
        causes = list(_causes(error))
        for cause in causes:  # a plugin that refuses its options says it best itself
            if isinstance(cause, (ConfigError, DataError)):
                fail(str(cause))
        parts = [_first(str(error)).rstrip(":")]
        if causes and _first(str(causes[-1])) not in str(error).splitlines()[0]:
            parts.append(_first(str(causes[-1])) or type(causes[-1]).__name__)
        fail(": ".join(parts))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What an error was raised from, nearest first."""
    while error.__cause__ is not None:
        error = error.__cause__
        yield error


def fail(message: str, code: int = EXIT_USAGE) -> NoReturn:
    """End the program with one line on stderr."""
    print(f"error: {without_passwords(message)}", file=sys.stderr)
    raise SystemExit(code)


def task_overrides(arguments: Sequence[str]) -> list[str]:
    """The overrides on a command line; [] where it asks for help or for completion."""
    from hydra._internal.utils import get_args_parser

    asks = (
        "-h",
        "--help",
        "--hydra-help",
        "--version",
        "-sc",
        "--shell-completion",
        "--shell_completion",
    )
    if not arguments or any(argument in asks for argument in arguments):
        return []
    return list(get_args_parser().parse_args(list(arguments)).overrides)


def _config_dir(arguments: Sequence[str]) -> str | None:
    """Hydra's `--config-dir`: one more folder of groups."""
    from hydra._internal.utils import get_args_parser

    folder: str | None = get_args_parser().parse_args(list(arguments)).config_dir
    return folder


def check(overrides: Sequence[str], configs: Path = CONFIGS, config_dir: str | None = None) -> None:
    """Check that every override names a group and option, or a key, that exists.

    Args:
        overrides: as Hydra takes them.
        configs: the folder with config.yaml.
        config_dir: one more folder of groups (`--config-dir`).

    Raises:
        ConfigError: it does not; the message has the nearest name and the valid ones.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except OverrideParseException as error:
        raise ConfigError(
            f"{error.override}: cannot be read as an override; write KEY=VALUE, and a value with "
            f"""signs like > or ; in quotes of its own: "KEY='VALUE'" """
            f"({_first(str(error.__cause__ or error))})"
        ) from error
    with initialize_config_dir(str(configs.absolute()), version_base="1.3"):
        loader: Any = GlobalHydra.instance().config_loader()
        _search(loader, parsed, config_dir)
        groups = _groups(loader)
        chosen: list[str] = []
        for override in parsed:
            key = override.key_or_group
            added = override.is_add() or override.is_force_add()
            if key == "sweeps" and not (key in groups and added):
                raise _unknown_sweep(override, _options(loader, key))
            if key.removesuffix(".name") in NAMED and key.endswith(".name"):
                raise ConfigError(
                    f"{override.input_line}: an option is called what its file is called; copy "
                    f"the file to give it another name"
                )
            if key in groups:
                chosen += _check_options(override, _options(loader, key))
        config = compose("config", chosen, return_hydra_config=True)
    keys = _keys(config)
    for override in parsed:
        key = override.key_or_group
        added = override.is_add() or override.is_force_add()
        if key in groups or key in keys or _in_list(key, config):
            continue
        if added and _may_be_added(key):
            continue
        if _may_be_added(key) and _is_empty(key.rpartition(".")[0], config):
            text = f"{override.input_line}: a new key is added with +{override.input_line}"
            raise ConfigError(text)
        raise _unknown(override, key, groups, keys)


def _check_options(override: Override, options: list[str]) -> list[str]:
    """Check the values given for a group; an override that chooses the first of them."""
    values = _values(override)
    for value in values:
        if value is None or isinstance(value, list | dict):
            continue
        if str(value) not in options:
            hint = _did_you_mean(str(value), options)
            raise ConfigError(
                f"{override.key_or_group}={value}: no such option.{hint} "
                f"{override.key_or_group}: {', '.join(options)}"
            )
    if override.is_delete() or not values or not isinstance(values[0], str):
        return []
    return [f"{override.get_key_element()}={values[0]}"]


def _values(override: Override) -> list[Any]:
    """The values of an override: one, or those of its sweep; [] for a glob, which always fits."""
    from hydra.core.override_parser.types import Glob, QuotedString

    value: Any
    if override.is_choice_sweep():
        value = override.value()
        values = value.list if hasattr(value, "list") else []
    elif override.is_sweep_override():
        values = [] if not override.is_discrete_sweep() else _glob_safe(override)
    else:
        values = [override.value()]
    return [v.text if isinstance(v, QuotedString) else v for v in values if not isinstance(v, Glob)]


def _glob_safe(override: Override) -> list[Any]:
    from hydra.core.override_parser.types import Glob

    return [] if isinstance(override.value(), Glob) else list(override.sweep_iterator())


def _unknown(override: Override, key: str, groups: list[str], keys: list[str]) -> ConfigError:
    prefix = key.rpartition(".")[0]
    while prefix and prefix not in keys:
        prefix = prefix.rpartition(".")[0]
    inside = sorted({_head(k, prefix) for k in keys if k.startswith(f"{prefix}.")})
    names = [k for k in keys if "." not in k and k != "hydra"]
    top = list(dict.fromkeys([g for g in groups if not g.startswith("hydra")] + names))
    hint = _did_you_mean(key, [*groups, *keys])
    if prefix and not inside:
        listed = f"{prefix} is a value, not a group"
    else:
        listed = f"{prefix} has: {', '.join(inside)}" if prefix else f"There are: {', '.join(top)}"
    return ConfigError(f"{override.input_line}: no such key '{key}'.{hint} {listed}")


def _search(loader: Any, parsed: Sequence[Override], config_dir: str | None) -> None:
    """Let the loader search where the command line says, as Hydra itself will.

    Raises:
        ConfigError: there is no such place.
    """
    places = [("--config-dir", f"file://{Path(config_dir).absolute()}")] if config_dir else []
    given = [o.value() for o in parsed if o.key_or_group == SEARCHPATH]
    for value in given[:1]:
        if not isinstance(value, list):
            raise ConfigError(f"{SEARCHPATH}={value}: give a list, like [file:///a/folder]")
        places += [(SEARCHPATH, str(place)) for place in map(_text, value)]
    if not places:
        return
    path = loader.get_search_path()
    schema = path.get_path().pop(-1)  # stays the last one
    for provider, place in places:
        path.append(provider, place)
    path.get_path().append(schema)
    loader.repository.initialize_sources(path)
    for source in loader.get_sources():
        if not source.available():
            raise ConfigError(f"{source.provider}: there is no folder {source.path}")


def _text(value: Any) -> Any:
    from hydra.core.override_parser.types import QuotedString

    return value.text if isinstance(value, QuotedString) else value


def _unknown_sweep(override: Override, known: Sequence[str]) -> ConfigError:
    value = override.get_value_element_as_str()
    files = ", ".join(known)
    listed = f"sweeps: {files}" if files else "there is no file in sweeps/ yet"
    return ConfigError(f"{override.input_line}: write +sweeps={value or 'NAME'}; {listed}")


def _did_you_mean(name: str, candidates: Sequence[str]) -> str:
    near = get_close_matches(name, candidates, n=1, cutoff=0.5)
    return f" Did you mean '{near[0]}'?" if near else ""


def _head(key: str, prefix: str) -> str:
    return key.removeprefix(f"{prefix}.").split(".")[0]


def _may_be_added(key: str) -> bool:
    """Whether `+key=...` fits the schema: it is a key of it, or below one of its open groups."""
    from omegaconf import OmegaConf

    schema = OmegaConf.structured(RunConfig)
    return any(key == name or key.startswith(f"{name}.") for name in _OPEN) or key in _keys(schema)


def _in_list(key: str, config: DictConfig) -> bool:
    """Whether this is an element of a list, like `optim.betas.0`."""
    from omegaconf import OmegaConf

    return OmegaConf.is_list(OmegaConf.select(config, key.rpartition(".")[0]))


def _is_empty(key: str, config: DictConfig) -> bool:
    """Whether this is a mapping whose keys are the user's to give, like pruner_args."""
    from omegaconf import OmegaConf

    node = OmegaConf.select(config, key) if key else None
    return OmegaConf.is_dict(node) and not node


def _groups(loader: ConfigLoaderImpl, parent: str = "") -> list[str]:
    from hydra.core.object_type import ObjectType

    names = []
    for name in loader.list_groups(parent):
        group = f"{parent}/{name}" if parent else name
        if loader.get_group_options(group, ObjectType.CONFIG):
            names.append(group)
        if loader.get_group_options(group, ObjectType.GROUP):
            names += _groups(loader, group)
    return names


def _options(loader: ConfigLoaderImpl, group: str) -> list[str]:
    return sorted(loader.get_group_options(group))


def _keys(config: DictConfig, prefix: str = "") -> list[str]:
    """All dotted names of a config, inner nodes included."""
    from omegaconf import DictConfig as Node

    names = []
    for key in map(str, config):
        name = f"{prefix}{key}"
        names.append(name)
        child = config._get_node(key)
        if isinstance(child, Node) and not (
            child._is_none() or child._is_missing() or child._is_interpolation()
        ):
            names += _keys(child, f"{name}.")
    return names


def _first(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else text
