"""Bandit algorithms under the field's names, over B accounts at once. Numpy only: never torch.

An algorithm is one function of what an account has seen, `choose(history, rng)` → actions `[B]`.
None knows what an arm is: label 1 is label 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from training.baselines.history import Actions, Algorithm, History, any_arm, largest

Array = NDArray[Any]

UCB1_EXPLORATION = 0.2
"""The c that serves `ucb1` best, of 0.1, 0.15, 0.2, 0.25, 0.3 and 1, on Bernoulli bandits with
n = 100 and k = 5 or 10 (tests/training/test_baselines.py compares them): an opponent tuned on the
task, as in the tables of Duan et al. (2016)."""


def uniform(history: History, rng: np.random.Generator) -> Actions:
    """Any arm, equally likely."""
    return any_arm(history, rng)


def win_stay(history: History, rng: np.random.Generator) -> Actions:
    """Win-stay, lose-shift (Robbins 1952), for any number of arms.

    Keeps the arm after a win (a reward above 1/2), moves to one of the others, equally likely,
    after a loss, and starts anywhere.
    """
    batch, k = history.pulls.shape
    if history.position == 0:
        return any_arm(history, rng)
    other = (history.last_action + rng.integers(1, k, size=batch)) % k
    return np.where(history.last_reward > 0.5, history.last_action, other)


def fixed(arms: ArrayLike) -> Algorithm:
    """Always the same arm: one for all accounts, or `[B]`, one each."""

    def choose(history: History, rng: np.random.Generator) -> Actions:
        return np.broadcast_to(np.asarray(arms, np.int64), history.pulls.shape[:1])

    return choose


def ucb1(c: float = UCB1_EXPLORATION) -> Algorithm:
    """UCB1 (Auer, Cesa-Bianchi & Fischer 2002) in the tuned form of Duan et al. (2016).

    Pulls the arm with the largest mean + c · sqrt(2 ln t / pulls), every arm's statistics starting
    at one success and one failure; ties break at random. At n = 100, k = 5 it earns 78.4 over the
    10,000 trials of `acclimate evaluate bandits --n 100 --k 5 --trials 10000 --seed 7`
    (2026-11-22); the paper's table has 78.0 over 1,000.
    """

    def choose(history: History, rng: np.random.Generator) -> Actions:
        pulls = history.pulls + 2
        mean = (history.rewards + 1) / pulls
        return largest(mean + c * np.sqrt(2 * np.log(history.position + 1) / pulls), rng)

    return choose


def ucb1_classic(history: History, rng: np.random.Generator) -> Actions:
    """UCB1 as published (Auer et al. 2002), nothing tuned: every arm once, then c = 1, no prior.

    The one to expect of somebody who tunes nothing; over 10 below `ucb1` at n = 100, k = 5.
    """
    pulls = np.maximum(history.pulls, 1)
    bound = history.rewards / pulls + np.sqrt(2 * np.log(max(history.position, 1)) / pulls)
    return largest(np.where(history.pulls == 0, np.inf, bound), rng)


def thompson(alpha: ArrayLike = 1.0, beta: ArrayLike = 1.0) -> Algorithm:
    """Thompson sampling (Thompson 1933) of a Bernoulli reward under Beta(alpha, beta) priors.

    The prior is one for all arms, or `[B, K]`. Beta(1, 1), the default, is the flat prior.
    """

    prior_wins, prior_losses = np.asarray(alpha, np.float64), np.asarray(beta, np.float64)

    def choose(history: History, rng: np.random.Generator) -> Actions:
        wins = history.rewards + prior_wins
        losses = history.pulls - history.rewards + prior_losses
        actions: Actions = rng.beta(wins, losses).argmax(axis=1)
        return actions

    return choose
