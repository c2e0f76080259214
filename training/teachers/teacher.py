"""What a teacher is, and the teachers there are, by name. It must never change a task or a weight.

A teacher knows the family and reads what a student saw; it must not look at what only the simulator
knows, or the student could not follow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

from numpy.typing import NDArray

from contract.encode import Float32
from training.curriculum import Curriculum
from training.rollout import Played
from training.tasks.task import Task
from training.teachers.gittins import GittinsTeacher
from training.teachers.planner import PlannerTeacher


class Teacher(Protocol):
    """Says what to do in the states that a student reached."""

    name: ClassVar[str]

    def lessons(self, curriculum: Curriculum) -> Curriculum:
        """The part of a curriculum that it can teach. Raises ValueError when there is none."""
        ...

    def advise(self, task: Task, played: Played, times: NDArray[Any]) -> Float32:
        """Probabilities `[T', B, K]` of the actions it would take at steps `times` `[T']`."""
        ...


TEACHERS: Mapping[str, Callable[[], Teacher]] = {
    GittinsTeacher.name: GittinsTeacher,
    PlannerTeacher.name: PlannerTeacher,
}


def build_teacher(name: str) -> Teacher:
    """A teacher by name. Raises ValueError for a name that there is not."""
    if name not in TEACHERS:
        raise ValueError(f"teacher: expected none or one of {', '.join(TEACHERS)}, got {name}")
    return TEACHERS[name]()
