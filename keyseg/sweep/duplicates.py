"""What a design says twice: two cells under one name, a contrast that compares nothing.

Each is read off the design before anything runs: a report would leave it out, or add up what does
not belong together, without a word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from keyseg.config import ConfigError
from keyseg.runs.factors import Factors, compared, matches
from keyseg.sweep.conditional import identity


class Place(Protocol):
    """What is asked of a cell (`design.Point`)."""

    @property
    def label(self) -> str:
        """Name of the variant."""

    @property
    def factors(self) -> Factors:
        """What makes the variant."""

    @property
    def seed(self) -> int | None:
        """Which repetition it is."""

    @property
    def overrides(self) -> Sequence[str]:
        """All that is set."""


def check(
    points: Sequence[Place],
    baseline: Factors,
    contrasts: Sequence[Mapping[str, Any]],
    path: Sequence[Factors],
) -> None:
    """Look at cells, baseline, contrasts and path of a design.

    Raises:
        ConfigError: two are the same, or the baseline or an end of a contrast fits no cell.
    """
    _check_cells(points)
    variants = list({p.label: p.factors for p in points}.values())
    if not any(matches(v, baseline) for v in variants):
        raise ConfigError(
            f"ablation.baseline={_shown(baseline)}: the sweep has no cell with all of that"
        )
    _check_contrasts(contrasts, variants)
    here = dict(baseline)
    for i, step in enumerate(path):
        if all(str(here.get(key)) == str(value) for key, value in step.items()):
            raise ConfigError(
                f"ablation.path[{i}]={_shown(step)}: changes nothing; the variant before it has it"
            )
        here |= step


def _check_cells(points: Sequence[Place]) -> None:
    by_label: dict[str, Place] = {}
    by_place: dict[tuple[str, Any], Place] = {}
    for point in points:
        other = by_label.setdefault(point.label, point)
        if identity(other.factors) != identity(point.factors):
            raise ConfigError(
                f"two variants are called '{point.label}': {_shown(other.factors)} and "
                f"{_shown(point.factors)}; sweep one of the keys, or give values that read apart"
            )
        twin = by_place.setdefault((point.label, point.seed), point)
        if twin is not point and sorted(twin.overrides) != sorted(point.overrides):
            apart = sorted({*twin.overrides} ^ {*point.overrides})
            raise ConfigError(
                f"two cells are '{point.label}' with one seed: {', '.join(apart)} tell them apart, "
                "and ablation.factors does not name that key"
            )


def _check_contrasts(entries: Sequence[Mapping[str, Any]], variants: Sequence[Factors]) -> None:
    earlier: dict[tuple[str, str], int] = {}
    effects: dict[str, int] = {}
    for i, entry in enumerate(entries):
        where = f"ablation.contrasts[{i}]"
        if "of" not in entry:  # a main effect or an interaction
            what = {key: value for key, value in entry.items() if key != "name"}
            effect = {k: sorted(v) if isinstance(v, list) else v for k, v in what.items()}
            if (first := effects.setdefault(identity(effect), i)) != i:
                raise ConfigError(f"{where}: {_shown(what)} is ablation.contrasts[{first}] again")
            continue
        of, against = dict(entry["of"]), dict(entry["against"])
        names = [identity(variant) for variant in variants]
        pairs = [(names[i], names[j]) for i, j in compared(of, against, variants)]
        if not pairs:
            same = _shown(of) == _shown(against)
            why = "compares a variant with itself" if same else "fits no two cells of the sweep"
            raise ConfigError(f"{where}: {_shown(of)} against {_shown(against)} {why}")
        before = {earlier[pair] for pair in pairs if pair in earlier}
        if all(pair in earlier for pair in pairs):
            raise ConfigError(
                f"{where}: {_shown(of)} against {_shown(against)} is ablation.contrasts"
                f"[{min(before)}] again"
            )
        for pair in pairs:
            earlier.setdefault(pair, i)


def _shown(factors: Factors) -> str:
    return ", ".join(f"{key}={value}" for key, value in factors.items())
