"""Players that learn nothing: any action, one action, the workflow's own fallback, the oracle.

Only the oracle is told what a simulator knows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from guardrails.fallback import Fallback
from training.peers.player import Actions, best_allowed
from training.tasks.workflows import Accounts, raw_context

Array = NDArray[Any]


class _Unlearning:
    """It hears of feedback and forgets it."""

    def learn(
        self, accounts: Array, context: Array, action: Array, reward: Array, done: Array
    ) -> None:
        """Nothing."""


class AnyAction(_Unlearning):
    """Any allowed action, equally likely."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def choose(self, context: Array, mask: Array) -> Actions:
        """An action for each account, `[B]`."""
        return best_allowed(np.zeros(mask.shape), mask, self._rng)


class WorkflowFallback(_Unlearning):
    """The fallback that the workflow's YAML declares, as the guardrails serve it."""

    def __init__(self, accounts: Accounts, rows: slice) -> None:
        """It reads the raw context of the accounts in `rows`, as a rule does."""
        self._accounts = accounts
        self._rows = range(*rows.indices(accounts.num_envs))
        self._fallback = Fallback(accounts.spec)
        self._ruled = bool(accounts.spec.fallback.rules)

    def choose(self, context: Array, mask: Array) -> Actions:
        """An action for each account, `[B]`."""
        return self.choose_for(np.arange(len(mask)), mask)

    def choose_for(self, places: Array, mask: Array) -> Actions:
        """An action for each of these places among the rows, `[N]`; mask `[N, K]`."""
        columns = self._accounts.situation().columns if self._ruled else {}
        spec = self._accounts.spec
        chosen = (
            self._fallback.choose(
                raw_context(spec, columns, self._rows[place]) if self._ruled else {}, allowed
            )
            for place, allowed in zip(places, mask, strict=True)
        )
        return np.fromiter(chosen, np.int64, len(mask))


class FixedAction(_Unlearning):
    """Always the same action; the workflow's fallback where that one is not allowed."""

    def __init__(self, action: int, fallback: WorkflowFallback) -> None:
        self._action = action
        self._fallback = fallback

    def choose(self, context: Array, mask: Array) -> Actions:
        """An action for each account, `[B]`."""
        chosen = np.full(len(mask), self._action, np.int64)
        barred = np.flatnonzero(~mask[:, self._action])
        if barred.size:
            chosen[barred] = self._fallback.choose_for(barred, mask[barred])
        return chosen


class Oracle(_Unlearning):
    """What one who knows the latent parameters would choose."""

    def __init__(self, accounts: Accounts, rows: slice) -> None:
        self._accounts = accounts
        self._rows = rows

    def choose(self, context: Array, mask: Array) -> Actions:
        """An action for each account, `[B]`."""
        return self._accounts.situation().oracle[self._rows]
