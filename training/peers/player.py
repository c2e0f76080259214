"""What a player is: it chooses for B accounts at once and hears what came of it. It is told nothing
that a caller of the service could not know; only the oracle asks the simulator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from contract.encode import Float32, context_size, encode_action_features
from contract.spec import WorkflowSpec

Array = NDArray[Any]
Actions = NDArray[np.int64]


class Player(Protocol):
    """B accounts, numbered from 0, and whatever is remembered of them."""

    def choose(self, context: Array, mask: Array) -> Actions:
        """An allowed action for each account, `[B]`: context encoded, `[B, C]`, mask `[B, K]`."""
        ...

    def learn(
        self, accounts: Array, context: Array, action: Array, reward: Array, done: Array
    ) -> None:
        """One interaction more in each of N accounts, whose numbers `[N]` are ascending.

        context `[N, C]` as it was at the decision; action served, forced ones too; reward raw; done
        bool: whether the episode ended. Feedback of one account comes in the order of its arrival.
        """
        ...


@dataclass(frozen=True)
class Terms:
    """What every peer is told before its first decision."""

    accounts: int
    """B."""
    actions: int
    """K."""
    context: int
    """C: slots of the encoded context."""
    features: Float32
    """What the workflow says of its actions, `[K, F]`."""
    lowest: float
    highest: float
    """The range of the reward."""
    rng: np.random.Generator
    """For the player's own draws."""

    @classmethod
    def of(cls, spec: WorkflowSpec, accounts: int, rng: np.random.Generator) -> Terms:
        """The terms of a workflow."""
        features = encode_action_features(spec, len(spec.actions[0].features))
        return cls(
            accounts=accounts,
            actions=len(spec.actions),
            context=context_size(spec),
            features=features,
            lowest=spec.reward.min,
            highest=spec.reward.max,
            rng=rng,
        )

    def unit(self, reward: Array) -> NDArray[np.float64]:
        """Raw rewards as shares of their range."""
        return (np.asarray(reward, np.float64) - self.lowest) / (self.highest - self.lowest)


def with_bias(context: Array) -> Float32:
    """The context `[N, C]` and a one: what linear models see, `[N, C + 1]`."""
    seen = np.ones((len(context), context.shape[1] + 1), np.float32)
    seen[:, :-1] = context
    return seen


def best_allowed(scores: Array, mask: Array, rng: np.random.Generator) -> Actions:
    """The allowed action of the highest score, `[B, K]` → `[B]`, ties broken at random."""
    scores = np.where(mask, scores, -np.inf)
    tied = scores >= scores.max(axis=1, keepdims=True)
    best: Actions = np.where(tied, 1.0 + rng.random(scores.shape), 0.0).argmax(axis=1)
    return best
