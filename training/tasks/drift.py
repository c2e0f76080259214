"""How arm means move within a trial, B trials at once. Numpy only; it must never look at a player.

- `change-points`: now and then all means of a trial are drawn anew (Garivier & Moulines 2011);
- `slow`: every mean takes a small step at every pull and stays distributed as it was drawn, the
  restless bandits of Slivkins & Upfal (2008).

How often or how fast is drawn for each trial, and no player is told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

Drift = Literal["none", "change-points", "slow"]

DRIFTS: tuple[str, ...] = get_args(Drift)

CHANGE_PROBABILITY = (0.002, 0.05)
"""Range of the probability of a change-point at a pull."""

PACE = (0.01, 0.1)
"""Range of the slow drift's step at a pull, in standard deviations of a mean over the family."""

Draw = Callable[[np.random.Generator, int], Array]
"""Draws the means of so many trials, `[count, K]`."""


def log_uniform(
    rng: np.random.Generator, bounds: tuple[float, float], count: int
) -> NDArray[np.float64]:
    """`count` numbers, log-uniform between the bounds."""
    low, high = np.log(bounds)
    drawn: NDArray[np.float64] = np.exp(rng.uniform(low, high, count))
    return drawn


def draw_rates(drift: Drift, rng: np.random.Generator, trials: int) -> NDArray[np.float64]:
    """How often, or how fast, the means of each trial move, `[B]`; nothing drawn for `none`."""
    match drift:
        case "none":
            return np.zeros(trials)
        case "change-points":
            return log_uniform(rng, CHANGE_PROBABILITY, trials)
        case "slow":
            return log_uniform(rng, PACE, trials)


def change_points(means: Array, rates: Array, draw: Draw, rng: np.random.Generator) -> Array:
    """Means `[B, K]` at the next pull: redrawn in the trials that a change-point hit."""
    changed = np.flatnonzero(rng.random(len(means)) < rates)
    after: Array = means.copy()
    after[changed] = draw(rng, changed.size)
    return after


def reflected_walk(means: Array, rates: Array, rng: np.random.Generator) -> Array:
    """Means `[B, K]` in [0, 1] a step later; uniform(0, 1) stays uniform(0, 1).

    The standard deviation of uniform(0, 1) is 1/√12.
    """
    moved = means + rates[:, None] / np.sqrt(12.0) * rng.standard_normal(means.shape)
    folded = np.abs(moved) % 2.0
    reflected: Array = np.minimum(folded, 2.0 - folded)
    return reflected


def autoregression(means: Array, rates: Array, rng: np.random.Generator) -> Array:
    """Means `[B, K]` a step later; N(0, 1) stays N(0, 1)."""
    pace = rates[:, None]
    moved: Array = np.sqrt(1.0 - pace**2) * means + pace * rng.standard_normal(means.shape)
    return moved
