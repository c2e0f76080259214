"""A ridge regression of the reward, for doubly robust estimates. It never sees the account that it
predicts: it is fitted on the other accounts (cross-fitting, Chernozhukov et al. 2018).

It need not be right. Where it is, estimates vary less; where it is not, they are still unbiased.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.ledger_records import Decisions
from training.logged_policy import Past

Array = NDArray[Any]

FOLDS = 5
PENALTIES = (1.0, 10.0, 100.0, 1_000.0)
"""In decisions: how many it takes to believe a coefficient half."""
_WIDEST = 2_000
"""Coefficients beyond which an action has a level of its own alone."""
_SHRINK = 2.0
"""Pulls after which a past mean counts half."""
_ROWS_AT_ONCE = 4_096


def predictions(
    decisions: Decisions, past: Past, scored: Array, rng: np.random.Generator
) -> NDArray[np.float64]:
    """What each action would earn, `[N', K]`, raw, of the decisions `scored` `[N']`.

    Linear in the context and in what the account has earned, for all actions together and for each
    on its own, and in what the account has earned by that very action. The penalty is chosen on
    accounts held out of what it was fitted on.
    """
    design = _Design(decisions, past, scored)
    fold = rng.permuted(np.arange(decisions.account.max() + 1) % FOLDS)[design.account]
    reward = decisions.reward[scored]
    origin = reward.mean()
    grams = [design.gram(np.flatnonzero(fold == k), reward - origin) for k in range(FOLDS)]
    whole = tuple(sum(parts) for parts in zip(*grams, strict=True))
    losses = np.zeros(len(PENALTIES))
    for k in range(FOLDS):
        own, check = grams[k], grams[(k + 1) % FOLDS]
        left = [whole[i] - own[i] - check[i] for i in range(2)]
        for i, penalty in enumerate(PENALTIES):
            found = _solve(left[0], left[1], penalty)
            losses[i] += found @ check[0] @ found - 2.0 * found @ check[1]
    penalty = PENALTIES[int(losses.argmin())]
    predicted = np.empty((len(scored), decisions.mask.shape[1]))
    for k in range(FOLDS):
        rows = np.flatnonzero(fold == k)
        found = _solve(whole[0] - grams[k][0], whole[1] - grams[k][1], penalty)
        predicted[rows] = origin + design.of_every_action(rows, found)
    return predicted


class _Design:
    """What the model is linear in: of a decision, of a decision and its action."""

    def __init__(self, decisions: Decisions, past: Past, scored: Array) -> None:
        self.account = decisions.account[scored]
        self._action = decisions.action[scored]
        K = self._actions = decisions.mask.shape[1]
        total, count = past.total[scored, None], past.number[scored, None]
        one = np.ones_like(total)
        known = [one, decisions.context[scored], total / (count + _SHRINK)]
        known.append(count / (count + 10.0))
        self._common = np.concatenate(known, 1).astype(np.float64)
        D = self._common.shape[1]
        self._each = self._common if (K + 1) * D <= _WIDEST else self._common[:, :1]
        count_of = past.number_of[scored]
        self._mean_of = past.total_of[scored] / (count_of + _SHRINK)
        self._share_of = count_of / (count_of + _SHRINK)

    def gram(self, rows: Array, reward: Array) -> tuple[Array, Array]:
        """ΦᵀΦ and Φᵀr of these rows."""
        D, E = self._common.shape[1], self._each.shape[1]
        width = D + E * self._actions + 2
        square, moment = np.zeros((width, width)), np.zeros(width)
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            at = rows[start : start + _ROWS_AT_ONCE]
            served = self._action[at]
            design = np.zeros((len(at), width))
            design[:, :D] = self._common[at]
            columns = D + served[:, None] * E + np.arange(E)
            np.put_along_axis(design, columns, self._each[at], 1)
            design[:, -2] = self._mean_of[at, served]
            design[:, -1] = self._share_of[at, served]
            square += design.T @ design
            moment += design.T @ reward[at]
        return square, moment

    def of_every_action(self, rows: Array, found: Array) -> Array:
        """What coefficients say of each action, `[N', K]`."""
        D, E = self._common.shape[1], self._each.shape[1]
        own = found[D:-2].reshape(self._actions, E)
        level = (self._common[rows] @ found[:D])[:, None] + self._each[rows] @ own.T
        levels: Array = level + found[-2] * self._mean_of[rows] + found[-1] * self._share_of[rows]
        return levels


def _solve(square: Array, moment: Array, penalty: float) -> Array:
    return np.linalg.solve(square + penalty * np.eye(len(square)), moment)
