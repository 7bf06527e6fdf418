"""`range(0.1, 0.4, 0.1)` as one would write its values: 0.1, 0.2, 0.3.

Hydra adds up floats in binary, which gives 0.30000000000000004 (another run than 0.3) and may add
the end, which is not part of a range.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from decimal import Decimal
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep

from keyseg.config import ConfigError


class ExactRange(RangeSweep):
    """A range whose values are sums of what is written, in decimals."""

    def range(self) -> Any:
        """The values, ints where all that is written is ints."""
        assert self.start is not None
        assert self.stop is not None
        if all(isinstance(number, int) for number in (self.start, self.stop, self.step)):
            return super().range()
        start, stop, step = (Decimal(str(n)) for n in (self.start, self.stop, self.step))
        values: list[float] = []
        while (start < stop) if step > 0 else (start > stop):
            values.append(float(start))
            start += step
        return values


def parse(parser: OverridesParser, overrides: Iterable[str]) -> list[Override]:
    """Overrides of a sweep, with the values of ranges exact.

    Raises:
        ConfigError: a range that has no values, or no end of them.
    """
    return [exact(override) for override in parser.parse_overrides(list(overrides))]


def exact(override: Override) -> Override:
    """The override, with its values exact if it is a range.

    Raises:
        ConfigError: the range has no values, or no end of them.
    """
    sweep, line = override.value(), override.input_line
    if not isinstance(sweep, RangeSweep):
        return override
    if not sweep.step:
        raise ConfigError(f"{line}: the step of a range must not be 0")
    values = ExactRange(**{f.name: getattr(sweep, f.name) for f in fields(RangeSweep)})
    if not list(values.range()):
        raise ConfigError(f"{line}: the range is empty; its end is not part of it")
    return replace(override, _value=values)
