"""How long trials are and how many may choose: whole numbers, log-uniform over a closed range."""

from __future__ import annotations

import numpy as np


def log_uniform(rng: np.random.Generator, bounds: tuple[int, int]) -> int:
    """One from anywhere in the range."""
    low, high = bounds
    drawn = int(np.exp(rng.uniform(np.log(low), np.log(high + 1))))
    return min(max(drawn, low), high)


def stratified(
    rng: np.random.Generator,
    bounds: tuple[int, int],
    part: int,
    parts: int,
    grown: float = 1.0,
) -> int:
    """One from part 0, 1, … of so many, all of one width on a log scale.

    With one from each part an iteration always sees long trials. `grown` is the share of the range,
    on the same scale, that is in use so far.
    """
    low, high = bounds
    ratio = ((high + 1) / low) ** grown
    return min(high, int(low * ratio ** ((part + rng.random()) / parts)))
