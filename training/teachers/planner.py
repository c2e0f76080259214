"""The mean + bonus planner as a teacher of tabular MDPs.

It must never look at an MDP's means or transitions: it counts what the student was shown.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from contract.encode import Float32
from training.baselines_mdps import History, planner_values
from training.curriculum import Curriculum, MdpCurriculum
from training.rollout import Played
from training.tasks.mdps import EPISODE_STEPS
from training.tasks.task import Task

_ROUNDING = 1e-9


class PlannerTeacher:
    """The action that the planner values most; where several are, each of them equally likely."""

    name: ClassVar[str] = "planner"

    def lessons(self, curriculum: Curriculum) -> Curriculum:
        """All of a curriculum of tabular MDPs."""
        if not isinstance(curriculum, MdpCurriculum):
            raise ValueError(f"teacher: planner teaches mdps, not {curriculum.name}")
        return curriculum

    def advise(self, task: Task, played: Played, times: NDArray[Any]) -> Float32:
        """Probabilities `[T', B, K]`."""
        record = played.record
        actions, states = record.action.numpy(), record.context.argmax(-1).numpy()
        history = History.blank(record.trials, task.steps // EPISODE_STEPS)
        advised = np.empty((times.size, record.trials, task.actions), np.float32)
        wanted = {int(t): place for place, t in enumerate(times)}
        for t in range(max(wanted) + 1):
            if t in wanted:
                values = planner_values(history)
                best = values >= values.max(axis=-1, keepdims=True) - _ROUNDING
                advised[wanted[t]] = best / best.sum(axis=-1, keepdims=True)
            if t + 1 < task.steps:
                history.observe(actions[t], played.reward[t], states[t + 1])
        return advised
