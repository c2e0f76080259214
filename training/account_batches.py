"""Cuts a curriculum of one workflow's accounts into batches: how many, how long, fed back how late.

Numpy only. It must never know where the accounts come from.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np

from training.bounds import refuse_below, refuse_no_range
from training.horizons import stratified

_DELAYS = (0, 0, 0, 1, 3, 10)
"""Decisions that the feedback of a batch is late, one as likely as another."""
_FEWEST = 4


class Cut(Protocol):
    """The settings of such a curriculum that say how it is cut."""

    @property
    def horizons(self) -> int:
        """Numbers of decisions drawn for an iteration, a batch each."""
        ...

    @property
    def groups(self) -> int:
        """Tasks of a batch."""
        ...

    @property
    def steps_per_group(self) -> int:
        """Interactions a task plays; accounts = steps / decisions."""
        ...

    @property
    def decisions(self) -> tuple[int, int]:
        """Decisions an account are drawn log-uniformly from this range."""
        ...


class Batch(NamedTuple):
    """What all tasks of a batch have in common."""

    accounts: int
    decisions: int
    delay: int
    """Decisions that feedback is late."""


def refuse_impossible_cut(cut: Cut) -> None:
    """Raises ValueError for a setting that cannot be, by its name."""
    refuse_no_range(cut, 2, "decisions")
    refuse_below(cut, 1, "horizons", "groups", "steps_per_group")


def cut_batches(rng: np.random.Generator, cut: Cut) -> Iterator[Batch]:
    """The batches of an iteration, each drawn when it is asked for."""
    for part in range(cut.horizons):
        n = stratified(rng, cut.decisions, part, cut.horizons)
        accounts = max(_FEWEST, round(cut.steps_per_group / n))
        yield Batch(accounts, n, min(int(rng.choice(_DELAYS)), n - 1))
