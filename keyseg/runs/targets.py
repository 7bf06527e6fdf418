"""The classes and functions that a config names by `_target_`, and whose code that may be.

A run directory may come from somebody else. What its config names is looked up in keyseg, and in
the packages that this user allowed: those that joined keyseg by an entry point, those that a config
composed here names (the command line and the checkout are trusted), and those in the environment
variable KEYSEG_PACKAGES. Anything else is refused before it is imported.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

from keyseg.config import ConfigError, RunConfig
from keyseg.runs import code, packages

PACKAGES_VARIABLE = "KEYSEG_PACKAGES"
"""Environment variable: packages whose classes configs may name, separated by commas."""


def allowed() -> list[str]:
    """Packages whose classes and functions a config may name."""
    named = [name.strip() for name in os.environ.get(PACKAGES_VARIABLE, "").split(",")]
    joined = [package.name for package in packages.joined()]
    return list(dict.fromkeys(name for name in ("keyseg", *joined, *named) if name))


def trust(cfg: RunConfig) -> None:
    """Allow what a config names that was composed here, to this process and those it starts."""
    named = [_package(target) for target in (*code.targets(cfg), *_prepare(cfg))]
    packages = dict.fromkeys([*allowed(), *named])
    os.environ[PACKAGES_VARIABLE] = ",".join(name for name in packages if name and name != "keyseg")


def check(key: str, target: str) -> None:
    """Look whether `target` may be imported, and import nothing. `key`: of the config, for errors.

    Raises:
        ConfigError: it is in no package that is allowed.
    """
    if "." not in target:
        raise ConfigError(f"{key}={target}: must be package.module.name")
    if _package(target) not in allowed():
        raise ConfigError(
            f"{key}={target}: a stored config may name what is in {', '.join(allowed())}. If you "
            f"trust the package '{_package(target)}' and whoever made this run: "
            f"export {PACKAGES_VARIABLE}={_package(target)}"
        )


def find(key: str, target: str) -> Any:
    """What `target` names. `key`: of the config, for errors.

    Raises:
        ConfigError: it is in no package that is allowed, or it is not there.
    """
    check(key, target)
    module, _, name = target.rpartition(".")
    try:
        target_object = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        there = vars(sys.modules[module]) if module in sys.modules else ()
        near = get_close_matches(name, there, n=1)
        hint = f". Did you mean {module}.{near[0]}?" if near else ""
        raise ConfigError(f"{key}={target} cannot be found: {error}{hint}") from error
    if _package(str(getattr(target_object, "__module__", ""))) not in allowed():
        raise ConfigError(f"{key}={target}: is of another package than where it was found")
    return target_object


def find_class(key: str, target: str, kind: type) -> type[Any]:
    """A class of a kind.

    Raises:
        ConfigError: there is none, or it is something else.
    """
    cls = find(key, target)
    if not (isinstance(cls, type) and issubclass(cls, kind)):
        raise ConfigError(
            f"{key}={target}: must be a subclass of {kind.__module__}.{kind.__name__}"
        )
    return cls


def find_function(
    key: str, target: str, parameters: Sequence[str], room: str
) -> Callable[..., Any]:
    """A function that takes these parameters; of keyseg's own, one of this room.

    Raises:
        ConfigError: there is none, or it is something else.
    """
    target_object: Any = find(key, target)
    own = _package(target) == "keyseg" and not str(target_object.__module__).startswith(room)
    if own or isinstance(target_object, type) or not callable(target_object):
        raise ConfigError(f"{key}={target}: must be a function of {room} or of your own package")
    form = inspect.signature(target_object)
    lacking = [name for name in parameters if name not in form.parameters]
    if lacking:
        raise ConfigError(f"{key}={target}: must take {', '.join(parameters)}; it takes {form}")
    function: Callable[..., Any] = target_object
    return function


def _package(target: str) -> str:
    return target.partition(".")[0]


def _prepare(cfg: RunConfig) -> list[str]:
    spec = cfg.data.get("prepare") or {}
    return [str(spec["_target_"])] if "_target_" in spec else []
