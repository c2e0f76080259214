"""Posterior sampling for reinforcement learning, and its optimistic variant. Numpy only.

Sources: Strens (2000) and Osband, Russo & Van Roy (2013) for PSRL; Osband & Van Roy (2017) for the
optimistic one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.baselines_mdps.algorithm import Algorithm, each_episode
from training.baselines_mdps.history import History
from training.tasks.mdps import EPISODE_STEPS
from training.tasks.value_iteration import value_iteration

OPSRL_SAMPLES = 10
"""MDPs that OPSRL draws an episode."""


def psrl(prior_mean: float = 0.0) -> Algorithm:
    """PSRL: every episode, the optimal policy of one MDP drawn from the posterior.

    Priors: N(prior_mean, 1) mean rewards, flat Dirichlet transitions. Duan et al. (2016) ran it
    with a prior mean of 0, where the family's is 1.
    """
    return opsrl(prior_mean, samples=1)


def opsrl(prior_mean: float = 0.0, samples: int = OPSRL_SAMPLES) -> Algorithm:
    """Optimistic PSRL: acts on the largest Q, entry by entry, of several MDPs drawn."""

    def plan(history: History, rng: np.random.Generator) -> NDArray[np.float64]:
        highest = _drawn_plan(history, rng, prior_mean)
        for _ in range(samples - 1):
            np.maximum(highest, _drawn_plan(history, rng, prior_mean), out=highest)
        return highest

    return each_episode(plan)


def _drawn_plan(
    history: History, rng: np.random.Generator, prior_mean: float
) -> NDArray[np.float64]:
    """Q `[10, B, S, A]` of one MDP a trial, drawn from its posterior."""
    deviation = 1.0 / np.sqrt(1.0 + history.visits)
    rewards = rng.normal(history.mean_rewards(prior_mean), deviation)
    transitions = rng.standard_gamma(history.moves + 1.0)
    transitions /= transitions.sum(axis=-1, keepdims=True)
    return value_iteration(rewards, transitions, EPISODE_STEPS)
