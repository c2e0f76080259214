"""What bandit accounts have seen, what an algorithm is, and how one is played. Numpy only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Actions = NDArray[np.int64]


@dataclass
class History:
    """What B accounts have been fed back."""

    pulls: Array
    """How often each arm was pulled, `[B, K]`."""
    rewards: Array
    """Sum of the rewards of each arm, `[B, K]`."""
    last_action: Actions
    """`[B]`; means nothing at position 0."""
    last_reward: Array
    """`[B]`."""
    position: int = 0
    """Interactions fed back so far, the same for every account."""
    decisions: int = 0
    """Decisions made so far: more than `position` where feedback is on its way."""
    log: list[tuple[Actions, Array]] = field(default_factory=list)
    """Actions `[B]` and rewards `[B]` of every interaction fed back, oldest first."""

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
        self.log.append((self.last_action, self.last_reward))
        self.position += 1
        self.decisions = max(self.decisions, self.position)


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


def any_arm(history: History, rng: np.random.Generator) -> Actions:
    """Any arm of each account, equally likely, `[B]`."""
    batch, k = history.pulls.shape
    return rng.integers(k, size=(batch,))


def largest(scores: Array, rng: np.random.Generator) -> Actions:
    """The index of each row's largest score, `[B, K]` → `[B]`, ties broken at random."""
    tie_break = rng.random(scores.shape)
    best = scores == scores.max(axis=1, keepdims=True)
    actions: Actions = np.where(best, tie_break, -1.0).argmax(axis=1)
    return actions
