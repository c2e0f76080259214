"""Bandit algorithms under the field's names, over B accounts at once. Numpy only: never torch.

An algorithm is one function of what an account has seen, `choose(history, rng)` → actions `[B]`;
`play` runs one over known outcomes. No algorithm knows what an arm is: label 1 is label 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]
Actions = NDArray[np.int64]

UCB1_EXPLORATION = 0.2
"""The c that serves `ucb1` best, of 0.1, 0.15, 0.2, 0.25, 0.3 and 1, on Bernoulli bandits with
n = 100 and k = 5 or 10 (tests/training/test_baselines.py compares them): an opponent tuned on the
task, as in the tables of Duan et al. (2016)."""


@dataclass
class History:
    """What B accounts have seen. Rewards are in [0, 1]."""

    pulls: Array
    """How often each arm was pulled, `[B, K]`."""
    rewards: Array
    """Sum of the rewards of each arm, `[B, K]`."""
    last_action: Actions
    """`[B]`; means nothing at position 0."""
    last_reward: Array
    """`[B]`."""
    position: int = 0
    """Interactions so far, the same for every account."""

    @classmethod
    def blank(cls, batch: int, k: int) -> History:
        """B accounts that have seen nothing."""
        return cls(
            pulls=np.zeros((batch, k)),
            rewards=np.zeros((batch, k)),
            last_action=np.zeros(batch, np.int64),
            last_reward=np.zeros(batch),
        )

    def observe(self, actions: Actions, rewards: Array) -> None:
        """One interaction more in every account: actions `[B]`, rewards `[B]`."""
        rows = np.arange(actions.size)
        self.pulls[rows, actions] += 1
        self.rewards[rows, actions] += rewards
        self.last_action, self.last_reward = actions, np.asarray(rewards, np.float64)
        self.position += 1


class Algorithm(Protocol):
    """A bandit algorithm."""

    def __call__(self, history: History, rng: np.random.Generator) -> Actions:
        """The next action of each account, `[B]`."""
        ...


def play(algorithm: Algorithm, outcomes: Array, rng: np.random.Generator) -> NDArray[np.float64]:
    """The rewards `[T, B]` that an algorithm earns where `outcomes` `[T, B, K]` are known.

    Only the outcome of the arm pulled is shown to it.
    """
    steps, batch, k = outcomes.shape
    history = History.blank(batch, k)
    rows = np.arange(batch)
    earned = np.empty((steps, batch))
    for t in range(steps):
        actions = algorithm(history, rng)
        earned[t] = outcomes[t, rows, actions]
        history.observe(actions, earned[t])
    return earned


def uniform(history: History, rng: np.random.Generator) -> Actions:
    """Any arm, equally likely."""
    return _any_arm(history, rng)


def win_stay(history: History, rng: np.random.Generator) -> Actions:
    """Win-stay, lose-shift (Robbins 1952), for any number of arms.

    Keeps the arm after a win (a reward above 1/2), moves to one of the others, equally likely,
    after a loss, and starts anywhere.
    """
    batch, k = history.pulls.shape
    if history.position == 0:
        return _any_arm(history, rng)
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
        return _largest(mean + c * np.sqrt(2 * np.log(history.position + 1) / pulls), rng)

    return choose


def ucb1_classic(history: History, rng: np.random.Generator) -> Actions:
    """UCB1 as published (Auer et al. 2002), nothing tuned: every arm once, then c = 1, no prior.

    The one to expect of somebody who tunes nothing; over 10 below `ucb1` at n = 100, k = 5.
    """
    pulls = np.maximum(history.pulls, 1)
    bound = history.rewards / pulls + np.sqrt(2 * np.log(max(history.position, 1)) / pulls)
    return _largest(np.where(history.pulls == 0, np.inf, bound), rng)


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


def _any_arm(history: History, rng: np.random.Generator) -> Actions:
    batch, k = history.pulls.shape
    return rng.integers(k, size=(batch,))


def _largest(scores: Array, rng: np.random.Generator) -> Actions:
    """The index of each row's largest score, ties broken at random."""
    tie_break = rng.random(scores.shape)
    largest = scores == scores.max(axis=1, keepdims=True)
    actions: Actions = np.where(largest, tie_break, -1.0).argmax(axis=1)
    return actions
