"""river's LinUCBDisjoint on each account alone. It needs the extra `peers`, and it is slow."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.peers.missing import need
from training.peers.player import Actions, Terms

Array = NDArray[Any]


class RiverLinUCB:
    """One of river's policies for each account. Rewards are shares of their range less `centre`.

    `alpha` is the prior's precision and `beta` the noise's, in river's words; a bound is the mean
    plus one deviation of the predicted reward.
    """

    def __init__(self, terms: Terms, *, alpha: float, beta: float, centre: float = 0.0) -> None:
        self._terms, self._centre = terms, centre
        bandit = need("river.bandit", "river_linucb")
        self._policies = [
            bandit.LinUCBDisjoint(alpha=alpha, beta=beta, seed=int(seed))
            for seed in terms.rng.integers(2**31, size=terms.accounts)
        ]

    def choose(self, context: Array, mask: Array) -> Actions:
        """An action for each account, `[B]`."""
        return np.array(
            [
                policy.pull(np.flatnonzero(mask[account]).tolist(), _named(context[account]))
                for account, policy in enumerate(self._policies)
            ],
            np.int64,
        )

    def learn(
        self, accounts: Array, context: Array, action: Array, reward: Array, done: Array
    ) -> None:
        """One interaction more in each of these accounts."""
        earned = self._terms.unit(reward) - self._centre
        for i, account in enumerate(accounts):
            policy = self._policies[account]
            policy.update(int(action[i]), _named(context[i]), float(earned[i]))


def _named(context: Array) -> dict[int, float]:
    """Slots by number, the bias last."""
    named = dict(enumerate(context.tolist()))
    named[len(named)] = 1.0
    return named
