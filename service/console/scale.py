"""From numbers to places on a chart: straight and logarithmic axes, and where their ticks are."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """One axis: `low` and `high` are numbers, `start` and `end` where they are drawn."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def at(self, value: float) -> float:
        """Where a number is drawn; what is beyond an end is drawn at it."""
        value = min(max(value, self.low), self.high)
        if self.is_log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def round_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers, about so many, that reach from at or below `low` to at or above `high`."""
    span = high - low or abs(high) or 1.0
    rough = span / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if first == last:
        last += 1
    return [round(k * step, 12) for k in range(first, last + 1)]


def log_ticks(high: float) -> list[int]:
    """1, 2, 5, 10, … up to `high`."""
    return [m * 10**p for p in range(7) for m in (1, 2, 5) if m * 10**p <= high]


BINS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 19, 24, 30, 38, 48, 61, 77, 97, 122, 154, 201)
"""Where each bin of interaction numbers begins, and the last ends: as wide as they look on a
logarithmic axis."""
