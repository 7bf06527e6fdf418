"""Seeds that come look by look: the plan, and looks.json, which keeps what each look decided.

The plan stands in sweep.json (`looks`), whoever starts cells goes by it. A look is taken when all
of its cells are done, it is written once and never changed: whoever comes later, after a kill or
from a job on a cluster, finds it and goes on from there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from keyseg.config import ConfigError
from keyseg.runs import disk, sweep_directory

LOOKS_FILE = "looks.json"

LOOKS = (3, 4, 6, 8, 10)
"""Seeds at each look, where nobody says otherwise."""
FAMILIES = ("obrien_fleming", "pocock", "predictive")
"""Ways to spread the level over the looks; `report.stats.sequential` has what they mean."""

DIFFERS, EQUIVALENT, FUTILE, OPEN = ("differs", "equivalent", "futile", "open")
"""What a look says of a contrast. All but the last are final."""


@dataclass(frozen=True)
class LookPlan:
    """Which seeds come when. `seeds`: all that may come, in order; `at`: how many of them each look
    has; `family`: how the level is spread over the looks."""

    seeds: tuple[int, ...]
    at: tuple[int, ...]
    family: str

    @classmethod
    def of(cls, sweep: Mapping[str, Any]) -> LookPlan | None:
        """That of a sweep.json; None where its seeds do not come by looks."""
        entry = sweep.get("looks")
        if not entry:
            return None
        return cls(tuple(entry["seeds"]), tuple(entry["at"]), str(entry["family"]))

    def seeds_at(self, look: int) -> tuple[int, ...]:
        """The seeds of all looks up to this one (from 1)."""
        return self.seeds[: self.at[look - 1]]


@dataclass(frozen=True)
class Ruling:
    """What a look says of one contrast.

    `labels`: of its variants. `p`, `equivalence`: of this look alone (None: it tells nothing).
    `overall`, `overall_equivalence`: over all looks so far, corrected by Holm's method, which is
    what decides. `chance`: of a verdict by the last look. `seeds`: how many tell, those in which a
    training collapsed are left out.
    """

    contrast: str
    word: str
    labels: tuple[str, ...]
    difference: float | None
    p: float | None
    equivalence: float | None
    overall: float
    overall_equivalence: float
    chance: float
    seeds: int


@dataclass(frozen=True)
class TakenLook:
    """One look as it was taken. `number`: from 1; `seeds`: of each variant with open contrasts.

    `metric`, `protocol`: what decides. `rulings`: on the contrasts that were open before it.
    `samples`: signature of every cell that the look rests on -> hash of its samples. `design`: see
    `declaration.tested`.
    """

    number: int
    seeds: int
    metric: str
    protocol: str
    rulings: tuple[Ruling, ...]
    samples: Mapping[str, str]
    design: str
    taken: float

    def decides(self, metric: str, protocol: str) -> bool:
        """Whether it was decided by this measure under this protocol."""
        return (metric, protocol) == (self.metric, self.protocol)

    @property
    def open(self) -> tuple[Ruling, ...]:
        """Contrasts that the next look goes on with."""
        return tuple(r for r in self.rulings if r.word == OPEN)

    @property
    def decided(self) -> tuple[Ruling, ...]:
        """The others."""
        return tuple(r for r in self.rulings if r.word != OPEN)


Decide = Callable[[Path], TakenLook]
"""Takes the next look at a sweep's folder. Handed in by whoever puts the program together: a sweep
does not know how a contrast is judged."""


def read(sweep_dir: Path) -> list[TakenLook]:
    """The looks that were taken, in order.

    Raises:
        ConfigError: the file cannot be read; names it.
    """
    file = sweep_dir / LOOKS_FILE
    try:
        return [_look(entry) for entry in json.loads(file.read_bytes())["looks"]]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"{file} cannot be read ({error}): it holds what was decided, put it back from a copy; "
            "name=OTHER begins a sweep that decides anew"
        ) from error


def ended(plan: LookPlan, taken: Sequence[TakenLook]) -> bool:
    """Whether no more seeds come."""
    return bool(taken) and (not taken[-1].open or len(taken) == len(plan.at))


def wanted(plan: LookPlan, taken: Sequence[TakenLook], labels: Iterable[str]) -> dict[str, int]:
    """How many seeds each variant has been given, the look that comes next included."""
    counts = dict.fromkeys(labels, plan.at[0])
    for look in taken[: len(plan.at) - 1]:
        going = {label for ruling in look.open for label in ruling.labels}
        counts |= dict.fromkeys(going & counts.keys(), plan.at[look.number])
    return counts


def take(sweep_dir: Path, number: int, decide: Decide) -> tuple[TakenLook, bool]:
    """The look of this number, and whether it is taken now: one that is there stays as it is."""
    with sweep_directory.lock(sweep_dir, "looks", timeout=600):
        before = read(sweep_dir)
        if len(before) >= number:
            return before[number - 1], False
        look = decide(sweep_dir)
        content = {"looks": [asdict(each) for each in [*before, look]]}
        disk.replace(sweep_dir / LOOKS_FILE, json.dumps(content, indent=1).encode())
        return look, True


def contrast_lines(plan: LookPlan, taken: Sequence[TakenLook]) -> list[str]:
    """Where each contrast stands beside its boundary, a line each, and which look comes next."""
    of = f"{len(plan.at)} (at {', '.join(map(str, plan.at))} seeds, {plan.family})"
    if not taken:
        return [f"no look of {of} is taken yet; every contrast is open"]
    last = {r.contrast: (look, r) for look in taken for r in look.rulings}
    width = max(map(len, last))
    out = [
        f"look {len(taken)} of {of} is taken; {taken[-1].metric} decides, where a p over all looks "
        "so far, corrected, is at most 0.05"
    ]
    for name, (look, r) in last.items():
        numbers = f"p = {r.overall:.2g}, equivalence p = {r.overall_equivalence:.2g}"
        chance = f", {100 * r.chance:.0f} % chance of a verdict" if r.word in (OPEN, FUTILE) else ""
        out.append(f"  {name:<{width}}  {r.word:<10}  look {look.number}  {numbers}{chance}")
    return out


def _look(entry: Mapping[str, Any]) -> TakenLook:
    rulings = tuple(Ruling(**{**r, "labels": tuple(r["labels"])}) for r in entry["rulings"])
    return TakenLook(**{**entry, "rulings": rulings})
