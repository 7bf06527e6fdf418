"""A contrast in a word and in a sentence: what is shown, and what it would take to show more.

"better" and "worse" speak of variants, so they need seeds: they ask that Holm's p (`both_p`) over
seeds and images is at most 5 %. "no difference" asks the same of the p of equivalence
(`equivalence_p`): two one-sided tests against the margin, corrected by Holm's method too. One seed
can only speak of its weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, isfinite, sqrt

from keyseg.metrics import Measure
from keyseg.report.stats.margin import SCORE_MARGIN, counted
from keyseg.runs.convergence import SAYS_NOTHING

ALPHA = 0.05
POWER = 0.8
DETECT = 0.01
"""The difference that an inconclusive contrast should be able to show: one point."""
SIGNS = 6
"""Seeds below which their signs alone cannot reach `ALPHA`: 2 / 2^6 = 0.031, 2 / 2^5 = 0.063."""
_FEWEST = 3
"""Seeds from which intervals cover (docs/statistics.md)."""
MOST_SEEDS = 200
NO_RESULT = "no result"
"""The word for a declared contrast of which one variant has no finished cell."""

NO_DIFFERENCE, SMALLER_THAN = "no difference", "smaller than"
"""The words for a difference within the margin; the second where its interval excludes 0."""

INTERIM, GIVEN_UP = "interim", "given up"
"""The words for a contrast that is open while seeds come look by look (docs/sequential.md), and for
one that gets no more of them because a verdict is not to be expected."""

WORDS = (
    "better",
    "worse",
    "higher",
    "lower",
    NO_DIFFERENCE,
    SMALLER_THAN,
    "one seed (better)",
    "one seed (worse)",
    "one seed (higher)",
    "one seed (lower)",
    "inconclusive",
    "no interval",
    NO_RESULT,
    SAYS_NOTHING,
    INTERIM,
    GIVEN_UP,
)


@dataclass(frozen=True)
class Evidence:
    """All that a verdict rests on. Fractions; NaN = not known.

    `low`, `high`: 95 % interval over seeds and images, over images alone where there is one seed;
    `p`: Holm-corrected, over the same sources; `equivalence`: that of a difference as large as
    `margin`, either way, corrected likewise. `images`, `seeds`, `interaction`: variances, see
    `inference.Sources`. `hours`: of one more seed of both variants. `contrasts`: how many Holm's
    correction runs over. `stage`: where seeds come look by look, INTERIM or GIVEN_UP, whatever
    the numbers of the moment say.
    """

    measure: Measure
    difference: float
    low: float
    high: float
    p: float
    n_seeds: int
    n_images: int
    images: float
    seeds: float
    interaction: float
    hours: float
    device: str = "GPU"
    contrasts: int = 1
    equivalence: float = float("nan")
    margin: float = SCORE_MARGIN
    stage: str = ""

    @property
    def small(self) -> bool:
        """Whether it is shown to be smaller than the margin, either way."""
        return self.n_seeds > 1 and isfinite(self.equivalence) and self.equivalence <= ALPHA

    @property
    def level(self) -> float:
        """The p that Holm's first step asks for."""
        return ALPHA / self.contrasts


def word(e: Evidence) -> str:
    """One of `WORDS`."""
    if not isfinite(e.difference):
        return "no interval"
    if e.stage:
        return e.stage
    if e.images == 0 and (e.n_seeds < 2 or e.seeds == 0):  # every example, every seed: the same
        return NO_DIFFERENCE if e.difference == 0 and e.n_seeds > 1 else "no interval"
    if isfinite(e.p) and e.p <= ALPHA:
        which = direction(e.measure, e.difference)
        return which if e.n_seeds > 1 else f"one seed ({which})"
    if not (isfinite(e.low) and isfinite(e.high)):
        return "no interval"
    if not e.small:
        return "inconclusive"
    return NO_DIFFERENCE if e.low <= 0 <= e.high else SMALLER_THAN


def direction(measure: Measure, difference: float) -> str:
    """ "better" or "worse"; "higher" or "lower" of what is neither."""
    pair = ("higher", "lower") if measure.better == 0 else ("better", "worse")
    return pair[0] if (difference > 0) == (measure.better >= 0) else pair[1]


def of_everyone(measure: Measure, low: float, high: float) -> str:
    """The word on all trainings, by an interval that is corrected for the number of contrasts.

    It never says that there is no difference: a few seeds leave too much of a rate of collapse
    open for that.
    """
    if isfinite(low) and isfinite(high) and (low > 0 or high < 0):
        return direction(measure, low)
    return "inconclusive"


def second_reading(
    value: float, everyone: float, low: float, high: float, said: str, median: float
) -> str:
    """All trainings and the median of the seeds in words, beside the verdict on those that
    succeeded (`value`)."""
    ends = f" [{points(low)}, {points(high)}]" if isfinite(low) and isfinite(high) else ""
    otherwise = " (the other way)" if value * median < 0 else ""
    return (
        f"all trainings: {said}, {points(everyone)} points{ends}; median of the seeds "
        f"{points(median)}{otherwise}"
    )


def sentence(e: Evidence) -> str:
    """The verdict in words, with what it would take to show more."""
    said = word(e)
    if said == "no interval":
        return f"no interval: {_why_none(e)}"
    if said == NO_DIFFERENCE and not isfinite(e.low):
        return "no difference: both are the same on every example and seed"
    size = f"{points(e.difference)} points [{points(e.low)}, {points(e.high)}]"
    if e.measure.better < 0:
        size += " (lower is better)"
    if said in (INTERIM, GIVEN_UP):
        known = size if isfinite(e.low) and isfinite(e.high) else f"{points(e.difference)} points"
        return f"{said}: {', '.join(filter(None, (known, p_text(e.p))))}"
    if said in (NO_DIFFERENCE, SMALLER_THAN):
        return _small(said, size, e)
    if said.startswith("one seed"):
        claim = said.removeprefix("one seed (").rstrip(")")
        known = f"these weights are {claim}: {size}, {p_text(e.p)} over test images"
        return f"{known}; {_first_seeds(e)}"
    if said == "inconclusive":
        if e.n_seeds < 2:
            return f"inconclusive: {size}, {p_text(e.p)} over test images; {_first_seeds(e)}"
        return f"inconclusive: {size}, {p_text(e.p)}; {_needs(e)}"
    limit = f", by less than {counted(e.margin)}" if e.small else ""
    return f"{said}{limit}: {size}, {p_text(e.p)}"


def _small(said: str, size: str, e: Evidence) -> str:
    known = f"{size}, equivalence {p_text(e.equivalence)}"
    if said == NO_DIFFERENCE:
        return f"no difference larger than {counted(e.margin)}: {known}"
    return (
        f"smaller than {counted(e.margin)} either way: {known}; whether there is any is open "
        f"({p_text(e.p)})"
    )


def points(value: float) -> str:
    """0.0123 -> "+1.2"; a real minus sign, and no sign on a rounded zero."""
    text = f"{100 * value:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")


def _why_none(e: Evidence) -> str:
    if not isfinite(e.difference):
        return "nothing was counted"
    return "no example differs" if e.difference == 0 else "every image gives the same difference"


def _first_seeds(e: Evidence) -> str:
    """What it takes to speak of variants, where there is one seed."""
    more = _FEWEST - e.n_seeds
    cost = hours_text(more * e.hours, e.device)
    return f"to judge the variant takes at least {more} more seeds{cost}"


def p_text(p: float) -> str:
    """0.0312 -> "p = 0.031", 0.00001 -> "p < 0.001", "" for NaN."""
    return "" if not isfinite(p) else "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def seeds_needed(e: Evidence, gap: float = DETECT) -> int | None:
    """Seeds in all that show `gap` with `POWER`; None if images alone forbid it.

    By the p value that verdicts follow (`inference.both_p`), at the level that Holm's first step
    asks for. The images' variance is kept, its interaction with seeds falls with their number.
    """
    from scipy.stats import nct, t

    seed_only = max(e.seeds - e.interaction, 0.0) * e.n_seeds
    interaction = e.interaction * e.n_seeds
    images = max(e.images - e.interaction, 0.0)

    def power(n: int) -> float:
        seeds = (seed_only + interaction) / n
        both = images + interaction / n
        total = both + seed_only / n
        if total <= 0:
            return 1.0
        spread = seeds**2 / (n - 1) + both**2 / max(e.n_images - 1, 1)
        edges = [t.isf(e.level / 2, freedom) for freedom in (n - 1, max(e.n_images - 1, 1))]
        edge = sqrt((seeds * edges[0] ** 2 + both * edges[1] ** 2) / (seeds + both))
        return float(nct.sf(edge, total**2 / spread, gap / sqrt(total)))

    if power(MOST_SEEDS) < POWER:
        return None
    low, high = 2, MOST_SEEDS
    while low < high:  # power rises with seeds
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle) >= POWER else (middle + 1, high)
    return low


def images_needed(e: Evidence, gap: float = DETECT) -> float:
    """How many times the test images it takes before enough seeds could show `gap`."""
    from scipy.stats import norm

    reach = norm.isf(e.level / 2) + norm.ppf(POWER)
    return float(max(e.images - e.interaction, 0.0) * (reach / gap) ** 2)


def hours_text(hours: float, device: str) -> str:
    """ ", 3.2 GPU-hours", or "" where no cell says what it costs."""
    if not isfinite(hours):
        return ""
    digits = 1 if hours >= 0.95 else 2
    return f", {hours:.{digits}f} {device}-hours"


def _needs(e: Evidence) -> str:
    aim = f"detecting {100 * DETECT:g} point"
    total = seeds_needed(e)
    if total is None:
        # Half of the room is left to the seeds: with less, no number of them is enough.
        times = images_needed(e)
        if times > 1:
            from scipy.stats import norm

            left = 100 * norm.isf(ALPHA / 2) * sqrt(max(e.images - e.interaction, 0.0))
            return (
                f"{e.n_images} test images leave ±{left:.1f} points whatever the number of seeds; "
                f"{aim} needs about {ceil(times + 0.5)} times as many images"
            )
        return f"{aim} needs more than {MOST_SEEDS} seeds"
    more = max(total - e.n_seeds, 0)
    if more == 0:
        return (
            f"{e.n_seeds} seeds are enough to detect {100 * DETECT:g} point with "
            f"{100 * POWER:.0f} % power, and this did not stand out"
        )
    noun = "seed" if more == 1 else "seeds"
    cost = hours_text(more * e.hours, e.device)
    rough = (
        "" if e.n_seeds >= _FEWEST else f" (a guess: {e.n_seeds} seeds hardly show their spread)"
    )
    return f"{aim} needs about {more} more {noun}{cost}{rough}"


def caveat(e: Evidence) -> str:
    """What this number of seeds cannot show; "" where there are enough for their signs alone."""
    if e.n_seeds >= SIGNS or not isfinite(e.difference):
        return ""
    more = SIGNS - e.n_seeds
    remedy = f"{more} more {'seed lets' if more == 1 else 'seeds let'} them reach it."
    if e.n_seeds < 2:
        return (
            "One seed cannot show whether the variant or the training run makes the difference: "
            f"these are intervals of the weights at hand. From {_FEWEST} seeds on intervals hold "
            "over training runs, if seed effects are roughly normal; for the signs of the seeds "
            f"to reach p = {ALPHA} without that, {SIGNS} are needed."
        )
    few = (
        "Two seeds are too few for more than a first look: of their intervals over both sources "
        "fewer than 95 % hold the truth. "
        if e.n_seeds < _FEWEST
        else ""
    )
    return (
        f"{few}The signs of {e.n_seeds} seeds alone cannot reach p = {ALPHA} (at best "
        f"{2 / 2**e.n_seeds:.3g}), even before Holm's correction: verdicts rest on seed effects "
        f"being roughly normal. {remedy}"
    )
