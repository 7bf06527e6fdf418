"""Search spaces in Hydra's sweep syntax, and parameters of a trial as overrides.

interval(a, b)              float from a to b         tag(log, interval(a, b))   on a log scale
int(interval(a, b))         int, both ends included   range(a, b, c)             a, a+c, ... < b
tag(log, range(a, b))       int on a log scale        choice(x, y) or x,y        one of these
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import product
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    Quote,
    QuotedString,
    RangeSweep,
)

from keyseg.config import ConfigError
from keyseg.sweep import ranges

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import BaseDistribution

LOG = "log"
"""The only tag that means something here."""

NOT_TUNED = ("seed", "name", "rerun", "stale", "reuse")
"""Keys that are no hyperparameter: the best seed is luck."""


@dataclass(frozen=True)
class Dimension:
    """One parameter. `key`: as an override names it; `texts`: value -> text, of a choice."""

    key: str
    distribution: BaseDistribution
    texts: Mapping[Any, str] = field(default_factory=dict)

    def suggest(self, trial: Trial) -> Any:
        """Its value in a trial; what was suggested before is given again."""
        from optuna.distributions import FloatDistribution, IntDistribution

        d = self.distribution
        if isinstance(d, FloatDistribution):
            return trial.suggest_float(self.key, d.low, d.high, step=d.step, log=d.log)
        if isinstance(d, IntDistribution):
            return trial.suggest_int(self.key, d.low, d.high, step=d.step, log=d.log)
        return trial.suggest_categorical(self.key, list(self.texts))

    def exact(self, value: Any) -> Any:
        """The value as one would write it: Optuna's third of 0.1, 0.2, ... is not quite 0.3."""
        from optuna.distributions import FloatDistribution

        d = self.distribution
        if not isinstance(d, FloatDistribution) or d.step is None:
            return value
        low, step = Decimal(str(d.low)), Decimal(str(d.step))
        return float(low + round((Decimal(str(value)) - low) / step) * step)

    def text(self, value: Any) -> str:
        """The value as Hydra takes it."""
        return self.texts[value] if value in self.texts else text_of(value)

    def check(self, value: Any) -> None:
        """Whether a point from outside lies in the space.

        Raises:
            ConfigError: it does not; names key, value and range.
        """
        if self.contains(value):
            return
        raise ConfigError(f"{self.key}={value}: outside of the search space, {self.describe()}")

    def contains(self, value: Any) -> bool:
        """Whether this value can be drawn."""
        if self.texts:
            return any(value == v and type(value) is type(v) for v in self.texts)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return bool(self.distribution._contains(self.distribution.to_internal_repr(value)))

    def describe(self) -> str:
        """`0.1 to 10 on a log scale`, or the values."""
        if self.texts:
            return f"one of {', '.join(self.texts.values())}"
        d: Any = self.distribution
        step = f" in steps of {d.step}" if d.step not in (None, 1) else ""
        return f"{d.low} to {d.high}{step}{' on a log scale' if d.log else ''}"


def split(overrides: Sequence[Override]) -> tuple[list[Dimension], list[str]]:
    """Dimensions, and the overrides that every trial has; a later override of a key wins.

    Raises:
        ConfigError: a sweep that is no search space; names the override and the remedy.
    """
    last = {override.get_key_element().lstrip("+"): override for override in overrides}
    dimensions: list[Dimension] = []
    fixed: list[str] = []
    for key, override in last.items():
        if not override.is_sweep_override():
            fixed.append(str(override.input_line))
        elif key in NOT_TUNED:
            raise ConfigError(
                f"{override.input_line}: {key} is no hyperparameter; give one value, "
                f"like {key}={next(iter(override.sweep_string_iterator()), 0)}"
            )
        else:
            dimensions.append(dimension(override))
    return dimensions, fixed


def dimension(override: Override) -> Dimension:
    """The search space of one override.

    Raises:
        ConfigError: bounds, tags or steps that do not go together.
    """
    override = ranges.exact(override)
    sweep = override.value()
    key, line = override.get_key_element(), override.input_line
    unknown = sorted(getattr(sweep, "tags", set()) - {LOG})
    if unknown:
        raise ConfigError(f"{line}: the tuner knows the tag log only, not {', '.join(unknown)}")
    if isinstance(sweep, IntervalSweep):
        return Dimension(key, _interval(sweep, line))
    if isinstance(sweep, RangeSweep):
        return Dimension(key, _range(sweep, line))
    return _choice(override, sweep, key, line)


def exact(params: Mapping[str, Any], space: Sequence[Dimension]) -> dict[str, Any]:
    """Parameters of a trial as one would write them; those of a hook stay as they are."""
    known = {d.key: d for d in space}
    return {key: known[key].exact(v) if key in known else v for key, v in params.items()}


def overrides(params: Mapping[str, Any], space: Sequence[Dimension]) -> list[str]:
    """Parameters of a trial as overrides; those of a hook are not in `space`."""
    known = {d.key: d for d in space}
    return [
        f"{key}={known[key].text(value) if key in known else text_of(value)}"
        for key, value in exact(params, space).items()
    ]


def text_of(value: Any) -> str:
    """A plain value as Hydra's override grammar takes it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        plain = value.replace("_", "").replace("-", "").replace(".", "").replace("/", "")
        return value if plain.isalnum() else QuotedString(value, Quote.single).with_quotes()
    return repr(value)


def points(space: Sequence[Dimension]) -> list[dict[str, Any]]:
    """Every point of a grid, the last dimension running fastest.

    Raises:
        ConfigError: a dimension has no end of values.
    """
    return [
        dict(zip([d.key for d in space], point, strict=True))
        for point in product(*map(_all, space))
    ]


def _all(dimension: Dimension) -> list[Any]:
    d: Any = dimension.distribution
    if dimension.texts:
        return list(dimension.texts)
    if d.step is None:
        raise ConfigError(
            f"{dimension.key}: an interval has no end of points; the grid sampler takes choice() "
            "and range()"
        )
    count = round((d.high - d.low) / d.step) + 1
    exact = Decimal(str(d.low)), Decimal(str(d.step))
    return [type(d.low)(exact[0] + i * exact[1]) for i in range(count)]


def _interval(sweep: IntervalSweep, line: str | None) -> BaseDistribution:
    from optuna.distributions import FloatDistribution, IntDistribution

    low, high, log = sweep.start, sweep.end, LOG in sweep.tags
    assert low is not None
    assert high is not None
    if not low < high:
        raise ConfigError(f"{line}: the interval is empty; give the lower end first")
    _check_log(log, low, line)
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(low, high, log=log)


def _range(sweep: RangeSweep, line: str | None) -> BaseDistribution:
    from optuna.distributions import FloatDistribution, IntDistribution

    step, log = sweep.step, LOG in sweep.tags
    values = list(sweep.range())
    low, high = min(values), max(values)
    _check_log(log, low, line)
    if log and step not in (1, -1):
        raise ConfigError(f"{line}: on a log scale a range has step 1; use tag(log, interval(...))")
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=log, step=abs(int(step)))
    if log:
        raise ConfigError(f"{line}: a range of floats has no log scale; use tag(log, interval())")
    return FloatDistribution(float(low), float(high), step=abs(float(step)))


def _choice(override: Override, sweep: Any, key: str, line: str | None) -> Dimension:
    from optuna.distributions import CategoricalDistribution

    raw: list[Any] = []
    if isinstance(sweep, ChoiceSweep):
        if LOG in sweep.tags:
            raise ConfigError(f"{line}: a choice has no log scale; use tag(log, interval(...))")
        sweep.shuffle = False  # order means nothing to a sampler, and texts must meet values
        raw = list(sweep.list)
    texts = list(override.sweep_string_iterator())
    values = [v.text if isinstance(v, QuotedString) else v for v in raw]
    plain = all(v is None or isinstance(v, bool | int | float | str) for v in values)
    if len(values) != len(texts) or not plain or len(set(values)) < len(values):
        values = list(texts)  # globs, lists, and 1 beside 1.0: their texts tell them apart
    if len(set(values)) < len(values):
        raise ConfigError(f"{line}: a value is given twice")
    return Dimension(key, CategoricalDistribution(values), dict(zip(values, texts, strict=True)))


def _check_log(log: bool, low: float, line: str | None) -> None:
    if log and low <= 0:
        raise ConfigError(f"{line}: on a log scale the lower end must be above 0")
