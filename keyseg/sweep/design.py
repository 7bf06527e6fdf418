"""What a sweep asks: which keys vary, against which baseline, over which seeds, under which name.

A design comes from the overrides of the cells ("fusion=cross seed=0", ...), and, for a file in
sweeps/, from its `ablation` block, which may say everything that the overrides leave open.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from keyseg.config import PROJECT, ConfigError
from keyseg.runs import packages
from keyseg.runs.factors import compared
from keyseg.runs.looks import LookPlan
from keyseg.runs.sweep_directory import label_of, short_key
from keyseg.sweep import duplicates
from keyseg.sweep.conditional import Conditions, conditions, dropped, identity
from keyseg.sweep.replicate import drop_behind as read_drop_behind
from keyseg.sweep.replicate import replicate as read_replicate
from keyseg.sweep.replicate import with_all_seeds

DEFAULT_METRICS = ("giou", "ciou")
BASELINES = ("no_key", "seg_only")
"""Fusion variants that are natural baselines, the first of them that a sweep has: no KEY at all,
and no KEY in the fusion."""

LEAST_MARGIN = 0.05
"""Points. Reports show a tenth of a point; less is a fraction (0.01) given for points."""

SINGLE = "single"
"""Name of the sweep of runs that belong to none."""

FREE_OPTIONS = ("name", "rerun", "stale", "reuse", "dry", "detach", "until", "notify")
"""Keys that steer the sweep itself; they are no part of a label."""

ABLATION_KEYS = (
    "name",
    "question",
    "baseline",
    "factors",
    "replicate",
    "metrics",
    "contrasts",
    "path",
    "published",
    "margin",
    "only_where",
    "drop_behind",
    "tests",
)


@dataclass(frozen=True)
class Point:
    """One cell of a design. `overrides`: all of them, as Hydra takes them."""

    label: str
    factors: dict[str, Any]
    seed: int | None
    overrides: list[str]


@dataclass(frozen=True)
class Design:
    """A sweep before anything of it has run.

    `factors`: swept key -> its values in the order given; `replicate`: the key whose values are
    repetitions, not a question; `baseline`: the value of each factor that others are held against;
    `path`: the changes, one factor each, that lead from the baseline to the whole; `margin`:
    metric -> points below which a difference counts as none ({} = the report's default);
    `only_where`: see `conditional`; `left_out`: how many cells it makes repeats of others; `looks`:
    when seeds come that come until the answer is in (None = all of them at once);
    `drop_behind`: see `drops` (None = every variant is trained to every budget); `tests`: further
    test sets that its finished runs are read on, like "refcoco:testA" (`keyseg evaluate`).
    """

    name: str
    factors: dict[str, list[Any]]
    baseline: dict[str, Any]
    points: list[Point]
    replicate: str = "seed"
    question: str | None = None
    metrics: list[str] = field(default_factory=lambda: list(DEFAULT_METRICS))
    contrasts: list[Any] = field(default_factory=list)
    path: list[Any] = field(default_factory=list)
    published: str | None = None
    margin: dict[str, float] = field(default_factory=dict)
    only_where: dict[str, Any] = field(default_factory=dict)
    left_out: int = 0
    looks: LookPlan | None = None
    drop_behind: float | None = None
    tests: list[str] = field(default_factory=list)


def read_design(
    job_overrides: Sequence[Sequence[str]],
    ablation: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    fusion: str = "",
    until: str | None = None,
    seed: int = 0,
) -> Design:
    """Read the design off the overrides of all cells.

    Args:
        job_overrides: one list of overrides per cell, as a Hydra sweeper hands them out.
        ablation: the block of that name in a sweeps/ file.
        name: of the sweep; else the block's, else made from the keys that vary.
        fusion: the variant of every cell where fusion does not vary: the label of last resort.
        until: `verdict` where the command asks for seeds until the answer is in.
        seed: of cells that set none.

    Raises:
        ConfigError: a name that is no folder name, or an `ablation` block that does not fit.
    """
    block = dict(ablation or {})
    check_block(block)
    if not job_overrides:
        raise ConfigError("the sweep has no cells: a value that it gives stands for nothing")
    asked = read_replicate(block.get("replicate"), until)
    replicate = asked.key
    parser = OverridesParser.create()
    parsed = [parser.parse_overrides(list(overrides)) for overrides in job_overrides]
    plan = None
    if asked.at:
        parsed, seeds = with_all_seeds(parsed, asked, seed, parser.parse_override)
        plan = LookPlan(seeds, asked.at, asked.family)
    every = [_values(overrides) for overrides in parsed]

    keys = list(dict.fromkeys(key for cell in every for key in cell))
    given = {key: _distinct(cell.get(key) for cell in every) for key in keys}
    when = conditions(block.get("only_where"), given)
    written = _without_repeats(parsed, every, when)
    cells = list(map(_values, written))
    varies = [k for k in keys if len({json.dumps(cell.get(k)) for cell in cells}) > 1]
    named = [str(key) for key in (block.get("factors") or [])]
    unknown = [key for key in named if key not in keys]
    if unknown:
        raise ConfigError(
            f"ablation.factors names {unknown[0]}, which the sweep does not set; "
            f"it sets {', '.join(keys)}"
        )
    if block.get("replicate") and replicate not in keys:
        raise ConfigError(
            f"ablation.replicate={replicate}: the sweep does not set it; it sets {', '.join(keys)}"
        )
    factor_keys = named or [k for k in varies if k not in (replicate, *FREE_OPTIONS)]
    if factor_keys:
        factors = {k: _distinct(c[k] for c in cells if k in c) for k in factor_keys}
    else:
        factors = {"fusion": [fusion]}

    points = []
    for cell, overrides in zip(cells, written, strict=True):
        values = {k: cell[k] for k in factor_keys if k in cell} or {"fusion": fusion}
        lines = [str(o.input_line) for o in overrides]
        points.append(Point(label_of(values), values, cell.get(replicate), lines))

    baseline = {
        k: next((b for b in BASELINES if k == "fusion" and b in v), v[0])
        for k, v in factors.items()
    }
    for key, value in (block.get("baseline") or {}).items():
        _check_value("ablation.baseline", key, value, factors)
        baseline[key] = value
    _check_contrasts(block.get("contrasts") or [], factors)
    _check_path(block.get("path") or [], factors)
    metrics = _metrics(block.get("metrics"))
    chosen = block.get("name") if name is None else name
    default_name = "-".join(map(short_key, _naming_keys(varies, factor_keys, replicate))) or SINGLE
    design = Design(
        name=folder_name(default_name if chosen is None else str(chosen)),
        factors=factors,
        baseline=baseline,
        points=points,
        replicate=replicate,
        question=block.get("question"),
        metrics=metrics,
        contrasts=list(block.get("contrasts") or []),
        path=list(block.get("path") or []),
        published=block.get("published"),
        margin=_margin(block.get("margin"), metrics),
        only_where={key: dict(condition) for key, condition in when.items()},
        left_out=len(every) - len(cells),
        looks=plan,
        drop_behind=read_drop_behind(block.get("drop_behind"), factors, looks=plan is not None),
        tests=_tests(block.get("tests")),
    )
    if plan and len({p.label for p in points}) < 2:
        raise ConfigError(
            f"until=verdict: there is one variant ({points[0].label}), and nothing to decide"
        )
    duplicates.check(design.points, design.baseline, design.contrasts, design.path)
    return design


def contrasts_of(design: Design) -> int:
    """How many contrasts it asks for; a main effect or an interaction of several counts once."""
    variants = list({p.label: p.factors for p in design.points}.values())
    if not design.contrasts:
        return max(len(variants) - 1, 1)
    counts = (
        len(list(compared(entry["of"], entry["against"], variants))) if "of" in entry else 1
        for entry in design.contrasts
    )
    return max(sum(counts), 1)


def _naming_keys(varies: list[str], factors: list[str], replicate: str) -> list[str]:
    """Keys that name a sweep: its factors that vary, else the replicate if that does."""
    return [k for k in factors if k in varies] or [k for k in varies if k == replicate]


def folder_name(name: str) -> str:
    """The name of a sweep, which is a folder's too.

    Raises:
        ConfigError: characters that a folder name should not have.
    """
    if not re.fullmatch(r"[\w+=.@-]{1,100}", name) or name.startswith("."):
        raise ConfigError(
            f"name={name}: use letters, digits and - _ + = . @ only, up to 100; it names a folder"
        )
    return name


def to_json(
    design: Design, signatures: Sequence[str], seeds: Sequence[int], command: str, started: float
) -> dict[str, Any]:
    """The content of sweep.json, `mlflow_parent` not known yet."""
    cells = [
        {
            "signature": signature,
            "label": p.label,
            "factors": p.factors,
            "seed": seed,
            "overrides": p.overrides,
        }
        for p, signature, seed in zip(design.points, signatures, seeds, strict=True)
    ]
    kept = {key: value for key, value in asdict(design).items() if key != "points"}
    return {**kept, "cells": cells, "command": command, "started": started, "mlflow_parent": None}


def _without_repeats(
    parsed: Sequence[list[Override]], cells: Sequence[Mapping[str, Any]], when: Conditions
) -> list[list[Override]]:
    """The overrides of all cells without the keys that cannot matter there, each cell once."""
    kept: dict[str, list[Override]] = {}
    for overrides, cell in zip(parsed, cells, strict=True):
        out = dropped(cell, when)
        mattering = [o for o in overrides if _key(o) not in out]
        kept.setdefault(identity(_values(mattering)) if when else str(len(kept)), mattering)
    return list(kept.values())


def _key(override: Override) -> str:
    return override.get_key_element().lstrip("+~")


def _values(overrides: list[Override]) -> dict[str, Any]:
    return {_key(o): o.value() for o in overrides}


def _distinct(values: Any) -> list[Any]:
    distinct: list[Any] = []
    for value in values:
        if value not in distinct:
            distinct.append(value)
    return distinct


def check_block(block: Mapping[str, Any]) -> None:
    """Check of an `ablation` block what needs no cells.

    Raises:
        ConfigError: a key that is none, a baseline of no form, a measure that is none, a margin.
    """
    for key in block:
        if key not in ABLATION_KEYS:
            near = get_close_matches(key, ABLATION_KEYS, n=1)
            hint = f" Did you mean ablation.{near[0]}?" if near else ""
            raise ConfigError(
                f"ablation.{key}: no such key.{hint} Keys: {', '.join(ABLATION_KEYS)}"
            )
    baseline = block.get("baseline")
    if baseline is not None and not isinstance(baseline, Mapping):
        raise ConfigError(
            f"ablation.baseline={baseline}: give factor and value, like {{fusion: seg_only}}"
        )
    _margin(block.get("margin"), _metrics(block.get("metrics")))
    _tests(block.get("tests"))


def _tests(given: Any) -> list[str]:
    """Further test sets, each an option of the group data and a split."""
    items = [] if given is None else given
    form = re.compile(r"[\w-]+(:\w+)?")
    folders = [PROJECT / "experiments", *map(Path, packages.folders("experiments"))]
    known = {file.stem for folder in folders for file in (folder / "data").glob("*.yaml")}
    if isinstance(items, str) or not isinstance(items, Sequence):
        raise ConfigError(f"ablation.tests={given}: give a list, like [refcoco:testA, reason_seg]")
    for item in map(str, items):
        name = item.partition(":")[0]
        if not form.fullmatch(item) or name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ConfigError(
                f"ablation.tests: {item} is no option of the group data, alone or with a split, "
                f"like refcoco:testA.{hint}"
            )
    return list(map(str, items))


def _metrics(given: Any) -> list[str]:
    """Names of the measures that verdicts are given on.

    Raises:
        ConfigError: one is none; says the nearest.
    """
    if given is None or list(given) == list(DEFAULT_METRICS):
        return list(DEFAULT_METRICS)
    from keyseg.metrics import BY_NAME  # loads pandas

    if isinstance(given, str) or not isinstance(given, Sequence) or not given:
        raise ConfigError(f"ablation.metrics={given}: give a list of names, like [giou, ciou]")
    called = {measure.title.lower(): name for name, measure in BY_NAME.items()}
    called |= {name.lower(): name for name in BY_NAME}
    for name in given:
        if name not in BY_NAME:
            near = get_close_matches(str(name).lower(), called, n=1)
            hint = f" Did you mean {called[near[0]]}?" if near else ""
            raise ConfigError(
                f"ablation.metrics: {name} is no measure.{hint} One of {', '.join(BY_NAME)}"
            )
    if len({*given}) < len(given):
        raise ConfigError(f"ablation.metrics={list(given)}: one is given twice")
    return list(given)


def _margin(given: Any, metrics: Sequence[str]) -> dict[str, float]:
    """Points by metric, from a mapping or from one number for all metrics."""
    if given is None:
        return {}
    each = given if isinstance(given, Mapping) else dict.fromkeys(metrics, given)
    for name, points in each.items():
        if name not in metrics:
            raise ConfigError(
                f"ablation.margin: {name} is no metric of the sweep; "
                f"ablation.metrics: {', '.join(metrics)}"
            )
        number = isinstance(points, int | float) and not isinstance(points, bool)
        if not (number and LEAST_MARGIN <= points < 100):
            raise ConfigError(
                f"ablation.margin: {name}={points}: give points of 100, at least {LEAST_MARGIN:g}, "
                "like {giou: 1}"
            )
    return {str(name): float(points) for name, points in each.items()}


def _check_contrasts(entries: Sequence[Any], factors: Mapping[str, Sequence[Any]]) -> None:
    """Two variants (`of`, `against`), a `main` effect or an `interaction`, and perhaps a name."""
    for i, entry in enumerate(entries):
        where = f"ablation.contrasts[{i}]"
        given = set(entry).difference({"name"}) if isinstance(entry, Mapping) else set()
        if given == {"of", "against"}:
            _check_sides(where, entry, factors)
        elif given == {"main"}:
            _check_factors(f"{where}.main", [entry["main"]], 1, factors)
        elif given == {"interaction"}:
            _check_factors(f"{where}.interaction", entry["interaction"], 2, factors)
        else:
            raise ConfigError(
                f"{where}={entry}: give two variants, like "
                "{of: {fusion: full}, against: {fusion: cross}}, {main: FACTOR} or "
                "{interaction: [FACTOR, FACTOR]}, and a name if you like"
            )


def _check_sides(
    where: str, entry: Mapping[str, Any], factors: Mapping[str, Sequence[Any]]
) -> None:
    for side in ("of", "against"):
        values = entry[side]
        if not isinstance(values, Mapping) or not values:
            raise ConfigError(
                f"{where}.{side}={values}: give factor and value, like {{fusion: full}}"
            )
        for key, value in values.items():
            _check_value(f"{where}.{side}", key, value, factors)


def _check_factors(where: str, keys: Any, count: int, factors: Mapping[str, Sequence[Any]]) -> None:
    varies = [key for key, values in factors.items() if len(values) > 1]
    if not isinstance(keys, list) or len({*map(str, keys)}) != count:
        raise ConfigError(f"{where}={keys}: give {count} of {', '.join(varies)}")
    for key in keys:
        if key not in varies:
            raise ConfigError(
                f"{where}: {key} is no factor that varies; there are {', '.join(varies) or 'none'}"
            )


def _check_path(steps: Any, factors: Mapping[str, Sequence[Any]]) -> None:
    """Each is `{factor: value}`: one change of the variant before it, the first of the baseline."""
    for i, step in enumerate(steps if isinstance(steps, Sequence) else [steps]):
        where = f"ablation.path[{i}]"
        if not isinstance(step, Mapping) or len(step) != 1:
            raise ConfigError(f"{where}={step}: give one change, like {{fusion: full}}")
        for key, value in step.items():
            _check_value(where, key, value, factors)


def _check_value(where: str, key: str, value: Any, factors: Mapping[str, Sequence[Any]]) -> None:
    if value not in factors.get(key, []):
        raise ConfigError(
            f"{where}: {key}={value} is no value of the sweep; "
            f"{key} takes {', '.join(map(str, factors.get(key, ['no value'])))}"
        )
