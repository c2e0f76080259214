"""The fixed trials that a run is watched on: never trained on, the same at every look.

Numpy only. A thousand drawn tasks are luckier or unluckier than the family they come from, so what
is shown is always corrected by their luck.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from training.baselines import History, gittins_rule
from training.tasks.bandits import BernoulliBandits
from training.tasks.mdps import EPISODE_STEPS, TabularMDPs
from training.tasks.task import Task
from training.tasks.value_iteration import value_iteration

_SEED = 20_161_109


@dataclass(frozen=True)
class Look:
    """Fixed trials with a name, such as `n=100, k=5`."""

    name: str
    draw: Callable[[], tuple[Task, np.random.Generator]]
    """The trials, and the generator to play them with; the same at every call."""
    luck: float
    """What a known player earns on them above what it earns on average."""
    reference: tuple[str, float] | None = None
    """Who earns how much on average, to compare with."""


_CELLS = (
    (100, 5, 1_000, 78.58),
    (10, 10, 1_000, 6.713),
    (100, 50, 200, 85.59),
    (500, 10, 100, 442.1),
    (500, 50, 100, 464.97),
)
"""(n, k, trials, what finite-horizon Gittins earns)."""


def bandit_looks(action_range: tuple[int, int]) -> list[Look]:
    """The cells that the policy has the actions for, or one as near as it allows."""
    low, high = action_range
    cells = [cell for cell in _CELLS if low <= cell[1] <= high]
    if cells:
        return [_beside_gittins(*cell) for cell in cells]
    n, k, trials, _ = _CELLS[0]
    return [_beside_the_best(n, min(max(k, low), high), trials)]


@cache
def _beside_gittins(n: int, k: int, trials: int, mean: float) -> Look:
    """Luck is what Gittins earns on these very trials above its mean: most of a policy's own."""
    draw = _drawn(n, k, trials)
    bandits, rng = draw()
    rule, history, earned = gittins_rule(n), History.blank(trials, k), 0.0
    bandits.reset()
    for _ in range(n):
        actions = rule(history, rng)
        earned += bandits.expected(actions).mean()
        history.observe(actions, bandits.step(actions)[1])
    return Look(f"n={n}, k={k}", draw, float(earned) - mean, ("Gittins", mean))


@cache
def _beside_the_best(n: int, k: int, trials: int) -> Look:
    """Luck is what the best arms pay above k / (k + 1)."""
    draw = _drawn(n, k, trials)
    bandits, _ = draw()
    bandits.reset()
    return Look(f"n={n}, k={k}", draw, float(n * (bandits.bounds()[1].mean() - k / (k + 1))))


def _drawn(n: int, k: int, trials: int) -> Callable[[], tuple[Task, np.random.Generator]]:
    def draw() -> tuple[Task, np.random.Generator]:
        rng = np.random.default_rng(_SEED)
        return BernoulliBandits(trials, k, n, rng), rng

    return draw


_MDPS = ((25, 120, 461.9), (10, 200, 162.7), (100, 30, 2045.0))
"""(episodes, trials, what the mean + bonus planner earns)."""
_OPTIMUM = 21.835
"""What the optimal policy of a known MDP earns an episode, on average over the family."""


def mdp_looks() -> list[Look]:
    """Trials of three lengths beside the planner; luck is what knowing these MDPs would pay."""
    return [_mdp_look(n, trials, mean) for n, trials, mean in _MDPS]


def _mdp_look(n: int, trials: int, mean: float) -> Look:
    def draw() -> tuple[TabularMDPs, np.random.Generator]:
        rng = np.random.default_rng(_SEED)
        return TabularMDPs(trials, n, rng), rng

    mdps, _ = draw()
    mdps.reset()
    optimum = value_iteration(mdps.means, mdps.transitions, EPISODE_STEPS)[0, :, 0].max(-1)
    luck = n * (float(optimum.mean()) - _OPTIMUM)
    return Look(f"n={n} episodes", draw, luck, ("planner", mean))
