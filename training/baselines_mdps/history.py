"""What B trials on tabular MDPs have seen, and their posterior. Numpy only: never torch.

It must never hold what a policy is not shown: the state that an episode's last step led to is
unknown to every player, so no move is counted there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.tasks.mdps import ACTIONS, EPISODE_STEPS, STATES

Array = NDArray[Any]
Actions = NDArray[np.int64]

TRUE_PRIOR_MEAN = 1.0
"""The mean of the mean rewards in the family."""


@dataclass
class History:
    """Counts of B trials of n episodes each; the transitions' prior is a flat Dirichlet."""

    n: int
    visits: Array
    """How often each action was taken in each state, `[B, S, A]`."""
    rewards: Array
    """Sum of the rewards seen there, `[B, S, A]`."""
    moves: Array
    """How often that was seen to lead to each state, `[B, S, A, S]`."""
    transitions: Array
    """Posterior mean of the transitions, (moves + 1) / (their sum + S), `[B, S, A, S]`."""
    state: NDArray[np.int64]
    """Where the trials are, `[B]`."""
    position: int = 0
    """Steps so far, the same for every trial."""
    last: tuple[NDArray[np.int64], Actions, Array] | None = field(default=None, repr=False)
    """State, action and reward of the step before, each `[B]`."""

    @classmethod
    def blank(cls, batch: int, n: int) -> History:
        """B trials that have seen nothing, in state 0."""
        return cls(
            n=n,
            visits=np.zeros((batch, STATES, ACTIONS)),
            rewards=np.zeros((batch, STATES, ACTIONS)),
            moves=np.zeros((batch, STATES, ACTIONS, STATES)),
            transitions=np.full((batch, STATES, ACTIONS, STATES), 1.0 / STATES),
            state=np.zeros(batch, np.int64),
        )

    @property
    def episode_step(self) -> int:
        """Steps into the running episode."""
        return self.position % EPISODE_STEPS

    @property
    def episodes_left(self) -> int:
        """Episodes not yet over, the running one among them."""
        return self.n - self.position // EPISODE_STEPS

    def observe(self, actions: Actions, rewards: Array, state: NDArray[np.int64]) -> None:
        """One step more in every trial: what was done, what it paid, the state now; each `[B]`."""
        rows = np.arange(actions.size)
        at = (rows, self.state, actions)
        self.visits[at] += 1
        self.rewards[at] += rewards
        if self.episode_step < EPISODE_STEPS - 1:
            self.moves[(*at, state)] += 1
            seen = self.moves[at] + 1.0
            self.transitions[at] = seen / seen.sum(axis=-1, keepdims=True)
        self.last = (self.state, actions, np.asarray(rewards, np.float64))
        self.state = state
        self.position += 1

    def empirical(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Means without a prior: rewards `[B, S, A]` and transitions `[B, S, A, S]`.

        What was never tried pays 0, and what was never seen to lead anywhere leads to every state
        equally often.
        """
        rewards = self.rewards / np.maximum(self.visits, 1.0)
        moved = self.moves.sum(axis=-1, keepdims=True)
        transitions = np.where(moved > 0, self.moves / np.maximum(moved, 1.0), 1.0 / STATES)
        return rewards, transitions

    def mean_rewards(self, prior_mean: float = TRUE_PRIOR_MEAN) -> NDArray[np.float64]:
        """Posterior mean of each mean reward under a N(prior_mean, 1) prior, `[B, S, A]`."""
        mean: NDArray[np.float64] = (prior_mean + self.rewards) / (1.0 + self.visits)
        return mean
