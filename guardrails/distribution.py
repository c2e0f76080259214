"""Is what came out of a network a distribution over what is allowed? If not, it is not used."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SUM_TOLERANCE = 1e-4


def are_sound(probabilities: NDArray[Any], masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which rows of `[B, K]` are finite, not negative, 0 where masked, and sum to 1: `[B]`."""
    proper = np.isfinite(probabilities) & (probabilities >= 0) & (masks | (probabilities == 0))
    with np.errstate(invalid="ignore"):
        off = np.abs(probabilities.sum(axis=1) - 1.0)
    sound: NDArray[np.bool_] = proper.all(axis=1) & (off <= SUM_TOLERANCE)
    return sound


def point_mass(row: int, size: int) -> NDArray[np.float64]:
    """The distribution of a choice that leaves nothing to chance: `[size]`, 1 at `row`."""
    probabilities = np.zeros(size)
    probabilities[row] = 1.0
    return probabilities
