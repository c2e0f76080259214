"""A fitted model of a log as a curriculum: accounts that are like those of the log. Numpy only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from training.account_batches import cut_batches, refuse_impossible_cut
from training.check import Look
from training.ledger_model import FittedModel, FittedTrials
from training.tasks.task import Task

MODEL = "ledger-model.npz"
"""The fitted model, beside the checkpoint."""
_LOOK_SEED = 20_261_122


@dataclass(frozen=True)
class LedgerCurriculum:
    """Accounts drawn from the model in a file."""

    name: ClassVar[str] = "ledger"

    model: str
    """Where the fitted model is."""
    horizons: int = 2
    """Numbers of decisions drawn for an iteration."""
    groups: int = 2
    """Tasks for each."""
    steps_per_group: int = 8_000
    """Interactions a task plays; accounts = steps / decisions."""
    decisions: tuple[int, int] = (20, 200)
    """Decisions an account are drawn log-uniformly from this range."""

    def __post_init__(self) -> None:
        refuse_impossible_cut(self)

    def batches(self, rng: np.random.Generator, iteration: int) -> Iterator[Sequence[Task]]:
        """`horizons` batches of `groups` tasks."""
        model = _loaded(self.model)
        for accounts, n, delay in cut_batches(rng, self):
            yield [FittedTrials(model, accounts, n, rng, delay=delay) for _ in range(self.groups)]

    def looks(self, action_range: tuple[int, int]) -> list[Look]:
        """Fixed accounts of the model."""
        return [Look("fitted", partial(_look, self.model), 0.0)]


def _look(model: str) -> tuple[Task, np.random.Generator]:
    rng = np.random.default_rng(_LOOK_SEED)
    return FittedTrials(_loaded(model), 300, 100, rng), rng


@lru_cache(maxsize=1)
def _loaded(model: str) -> FittedModel:
    return FittedModel.load(Path(model))
