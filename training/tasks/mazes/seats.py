"""The engines of one worker, for a job that it does, in the words of `Engines`.

It must never know what is walked for, or what else the worker does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from training.tasks.mazes.engine import Engine


@dataclass
class Place:
    """What one engine is doing, so that another could do it again."""

    maze: int = 0
    actions: list[int] = field(default_factory=list)


class Seats:
    """n engines of this process."""

    parts: tuple[slice, ...] = ()
    """They are divided no further."""

    def __init__(
        self,
        engines: Sequence[Engine],
        pictures: NDArray[np.uint8],
        poses: NDArray[np.float64],
        going_on: Callable[[], None],
    ) -> None:
        """`pictures` `[n, 30, 40, 3]` and `poses` `[n, POSE]` are written to; `going_on` is called
        at every step, so that others know."""
        self.pictures, self.poses = pictures, poses
        self.places = [Place() for _ in engines]
        self._engines, self._going_on = engines, going_on

    def load(self, engines: Sequence[int], mazes: Sequence[int]) -> None:
        """An episode of maze `mazes[i]` of the WAD in engine `engines[i]`, from its start."""
        for row, maze in zip(engines, mazes, strict=True):
            self.places[row] = Place(maze)
            self._engines[row].load(maze)
            self._show(row)

    def restart(self, engines: Sequence[int]) -> None:
        """Another episode of the maze that is loaded."""
        for row in engines:
            self.places[row].actions = []
            self._engines[row].restart()
            self._show(row)

    def act(self, engines: Sequence[int], actions: Sequence[int]) -> NDArray[np.bool_]:
        """One action each: whether the target was touched `[n]`. See `Engines.act`."""
        ended = np.zeros(len(engines), bool)
        for i, (row, action) in enumerate(zip(engines, actions, strict=True)):
            self.places[row].actions.append(action)
            ended[i] = self._engines[row].act(action)
            if not ended[i]:
                self._show(row)
        self._going_on()
        return ended

    def _show(self, row: int) -> None:
        self._engines[row].show(self.pictures[row], self.poses[row])
