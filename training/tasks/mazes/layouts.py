"""Maze layouts by seed: walls, where a trial starts, where its target is. Numpy only: no engine.

The mazes of Duan et al. (2016), section 3.3: spanning trees over square rooms, grown by a
randomised Prim's algorithm; start and target are two different rooms. "5×5" counts the walls
inside: 3×3 rooms with the cells between them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "test"]
Cell = tuple[int, int]

SIZES = {"small": 3, "large": 5}
"""Rooms a side: 5×5 and 9×9 cells."""
HEADINGS = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""Unit steps (x, y) of the headings 0, 90, 180 and 270 degrees: east, north, west, south."""


class LayoutError(ValueError):
    """A layout that cannot be played. The message says what is wrong with it."""


@dataclass(frozen=True)
class Layout:
    """One maze. `open` `[Y, X]` is true where one can walk; the target's cell is open here."""

    open: NDArray[np.bool_]
    start: Cell
    """(x, y) of the cell."""
    heading: int
    """Which of HEADINGS the start looks along."""
    target: Cell

    def __post_init__(self) -> None:
        for name, cell in (("start", self.start), ("target", self.target)):
            if not self.is_open(cell):
                raise LayoutError(f"{name}: expected an open cell of the maze, got {cell}")
        if self.start == self.target:
            raise LayoutError(f"target: expected another cell than the start, got {self.target}")
        if self.start not in self.distances:
            raise LayoutError(
                f"target: expected a path from the start {self.start} to {self.target}, got none"
            )

    def is_open(self, cell: Cell) -> bool:
        """Whether one can stand in a cell; outside the grid all is wall."""
        x, y = cell
        height, width = self.open.shape
        return 0 <= x < width and 0 <= y < height and bool(self.open[y, x])

    def neighbours(self, cell: Cell) -> list[Cell]:
        """Open cells beside an open cell, in the order of HEADINGS."""
        beside = [(cell[0] + dx, cell[1] + dy) for dx, dy in HEADINGS]
        return [one for one in beside if self.is_open(one)]

    @cached_property
    def distances(self) -> dict[Cell, int]:
        """Cells to walk from each cell to the target, where there is a path."""
        found, edge = {self.target: 0}, [self.target]
        for cell in edge:
            for one in self.neighbours(cell):
                if one not in found:
                    found[one] = found[cell] + 1
                    edge.append(one)
        return found

    @property
    def key(self) -> bytes:
        """What two layouts share if and only if they are the same one."""
        return self.open.tobytes() + bytes((*self.start, self.heading, *self.target))

    def path(self) -> list[Cell]:
        """The cells from start to target, both included."""
        walk = [self.start]
        while walk[-1] != self.target:
            walk.append(min(self.neighbours(walk[-1]), key=self.distances.__getitem__))
        return walk


def layouts(rooms: int, split: Split, seed: int = 0) -> Iterator[Layout]:
    """Endless different layouts of rooms × rooms, a fixed sequence for a seed.

    A layout belongs to one split for good, by a hash of what it is: however many are drawn, by
    whatever seeds, nothing of `test` is ever in `train`.
    """
    if rooms < 2:
        raise LayoutError(f"rooms: expected at least 2 a side, got {rooms}")
    rng = np.random.default_rng((seed, rooms, split == "test"))
    seen: set[bytes] = set()
    while True:
        drawn = draw(rooms, rng)
        if split_of(drawn) == split and drawn.key not in seen:
            seen.add(drawn.key)
            yield drawn


def split_of(layout: Layout) -> Split:
    """One walled shape in four is for tests, with every start and target it may have."""
    shape = np.packbits(layout.open).tobytes()
    mixed = 0
    for byte in shape:
        mixed = (mixed * 1_000_003 ^ byte) & 0xFFFFFFFF
    return "test" if (mixed ^ mixed >> 15) % 4 == 0 else "train"


def draw(rooms: int, rng: np.random.Generator) -> Layout:
    """A spanning tree by randomised Prim, a start, a heading and a target."""
    side = 2 * rooms - 1
    grid = np.zeros((side, side), bool)
    first = (int(rng.integers(rooms)), int(rng.integers(rooms)))
    grid[2 * first[1], 2 * first[0]] = True
    edges = _edges(first, rooms)
    while edges:
        (x, y), (u, v) = edges.pop(int(rng.integers(len(edges))))
        if not grid[2 * v, 2 * u]:
            grid[2 * v, 2 * u] = grid[y + v, x + u] = True
            edges += _edges((u, v), rooms)
    start, target = rng.choice(rooms * rooms, 2, replace=False)
    return Layout(
        open=grid,
        start=(2 * int(start % rooms), 2 * int(start // rooms)),
        heading=int(rng.integers(4)),
        target=(2 * int(target % rooms), 2 * int(target // rooms)),
    )


def _edges(room: Cell, rooms: int) -> list[tuple[Cell, Cell]]:
    """From a room to each room beside it."""
    beside = [(room[0] + dx, room[1] + dy) for dx, dy in HEADINGS]
    return [(room, (u, v)) for u, v in beside if 0 <= u < rooms and 0 <= v < rooms]
