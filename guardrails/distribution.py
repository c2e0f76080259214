"""Is what came out of the network a distribution over what is allowed? If not, it is not used."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SUM_TOLERANCE = 1e-4


def is_sound(probabilities: NDArray[Any], mask: NDArray[np.bool_]) -> bool:
    """True when `[K]` probabilities are finite, not negative, 0 where masked, and sum to 1."""
    return bool(
        np.isfinite(probabilities).all()
        and (probabilities >= 0).all()
        and not probabilities[~mask].any()
        and abs(float(probabilities.sum()) - 1.0) <= SUM_TOLERANCE
    )


def point_mass(row: int, size: int) -> NDArray[np.float64]:
    """The distribution of a choice that leaves nothing to chance: `[size]`, 1 at `row`."""
    probabilities = np.zeros(size)
    probabilities[row] = 1.0
    return probabilities
