"""Players that never seek what they do not know: any action, greedy, ε-greedy. Numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.baselines_mdps.algorithm import Algorithm, each_episode
from training.baselines_mdps.history import Actions, History
from training.tasks.mdps import ACTIONS, EPISODE_STEPS
from training.tasks.value_iteration import value_iteration

EPSILON = 0.1
"""The best of 0.05, 0.1 and 0.2 at n = 50 and n = 100 (`python -m training.compare_mdps tune`)."""


def uniform(history: History, rng: np.random.Generator) -> Actions:
    """Any action, equally likely."""
    return rng.integers(ACTIONS, size=history.state.size)


def greedy(prior_mean: float | None = None) -> Algorithm:
    """Plans every episode in the MDP of the means seen so far, where the unseen pays 0.

    With a `prior_mean`, in the posterior-mean MDP under N(prior_mean, 1) mean rewards and flat
    Dirichlet transitions.
    """

    def plan(history: History, rng: np.random.Generator) -> NDArray[np.float64]:
        if prior_mean is None:
            return value_iteration(*history.empirical(), EPISODE_STEPS)
        rewards = history.mean_rewards(prior_mean)
        return value_iteration(rewards, history.transitions, EPISODE_STEPS)

    return each_episode(plan)


def epsilon_greedy(epsilon: float = EPSILON, prior_mean: float | None = None) -> Algorithm:
    """`greedy`, but any action with probability ε at every step."""
    planned = greedy(prior_mean)

    def choose(history: History, rng: np.random.Generator) -> Actions:
        straying = rng.random(history.state.size) < epsilon
        return np.where(straying, uniform(history, rng), planned(history, rng))

    return choose
