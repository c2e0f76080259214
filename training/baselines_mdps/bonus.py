"""Players that add to the posterior means a bonus for the unknown, and plan. Numpy only.

BEB (Kolter & Ng 2009), and the mean + bonus planner, which replans at every step, fades its bonus
with the episodes left, and serves as a teacher.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.baselines_mdps.algorithm import Algorithm, each_episode, largest, own
from training.baselines_mdps.history import TRUE_PRIOR_MEAN, Actions, History
from training.tasks.mdps import EPISODE_STEPS, STATES
from training.tasks.value_iteration import value_iteration

BETA = 25.0
"""The β that serves `beb` best over all n, of 10, 20, 25, 30, 40 and 60
(`python -m training.compare_mdps tune`)."""

PLANNER_C, PLANNER_G = 0.6, 0.25
"""One pair for every n: within 0.5 % of the best that was tried at each of n = 10, 25, 50, 75 and
100 (`python -m training.compare_mdps tune`)."""


def beb(
    beta: float = BETA, prior_mean: float = 0.0, transitions_prior_counts: bool = True
) -> Algorithm:
    """Bayesian exploration bonus: plans every episode with β / (1 + N) on top of the means.

    In Kolter & Ng (2009) N is the sum of the transitions' Dirichlet parameters, which counts the
    flat prior's S as well as the visits, and so in the table of Duan et al. (2016). Without the
    prior's share the bonus fades from the first visit on, which is much the better here.
    """
    prior = STATES if transitions_prior_counts else 0

    def plan(history: History, rng: np.random.Generator) -> NDArray[np.float64]:
        bonus = beta / (1.0 + prior + history.visits)
        rewards = history.mean_rewards(prior_mean) + bonus
        return value_iteration(rewards, history.transitions, EPISODE_STEPS)

    return each_episode(plan)


def planner_values(
    history: History, c: float = PLANNER_C, g: float = PLANNER_G
) -> NDArray[np.float64]:
    """The planner's Q in each trial's own state, `[B, A]`: what a teacher teaches.

    Posterior-mean rewards plus c · ρ^g / √(1 + visits), ρ the episodes left with the running one;
    posterior-mean transitions; backward induction to the end of the episode.
    """
    bonus = c * history.episodes_left**g / np.sqrt(1.0 + history.visits)
    rewards = history.mean_rewards(TRUE_PRIOR_MEAN) + bonus
    steps = EPISODE_STEPS - history.episode_step
    return own(value_iteration(rewards, history.transitions, steps)[0], history)


def planner(c: float = PLANNER_C, g: float = PLANNER_G) -> Algorithm:
    """Takes the action of the largest `planner_values`."""

    def choose(history: History, rng: np.random.Generator) -> Actions:
        return largest(planner_values(history, c, g), rng)

    return choose
