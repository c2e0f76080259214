"""Bandit algorithms under the field's names, over B accounts at once. Numpy only: never torch.

An algorithm is one function of what an account has seen, `choose(history, rng)` → actions `[B]`.
None knows what an arm is: label 1 is label 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from training.baselines.history import Actions, Algorithm, History, any_arm, largest
from training.baselines.posteriors import FLAT, BetaBelief, Posterior

Array = NDArray[Any]

UCB1_EXPLORATION = 0.2
"""The c that serves `ucb1` best, of 0.1, 0.15, 0.2, 0.25, 0.3 and 1, on Bernoulli bandits with
n = 100 and k = 5 or 10 (tests/training/test_baselines.py compares them): an opponent tuned on the
task, as in the tables of Duan et al. (2016)."""

OTS_SAMPLES = 16
"""Of 1, 2, 4 … 64, what reproduces the table of Duan et al. (2016), who do not say their number."""

EPSILON = 0.02
"""How often `epsilon_greedy` explores: of 0, 0.01, 0.02, 0.03, 0.05 and 0.08 none earns 0.2 more at
n = 100 with k = 5, 10 or 50. At n = 500 more would pay: 0.05 earns 1 to 4 above it."""


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


def ucb1(c: float = UCB1_EXPLORATION, belief: Posterior = FLAT) -> Algorithm:
    """UCB1 (Auer, Cesa-Bianchi & Fischer 2002) in the tuned form of Duan et al. (2016).

    Pulls the arm with the largest mean + c · sqrt(2 ln t / pulls), every arm's statistics starting
    at one success and one failure; ties break at random. At n = 100, k = 5 it earns 78.4 over the
    10,000 trials of `acclimate evaluate bandits --n 100 --k 5 --trials 10000 --seed 7`
    (2026-11-22); the paper's table has 78.0 over 1,000.
    """

    def choose(history: History, rng: np.random.Generator) -> Actions:
        pulls = belief.observations(history)
        bonus = c * np.sqrt(2 * np.log(history.decisions + 1) / pulls)
        return largest(belief.mean(history) + bonus, rng)

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
    return posterior_sampling(BetaBelief(np.asarray(alpha), np.asarray(beta)))


def posterior_sampling(belief: Posterior) -> Algorithm:
    """Thompson sampling (Thompson 1933): each arm as likely as it is the best one."""

    def choose(history: History, rng: np.random.Generator) -> Actions:
        actions: Actions = belief.draw(history, rng).argmax(axis=1)
        return actions

    return choose


def optimistic_thompson(samples: int = OTS_SAMPLES, belief: Posterior = FLAT) -> Algorithm:
    """OTS, the optimistic Thompson sampling of Duan et al. (2016), after May et al. (2012).

    Of several draws of all arms' means it trusts the one of the highest posterior density, and so
    explores less than Thompson sampling does. It costs as many draws.
    """

    def choose(history: History, rng: np.random.Generator) -> Actions:
        likeliest = belief.draw(history, rng)
        highest = belief.log_density(likeliest, history).sum(axis=1)
        for _ in range(samples - 1):
            drawn = belief.draw(history, rng)
            density = belief.log_density(drawn, history).sum(axis=1)
            higher = density > highest
            likeliest[higher], highest[higher] = drawn[higher], density[higher]
        actions: Actions = likeliest.argmax(axis=1)
        return actions

    return choose


def epsilon_greedy(epsilon: float = EPSILON, belief: Posterior = FLAT) -> Algorithm:
    """Any arm with probability epsilon, else `greedy`'s (Sutton & Barto 1998; Duan et al. 2016)."""

    best = greedy(belief)

    def choose(history: History, rng: np.random.Generator) -> Actions:
        explores = rng.random(history.pulls.shape[0]) < epsilon
        return np.where(explores, any_arm(history, rng), best(history, rng))

    return choose


def greedy(belief: Posterior = FLAT) -> Algorithm:
    """The arm of the largest posterior mean: with FLAT, one success and one failure to begin with.

    Equal means go to the lowest label, and so to arms known rather than to new ones. That is what
    reproduces the table of Duan et al. (2016); ties broken at random earn up to 3 % more where arms
    are many, by trying more of them.
    """

    def choose(history: History, rng: np.random.Generator) -> Actions:
        actions: Actions = belief.mean(history).argmax(axis=1)
        return actions

    return choose


def forgetting(algorithm: Algorithm, discount: float) -> Algorithm:
    """The algorithm on counts that fade by `discount` at every interaction (Garivier & Moulines
    2011; Raj & Kalyani 2017), for arms that drift. It holds the counts of one batch of trials."""

    seen = History.blank(0, 0)
    faded = History.blank(0, 0)

    def choose(history: History, rng: np.random.Generator) -> Actions:
        nonlocal seen, faded
        if history.position == 0:
            seen = History.blank(*history.pulls.shape)
            faded = History.blank(*history.pulls.shape)
        fade = discount ** (history.position - seen.position)
        faded.pulls = fade * faded.pulls + (history.pulls - seen.pulls)
        faded.rewards = fade * faded.rewards + (history.rewards - seen.rewards)
        seen.pulls, seen.rewards = history.pulls.copy(), history.rewards.copy()
        seen.position = faded.position = history.position
        faded.decisions = history.decisions
        return algorithm(faded, rng)

    return choose
