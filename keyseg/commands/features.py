"""`keyseg features DATA`: compute the frozen features of a data set before a sweep."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keyseg.commands.compose import compose_config
from keyseg.config import ConfigError, RunConfig

if TYPE_CHECKING:
    from keyseg.model.features import FrozenFeatures

# Imported late: what only this command needs, so that no other waits for it.


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "features", help="compute what the frozen encoders see, once for all cells"
    )
    parser.add_argument("data", metavar="DATA", help="an option of the group data: refcocog")
    parser.add_argument(
        "overrides", metavar="KEY=VALUE", nargs="*", help="next to DATA: model=llava_1_5_7b"
    )
    parser.add_argument(
        "--split", action="append", help="train, val or test; may be given twice (all)"
    )
    parser.add_argument(
        "--verify", action="store_true", help="read every stored feature; damaged ones are mended"
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from keyseg.data.files import DataError
    from keyseg.model.backbones.weights import check_weights

    cfg = compose_config([f"data={options.data}", *options.overrides])
    images: list[Path] = []
    problems: list[ConfigError | DataError] = []
    try:
        check_weights(cfg)
    except ConfigError as error:
        problems.append(error)
    try:
        images = _images(cfg, options.split)
    except (ConfigError, DataError) as error:
        problems.append(error)
    for problem in problems:  # all that is missing, at once
        print(f"error: {problem}", file=sys.stderr)
    if problems:
        return 2 if any(isinstance(problem, ConfigError) for problem in problems) else 1
    features = _build(cfg)
    if features.store is None:
        reason = "model.init=random" if cfg.model.init == "random" else "runtime.features=false"
        raise ConfigError(f"{reason}: no features are stored")
    todo = images if options.verify else features.missing(images)
    _fill(features, todo)
    store = features.store
    if store.problem:
        print(f"error: features are not stored: {store.problem}", file=sys.stderr)
        return 1
    damaged = f", {store.damaged} of them damaged before" if store.damaged else ""
    gib = store.size() / 2**30
    print(
        f"{len(images)} images: {features.computed} features computed{damaged}; "
        f"{store.folder} holds {gib:.2f} GiB"
    )
    return 0


def _images(cfg: RunConfig, splits: list[str] | None) -> list[Path]:
    from keyseg.data.mix import load, prepare

    prepare(cfg.data)
    chosen = splits or [name for name, entries in cfg.data["splits"].items() if entries]
    images = {e.image: None for split in chosen for s in load(cfg.data, split) for e in s.examples}
    return list(images)


def _build(cfg: RunConfig) -> FrozenFeatures:
    from keyseg.model.backbones.weights import WeightsError
    from keyseg.train.build import build_features
    from keyseg.train.device import pick_device

    try:
        return build_features(cfg, pick_device(cfg.runtime.device))
    except WeightsError as error:
        raise ConfigError(str(error)) from error


def _fill(features: FrozenFeatures, images: list[Path]) -> None:
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        for _ in bar.track(features.fill(images), len(images), description="features"):
            pass
