"""B layouts as arrays: what is solid, where trials start, and the start's own frame of reference.

What only a simulator knows: for model, explorer and the marks of lessons. No policy sees it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.tasks.mazes.explorer import MARGIN, Known
from training.tasks.mazes.layouts import Layout
from training.tasks.mazes.sight import Sight, look
from training.tasks.mazes.wad import CELL
from training.tasks.mazes.walking import RADIUS, Walkers, standing

Ints = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]

SHIFT = float(MARGIN * CELL)
"""What is added to the engine's map units: grids here have MARGIN cells of wall all round."""
_REACH = RADIUS + 1.1
"""A player this near to the target, along an axis, is touching it."""


@dataclass
class Ground:
    """Layouts of different sizes in grids of one size."""

    walls: Bools
    """`[B, Y, X]`, the target's cell open."""
    solid: Bools
    """`[B, Y, X]`, the target's cell solid."""
    target: Ints
    """`[B, 2]` (x, y)."""
    start: Ints
    """`[B, 2]` (x, y)."""
    heading: Ints
    """`[B]`, quarter turns."""

    @classmethod
    def room(cls, trials: int, side: int) -> Ground:
        """Room for `trials` mazes of at most `side` cells."""
        grid = (trials, side + 2 * MARGIN, side + 2 * MARGIN)
        pair = np.zeros((trials, 2), np.int64)
        return cls(
            np.ones(grid, bool), np.ones(grid, bool), pair, pair.copy(), np.zeros(trials, np.int64)
        )

    @classmethod
    def of(cls, mazes: Sequence[Layout], side: int | None = None) -> Ground:
        """These layouts."""
        ground = cls.room(len(mazes), side or max(len(maze.open) for maze in mazes))
        for row, maze in enumerate(mazes):
            ground.put(row, maze)
        return ground

    def put(self, row: int, maze: Layout) -> None:
        """Another maze in this row."""
        height, width = maze.open.shape
        self.walls[row] = True
        self.walls[row, MARGIN : MARGIN + height, MARGIN : MARGIN + width] = ~maze.open
        self.target[row] = np.add(maze.target, MARGIN)
        self.start[row] = np.add(maze.start, MARGIN)
        self.heading[row] = maze.heading
        self.solid[row] = self.walls[row]
        self.solid[row, self.target[row, 1], self.target[row, 0]] = True

    def at_start(self) -> Walkers:
        """Everybody at rest where an episode starts."""
        middle = (self.start + 0.5) * CELL
        return standing(middle[:, 0], middle[:, 1], 90.0 * self.heading)

    def look(self, at: Walkers) -> Sight:
        """What everybody sees."""
        return look(at.x, at.y, at.angle, self.solid, self.target)

    def touching(self, at: Walkers, rows: Ints | None = None) -> Bools:
        """Who is at the target: everybody, or players in these mazes."""
        target = self.target if rows is None else self.target[rows]
        found = np.zeros(len(at.x), bool)
        for dx, dy in ((_REACH, 0), (-_REACH, 0), (0, _REACH), (0, -_REACH)):
            i, j = (at.x + dx) // CELL, (at.y + dy) // CELL
            found |= (i == target[:, 0]) & (j == target[:, 1])
        return found

    def in_start_frame(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Map units ahead of the start, and to its left, of positions `[B]`."""
        middle = (self.start + 0.5) * CELL
        return _turned(x - middle[:, 0], y - middle[:, 1], -self.heading)


def _turned(x: Floats, y: Floats, quarters: Ints) -> tuple[Floats, Floats]:
    """Turned counter-clockwise by quarter turns."""
    cos = np.array([1, 0, -1, 0])[quarters % 4]
    sin = np.array([0, 1, 0, -1])[quarters % 4]
    return x * cos - y * sin, x * sin + y * cos


WINDOW = 6
"""Cells either side of the start that the marks of a map reach."""
_OFFSETS = np.array(
    [
        (u, v)
        for v in range(-WINDOW, WINDOW + 1)
        for u in range(-WINDOW, WINDOW + 1)
        if (u % 2 == 0 or v % 2 == 0) and (u, v) != (0, 0)
    ]
)
MARKS = 10 + 2 * len(_OFFSETS)
"""Numbers that a lesson marks at a step: see `marks`."""


def marks(ground: Ground, known: Known, at: Walkers, wanted: Floats) -> NDArray[np.float32]:
    """What a memory should know before a choice, `[B, MARKS]`.

    Where it stands and looks in its start's frame (4), where the explorer wants to go relative to
    its heading (2), how far what it seeks is (1), whether the target is known, and where (3); then,
    for each cell around the start, whether it is known to be open, and to be wall.
    """
    B = len(at.x)
    rows = np.arange(B)
    ahead, left = ground.in_start_frame(at.x, at.y)
    facing = np.radians(at.angle - 90.0 * ground.heading)
    to = np.radians(wanted - at.angle)
    i, j = (at.x // CELL).astype(int), (at.y // CELL).astype(int)
    heading = np.round(at.angle / 90.0).astype(int) % 4
    to_go = np.minimum(known.to_go[rows, heading, j, i], 60.0) / 30.0
    found = known.target[:, 0] >= 0
    middle = (known.target + 0.5) * CELL
    target_ahead, target_left = ground.in_start_frame(middle[:, 0], middle[:, 1])
    offsets = _OFFSETS.astype(float)
    u, v = _turned(offsets[None, :, 0], offsets[None, :, 1], ground.heading[:, None])
    height, width = known.wall.shape[1:]
    x, y = u.astype(int) + ground.start[:, :1], v.astype(int) + ground.start[:, 1:]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    at_cell = (rows[:, None], np.clip(y, 0, height - 1), np.clip(x, 0, width - 1))
    return np.concatenate(
        [
            np.stack(
                [
                    ahead / 288,
                    left / 288,
                    np.cos(facing),
                    np.sin(facing),
                    np.cos(to),
                    np.sin(to),
                    to_go,
                    found,
                    np.where(found, target_ahead / 288, 0.0),
                    np.where(found, target_left / 288, 0.0),
                ],
                1,
            ),
            known.open[at_cell] & inside,
            known.wall[at_cell] & inside,
        ],
        1,
    ).astype(np.float32)
