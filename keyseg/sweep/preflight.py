"""What is checked before a job starts: models can be built, weights are there, data can be read.

Loads nothing of numpy before it is asked for: every command line imports this.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from keyseg.config import ALL, PROJECT, ConfigError, RunConfig, resolve_path
from keyseg.model.backbones.weights import check_weights
from keyseg.sweep import buildable

if TYPE_CHECKING:
    from keyseg.data.mix import Source


def check(configs: Sequence[RunConfig]) -> None:
    """Make the data if the config says how, read every split once, look for the weights.

    Raises:
        ConfigError: something cannot be built, or a weights file is missing; the message names the
            key to set.
        DataError: what a reader finds wrong.
    """
    from keyseg.data import identity, mix

    buildable.check(configs)
    for cfg in _distinct(configs, lambda cfg: vars(cfg.model)):
        check_weights(cfg)
    for line in untuned(configs):
        print(line, file=sys.stderr)
    for cfg in _distinct(configs, lambda cfg: cfg.data):
        mix.check_readers(cfg.data)
        mix.prepare(cfg.data)
        splits = mix.load_splits(cfg.data)
        same = [other for other in configs if other.data == cfg.data]
        check_enough(same, splits)
        for line in unread(same, splits[0]):
            print(line, file=sys.stderr)
        fingerprint = mix.fingerprint([source for split in splits for source in split])
        identity.remember(cfg.data, resolve_path(cfg.paths.data), fingerprint)


def _distinct(configs: Sequence[RunConfig], part: Callable[[RunConfig], Any]) -> list[RunConfig]:
    """One config for each value of a part of them."""
    return list({json.dumps(part(c), sort_keys=True, default=vars): c for c in configs}.values())


def check_enough(configs: Sequence[RunConfig], splits: Sequence[Sequence[Source]]) -> None:
    """Whether there is as much data, and of such a kind, as configs that share it ask for.

    Raises:
        DataError: fewer images than `data.train_images`, or no other image's KEY for a control.
        ConfigError: no keywords for a control that is given them.
    """
    from keyseg.data.derangement import check_keywords, derangement
    from keyseg.data.fraction import fewer

    fewer(splits[0], configs[0].data.get("train_images", ALL), configs[0].seed)
    for cfg in _distinct(configs, lambda cfg: cfg.fusion):
        given = buildable.check_fusion(cfg)
        for split in splits:
            examples = [example for source in split for example in source.examples]
            if given == "name":
                check_keywords(f"fusion={cfg.fusion['name']}", examples)
            elif given == "other":
                derangement(examples)


_UNREAD, _LOOKED_AT = 0.1, 2000
"""Share of queries with unknown words from which it is said; so many queries are looked at."""


def unread(configs: Sequence[RunConfig], train: Sequence[Source]) -> list[str]:
    """A line for each base whose tokenizer does not know the words of the queries."""
    queries = [e.query for source in train for e in source.examples]
    queries = queries[:: max(1, len(queries) // _LOOKED_AT)]
    lines = []
    for cfg in _distinct(configs, lambda cfg: cfg.model.language_weights):
        share, words = buildable.unknown_words(cfg, queries)
        if share >= _UNREAD:
            lines.append(
                f"note: {share:.0%} of the queries of data={cfg.data.get('name')} hold words that "
                f"model={cfg.model.name} does not know ({', '.join(words)}): it reads them all as "
                "one. Take a model that knows them"
            )
    return lines


_RATES_FOR = {"bruegel": "bruegel", "adamw": "tiny"}
"""Options of `optim` whose learning rates were chosen for a small model: option -> model."""

_RATES = ("lr", "lr_fusion", "lr_decoder")


def untuned(configs: Sequence[RunConfig]) -> list[str]:
    """A line for each model that would train at learning rates that were chosen for another."""
    lines = []
    for option, model in _RATES_FOR.items():
        rates: Any = OmegaConf.load(PROJECT / "experiments" / "optim" / f"{option}.yaml")
        for cfg in configs:
            own, name = vars(cfg.optim), cfg.model.name
            if name != model and all(own[rate] == rates[rate] for rate in _RATES):
                better = next((o for o, m in _RATES_FOR.items() if m == name), "released")
                lines.append(
                    f"note: model={name} trains at the learning rates of optim={option}, chosen "
                    f"for model={model}; optim={better} has others"
                )
    return list(dict.fromkeys(lines))


def check_devices(configs: Sequence[RunConfig]) -> None:
    """Whether this machine has the devices that configs name; torch is loaded where one is named.

    Raises:
        ConfigError: it has not.
    """
    for device in {cfg.runtime.device for cfg in configs} - {"auto", "cpu"}:
        from keyseg.train.device import pick_device  # loads torch

        pick_device(device)


def findings(configs: Sequence[RunConfig]) -> list[str]:
    """What `check` would say, a line each: `missing: ...`, `note: ...`. Nothing is made or written.

    Raises:
        ConfigError: something cannot be built. DataError: a reader cannot be called.
    """
    from keyseg.data import mix
    from keyseg.data.files import DataError

    buildable.check(configs)
    lines: dict[str, None] = {}
    for cfg in configs:
        try:
            check_weights(cfg)
        except ConfigError as error:
            lines[f"missing: {error}"] = None
    lines |= dict.fromkeys(untuned(configs))
    data = {json.dumps(cfg.data, sort_keys=True): cfg for cfg in configs}
    for cfg in data.values():
        mix.check_readers(cfg.data)
        if cfg.data.get("prepare") and not Path(resolve_path(str(cfg.data["root"]))).exists():
            continue  # is made at the start
        try:
            splits = mix.load_splits(cfg.data)
            same = [other for other in configs if other.data == cfg.data]
            check_enough(same, splits)
            lines |= dict.fromkeys(unread(same, splits[0]))
        except (DataError, ConfigError) as error:
            lines[f"missing: {error}"] = None
    return list(lines)
