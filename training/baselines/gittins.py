"""The finite-horizon Gittins index of a Bernoulli arm, as a table. Numpy only: never torch.

G(s, f, left) is the price per pull at which an arm with s successes and f failures, under a flat
prior Beta(1, 1), is just worth pulling at least once when `left` pulls are left and one may retire
for good after any of them (Bradt, Johnson & Karlin 1956; Gittins 1989, in the retirement form of
Whittle 1980). Pulling the arm of the largest index is optimal for a discounted endless trial and
within 0.1 % of the optimum for a finite one wherever that can be computed.

How: at a fixed price λ the value of having the option to pull is one backward sweep,
V(s, f, left) = max(0, p − λ + p V(s + 1, f, left − 1) + (1 − p) V(s, f + 1, left − 1)), with
p = (s + 1) / (s + f + 2). The sweep is made at a fixed grid of prices; where the term right of the
0 changes its sign between two of them lies the index, and the secant says where. That term is
convex in λ, so an index is never too low; it is 1e-4 too high on average and 1e-3 at most.

An entry depends on (s, f, left) alone, not on the table's horizon: a longer table serves shorter
trials with the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from training.baselines.cache import newest, store
from training.baselines.history import Algorithm, History, largest

Array = NDArray[Any]

LONGEST_HORIZON = 500
"""A table of this horizon has 21 million entries, 42 MB."""

PRICES = 256
"""Steps of the grid of prices from 0 to 1."""

_SCALE = np.iinfo(np.uint16).max
_VERSION = 1
"""Of the numbers and their order: raise it when either changes, and old files are not read."""


@dataclass(frozen=True)
class GittinsTable:
    """Indices for every trial of up to `horizon` pulls."""

    horizon: int
    entries: NDArray[np.uint16]
    """Flat: for each number of pulls m = 0 … horizon − 1 of an arm a block
    `[left = 1 … horizon − m, successes = 0 … m]`, indices scaled to 0 … 65535."""

    def index(self, successes: ArrayLike, failures: ArrayLike, left: ArrayLike) -> Array:
        """Indices in [0, 1], float32, of arms of the same broadcast shape `[...]`.

        `left` counts the pulls still to come in the trial, this one included. Counts and `left` are
        whole numbers with successes + failures + left ≤ horizon, left ≥ 1.
        """
        return self.ranks(successes, failures, left).astype(np.float32) / np.float32(_SCALE)

    def ranks(self, successes: ArrayLike, failures: ArrayLike, left: ArrayLike) -> Array:
        """The same as uint16: cheaper, and compared exactly."""
        won = np.asarray(successes).astype(np.int64)
        pulls = won + np.asarray(failures).astype(np.int64)
        still = np.asarray(left).astype(np.int64)
        if np.any(still < 1) or np.any(pulls + still > self.horizon):
            raise ValueError(
                f"left: expected 1 or more, and with an arm's pulls at most the table's "
                f"{self.horizon}, got {int(np.max(still))} with {int(np.max(pulls))} pulls"
            )
        if np.any(won < 0) or np.any(won > pulls):
            raise ValueError("successes, failures: expected counts of 0 or more")
        place = _block_starts(self.horizon)[pulls] + (still - 1) * (pulls + 1) + won
        return self.entries[place]

    def best_arms(self, successes: Array, failures: Array, left: ArrayLike) -> NDArray[np.bool_]:
        """Which arms have the largest index, counts `[B, K]`, left a number or `[B, 1]`: `[B, K]`.

        One or more a row: arms of equal counts are equally good.
        """
        ranks = self.ranks(successes, failures, left)
        best: NDArray[np.bool_] = ranks == ranks.max(axis=-1, keepdims=True)
        return best


def gittins_rule(n: int, table: GittinsTable | None = None) -> Algorithm:
    """Pulls an arm of the largest index in trials of n pulls, ties broken at random.

    It plays on the feedback that it has: pulls whose feedback is on its way count for nothing.
    """
    indices = table if table is not None else gittins_table(n)

    def choose(history: History, rng: np.random.Generator) -> Array:
        failures = history.pulls - history.rewards
        left = n - history.decisions
        return largest(indices.ranks(history.rewards, failures, left), rng)

    return choose


def gittins_table(horizon: int, on_progress: Callable[[float], None] | None = None) -> GittinsTable:
    """The table for trials of up to `horizon` pulls, from the cache on disk or computed into it.

    `on_progress` hears the share done while it is computed: about 15 s at horizon 500, less than
    1 s at 100. A cached table of a longer horizon is as good.
    """
    if not 1 <= horizon <= LONGEST_HORIZON:
        raise ValueError(f"horizon: expected 1 to {LONGEST_HORIZON} pulls, got {horizon}")
    kind = f"gittins-{_VERSION}"
    found = newest(kind, at_least=horizon, valid=_whole)
    if found is not None:
        return GittinsTable(*found)
    entries = compute(horizon, on_progress)
    store(kind, horizon, entries)
    return GittinsTable(horizon, entries)


def compute(horizon: int, on_progress: Callable[[float], None] | None = None) -> NDArray[np.uint16]:
    """A table's entries."""
    T = horizon
    starts = _block_starts(T)
    entries = np.empty(starts[-1], np.uint16)
    prices = _prices()
    chances = [((np.arange(m + 1) + 1) / (m + 2)).astype(np.float32) for m in range(T + 1)]
    lefts = np.arange(T + 1, dtype=np.float32)[:, None]
    # At price 0 nobody retires: `left` pulls are worth left · p. values[m] is [left, successes].
    values = [lefts[: T - m + 1] * chances[m] for m in range(T + 1)]
    scratch = np.empty((T + 1) ** 2 // 4 + T + 1, np.float32)
    for number in range(1, PRICES + 1):
        price, step = prices[number], prices[number] - prices[number - 1]
        for m in range(T - 1, -1, -1):
            after_win, after_loss = values[m + 1][:, 1:], values[m + 1][:, :-1]
            option = scratch[: (T - m) * (m + 1)].reshape(T - m, m + 1)
            np.subtract(after_win, after_loss, out=option)
            option *= chances[m]
            option += after_loss
            option += chances[m] - price
            before = values[m][1:]
            crossed = np.flatnonzero((option <= 0) & (before > 0))
            above, below = before.ravel()[crossed], option.ravel()[crossed]
            entries[starts[m] + crossed] = np.rint(
                (price + step * below / (above - below)) * _SCALE
            )
            np.maximum(option, 0, out=before)
        if on_progress is not None:
            on_progress(number / PRICES)
    return entries


def _prices() -> NDArray[np.float32]:
    """From 0 to 1, as close to one another as a posterior around that mean is narrow."""
    angles = np.linspace(0.0, np.pi / 2, PRICES + 1)
    return (np.sin(angles) ** 2).astype(np.float32)


def _block_starts(horizon: int) -> NDArray[np.int64]:
    """Where each number of pulls m begins among the entries, and where the last ends, `[T + 1]`."""
    m = np.arange(horizon)
    return np.concatenate([[0], np.cumsum((horizon - m) * (m + 1))])


def _whole(horizon: int, entries: Array) -> bool:
    return entries.dtype == np.uint16 and entries.shape == (_block_starts(horizon)[-1],)
