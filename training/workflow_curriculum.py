"""A workflow's own simulator as a curriculum: accounts of its training verticals. Numpy only.

It must never play a held-out vertical.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from training.account_batches import cut_batches, refuse_impossible_cut
from training.check import Look
from training.tasks.task import Task
from training.tasks.workflow_trials import WorkflowTrials
from training.tasks.workflows.families import FAMILIES, TRAINING_VERTICALS

_LOOK_SEED = 20_261_122


@dataclass(frozen=True)
class WorkflowCurriculum:
    """Accounts of one workflow, its training verticals in turn."""

    name: ClassVar[str] = "workflow"

    workflow: str
    horizons: int = 2
    """Numbers of decisions drawn for an iteration."""
    groups: int = 2
    """Verticals for each."""
    steps_per_group: int = 8_000
    """Interactions a vertical plays; accounts = steps / decisions."""
    decisions: tuple[int, int] = (20, 200)
    """Decisions an account are drawn log-uniformly from this range."""

    def __post_init__(self) -> None:
        if self.workflow not in FAMILIES:
            raise ValueError(
                f"workflow: expected one with a simulator ({', '.join(FAMILIES)}), "
                f"got {self.workflow}"
            )
        refuse_impossible_cut(self)

    def batches(self, rng: np.random.Generator, iteration: int) -> Iterator[Sequence[Task]]:
        """`horizons` batches of `groups` verticals, drawn without replacement while they last."""
        names = TRAINING_VERTICALS[self.workflow]
        order: list[str] = []
        for accounts, n, delay in cut_batches(rng, self):
            batch = []
            for _ in range(self.groups):
                order = order or [str(one) for one in rng.permutation(names)]
                batch.append(
                    WorkflowTrials(self.workflow, order.pop(), accounts, n, rng, delay=delay)
                )
            yield batch

    def looks(self, action_range: tuple[int, int]) -> list[Look]:
        """Fixed accounts of two verticals."""
        names = TRAINING_VERTICALS[self.workflow][:2]
        return [Look(name, partial(_look, self.workflow, name), 0.0) for name in names]


def _look(workflow: str, vertical: str) -> tuple[Task, np.random.Generator]:
    rng = np.random.default_rng(_LOOK_SEED)
    return WorkflowTrials(workflow, vertical, 300, 100, rng), rng
