"""A slow cycle that every account meets at its own phase. Numpy only."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Season:
    """A circle that B accounts go round once in `period` decisions, from where they start."""

    def __init__(self, start: Array, period: float) -> None:
        """start `[B]`, as shares of the circle."""
        self._start = start
        self._period = period

    def at(self, t: int) -> tuple[Array, Array]:
        """Sine and cosine at decision t, `[B]` each."""
        angle = 2.0 * np.pi * (self._start + t / self._period)
        return np.sin(angle), np.cos(angle)
