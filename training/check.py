"""The fixed trials that a run is watched on: never trained on, the same at every look.

Numpy only. A thousand drawn tasks are luckier or unluckier than the family they come from, so what
is shown is always corrected by `luck`.
"""

from __future__ import annotations

import numpy as np

from training.tasks.bandits import BernoulliBandits

PULLS = 100
TRIALS = 1_000

_ARMS = 5
_SEED = 20_161_109


def arms_played(action_range: tuple[int, int]) -> int:
    """How many arms the trials have: 5, or as near as the policy allows."""
    low, high = action_range
    return min(max(_ARMS, low), high)


def fixed_trials(action_range: tuple[int, int]) -> tuple[BernoulliBandits, np.random.Generator]:
    """The trials, and the generator to play them with; the same at every call."""
    rng = np.random.default_rng(_SEED)
    return BernoulliBandits(TRIALS, arms_played(action_range), PULLS, rng), rng


def luck(action_range: tuple[int, int]) -> float:
    """What always pulling the best arm earns here above what it earns on average, k / (k + 1)."""
    bandits, _ = fixed_trials(action_range)
    bandits.reset()
    k = arms_played(action_range)
    return float(PULLS * (bandits.means.max(1).mean() - k / (k + 1)))
