"""Several journeys open in one account at once, taking turns. Numpy only.

Which journey is next is luck, never a choice. A journey that ends gives its place to a new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.tasks.workflows.verticals import pick

Array = NDArray[Any]

OPEN_AT_ONCE = (0.4, 0.35, 0.25)
"""Shares of accounts that have one, two and three journeys open."""

MOST_OPEN = len(OPEN_AT_ONCE)


class Journeys:
    """The open journeys of B accounts, up to J each."""

    def __init__(self, open_at_once: Array, facts: Mapping[str, Array]) -> None:
        """open_at_once: uniform numbers `[B]`; facts `[B, J]` of the first journeys, by name."""
        self._count = 1 + pick(open_at_once, OPEN_AT_ONCE)
        self._facts = {name: np.array(values) for name, values in facts.items()}
        self._rows = np.arange(len(open_at_once))
        self._slot = np.zeros_like(self._count)
        self._numbers = np.tile(np.arange(MOST_OPEN), (len(open_at_once), 1))
        self._opened = np.full(len(open_at_once), MOST_OPEN)

    def turn(self, uniforms: Array) -> None:
        """The journey whose turn it is, by uniform numbers `[B]`."""
        self._slot = np.floor(uniforms * self._count).astype(np.int64)

    @property
    def number(self) -> NDArray[np.int64]:
        """Which journey of its account it is, `[B]`."""
        return self._numbers[self._rows, self._slot]

    def __getitem__(self, name: str) -> Array:
        """A fact of the journeys whose turn it is, `[B]`."""
        values: Array = self._facts[name][self._rows, self._slot]
        return values

    def __setitem__(self, name: str, values: Array) -> None:
        self._facts[name][self._rows, self._slot] = values

    def renew(self, done: Array, facts: Mapping[str, Array]) -> None:
        """New journeys with these facts `[B]` in place of those that are done `[B]`."""
        rows = np.flatnonzero(done)
        for name, values in facts.items():
            self._facts[name][rows, self._slot[rows]] = values[rows]
        self._numbers[rows, self._slot[rows]] = self._opened[rows]
        self._opened[rows] += 1
