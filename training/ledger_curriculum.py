"""A fitted model of a log as a curriculum: accounts that are like those of the log. Numpy only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from training.check import Look
from training.ledger_model import FittedModel, FittedTrials
from training.tasks.task import Task

MODEL = "ledger-model.npz"
"""The fitted model, beside the checkpoint."""
_DELAYS = (0, 0, 0, 1, 3, 10)
"""Decisions that the feedback of a batch is late, one as likely as another."""
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
        low, high = self.decisions
        if not 2 <= low <= high:
            raise ValueError(f"decisions: expected a range from 2 up, got {low} to {high}")
        for name in ("horizons", "groups", "steps_per_group"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")

    def batches(self, rng: np.random.Generator, iteration: int) -> Iterator[Sequence[Task]]:
        """`horizons` batches of `groups` tasks."""
        low, high = self.decisions
        model, ratio = _loaded(self.model), (high + 1) / low
        for part in range(self.horizons):
            n = min(high, int(low * ratio ** ((part + rng.random()) / self.horizons)))
            trials = max(4, round(self.steps_per_group / n))
            delay = min(int(rng.choice(_DELAYS)), n - 1)
            yield [FittedTrials(model, trials, n, rng, delay=delay) for _ in range(self.groups)]

    def looks(self, action_range: tuple[int, int]) -> list[Look]:
        """Fixed accounts of the model."""
        return [Look("fitted", partial(_look, self.model), 0.0)]


def _look(model: str) -> tuple[Task, np.random.Generator]:
    rng = np.random.default_rng(_LOOK_SEED)
    return FittedTrials(_loaded(model), 300, 100, rng), rng


@lru_cache(maxsize=1)
def _loaded(model: str) -> FittedModel:
    return FittedModel.load(Path(model))
