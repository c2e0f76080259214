"""The map explorer: explores a maze that it does not know, then goes the shortest way it has seen.

It knows where it stands relative to its start, and what the rays of its own pictures have met since
the trial began; it must never look at a wall that it has not seen, or at the target before it has.
B explorers at once, numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.tasks.mazes.sight import Sight
from training.tasks.mazes.wad import CELL
from training.tasks.mazes.walking import FORWARD, LEFT, RIGHT, Walkers

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]

MARGIN = 2
"""Cells around the maze that an explorer, who does not know where it ends, thinks possible."""

_MOVE = 2.9
"""Steps to walk a cell at speed."""
_TURN = 6.2
"""Steps that a quarter turn costs, gliding meanwhile."""
_UNKNOWN = 2.0
"""Steps that are added where a way is not known to be open."""
_REST = 9.4
"""Tics of the present speed that a player glides while it turns."""
_STRIDE = 30.0
"""Map units by which one step forward moves the place where a player would come to rest."""
_SHORT_OF_CENTRE = 18.0
"""Map units before the middle of a corner's cell at which a turn is best."""
_TOLERANCE = 7.6
"""Degrees of heading that are not corrected."""
_NEVER = 1e6
_DX = np.array([1, 0, -1, 0])
_DY = np.array([0, 1, 0, -1])


@dataclass
class Known:
    """What B explorers know of their mazes, in grids with MARGIN cells all round."""

    open: Bools
    """`[B, Y, X]`: seen to be open, or the target."""
    wall: Bools
    """`[B, Y, X]`: seen to be a wall, or cannot be anything else."""
    target: Ints
    """`[B, 2]` (x, y), −1 before it is seen."""
    to_go: Floats
    """Steps to what is sought, `[B, 4, Y, X]`, by heading and cell."""

    @classmethod
    def nothing(cls, trials: int, side: int) -> Known:
        """Mazes of `side` cells, of which only the corners between rooms are known, to be wall."""
        grid = (trials, side + 2 * MARGIN, side + 2 * MARGIN)
        known = cls(
            np.zeros(grid, bool),
            np.zeros(grid, bool),
            np.full((trials, 2), -1),
            np.zeros((trials, 4, *grid[1:])),
        )
        known.forget(np.arange(trials))
        return known

    def forget(self, rows: Ints) -> None:
        """New mazes."""
        self.open[rows] = False
        wall = np.zeros(self.wall.shape[1:], bool)
        wall[1::2, 1::2] = True
        self.wall[rows] = wall
        self.target[rows] = -1

    def tell(self, walls: Bools, target: Ints) -> None:
        """The whole mazes, as no explorer may be told: `walls` with the targets' cells open."""
        if np.array_equal(self.open, ~walls):
            return
        self.open[:], self.wall[:], self.target[:] = ~walls, walls, target
        red = np.zeros_like(walls)
        red[np.arange(len(walls)), target[:, 1], target[:, 0]] = True
        self.to_go[:] = steps_to_go(self.open, self.wall, red, np.ones(len(walls), bool))

    def see(self, sight: Sight, target: Ints) -> None:
        """Adds what is seen and plans anew where that is anything; `target` `[B, 2]` is looked at
        only where a ray met it."""
        fresh = sight.red.any(1) & (self.target[:, 0] < 0)
        self.target[fresh] = target[fresh]
        red = np.zeros_like(self.open)
        found = np.flatnonzero(self.target[:, 0] >= 0)
        red[found, self.target[found, 1], self.target[found, 0]] = True
        opened = (sight.passed | red) & ~self.open
        walled = sight.met & ~red & ~self.wall
        self.open |= opened
        self.wall |= walled
        changed = np.flatnonzero(opened.any((1, 2)) | walled.any((1, 2)))
        if changed.size:
            # A spanning tree has no loops: between two rooms that are known there is a wall,
            # unless the way between them is known as well.
            rooms = self.open[changed]
            wall = self.wall[changed]
            wall[:, :, 1:-1:2] |= rooms[:, :, :-2:2] & rooms[:, :, 2::2] & ~rooms[:, :, 1:-1:2]
            wall[:, 1:-1:2] |= rooms[:, :-2:2] & rooms[:, 2::2] & ~rooms[:, 1:-1:2]
            self.wall[changed] = wall
            found_there = self.target[changed, 0] >= 0
            self.to_go[changed] = steps_to_go(rooms, wall, red[changed], found_there)


def steps_to_go(seen: Bools, wall: Bools, red: Bools, found: Bools) -> Floats:
    """Value iteration over cells and headings: to the target, or to the nearest unseen room."""
    unseen = np.zeros_like(seen)
    unseen[:, ::2, ::2] = ~seen[:, ::2, ::2] & ~wall[:, ::2, ::2]
    goal = np.where(found[:, None, None], red, unseen)
    enter = np.where(wall, _NEVER, np.where(seen, _MOVE, _MOVE + _UNKNOWN))
    value = np.where(goal, 0.0, _NEVER)[:, None].repeat(4, 1)
    while True:
        ahead = np.full_like(value, _NEVER)
        reach = value + enter[:, None]
        ahead[:, 0, :, :-1] = reach[:, 0, :, 1:]
        ahead[:, 1, :-1] = reach[:, 1, 1:]
        ahead[:, 2, :, 1:] = reach[:, 2, :, :-1]
        ahead[:, 3, 1:] = reach[:, 3, :-1]
        new = np.minimum(value, ahead)
        new = np.minimum(new, np.roll(new, 1, 1) + _TURN)
        new = np.minimum(new, np.roll(new, -1, 1) + _TURN)
        if np.array_equal(new, value):
            return value
        value = new


def place_of_rest(wall: Bools, at: Walkers) -> tuple[Floats, Floats]:
    """Where players would glide to if they let go now; walls stop them."""
    rows = np.arange(len(at.x))

    def blocked(x: Floats, y: Floats) -> Bools:
        there: Bools = wall[rows, (y // CELL).astype(int), (x // CELL).astype(int)]
        return there

    middle_x, middle_y = (at.x // CELL + 0.5) * CELL, (at.y // CELL + 0.5) * CELL
    x, y = at.x + _REST * at.vx, at.y + _REST * at.vy
    x = np.where(blocked(x, at.y), np.clip(x, middle_x - 32, middle_x + 32), x)
    y = np.where(blocked(x, y), np.clip(y, middle_y - 32, middle_y + 32), y)
    return x, y


def advise(known: Known, at: Walkers) -> tuple[Ints, Floats]:
    """What each explorer does now `[B]`, and the direction it wants to go, degrees `[B]`.

    A player glides: it decides as if it stood where it would come to rest.
    """
    B = len(at.x)
    rows = np.arange(B)
    height, width = known.wall.shape[1:]

    rest_x, rest_y = place_of_rest(known.wall, at)
    i, j = (rest_x // CELL).astype(int), (rest_y // CELL).astype(int)
    # The direction to go from there: of equal ones ahead, then left, which needs no compass.
    facing = np.round(at.angle / 90.0).astype(int)
    cost = np.empty((B, 4))
    for choice, quarter in enumerate((0, 1, -1, 2)):
        d = (facing + quarter) % 4
        u, v = np.clip(i + _DX[d], 0, width - 1), np.clip(j + _DY[d], 0, height - 1)
        off = np.abs((90.0 * d - at.angle + 180.0) % 360.0 - 180.0)
        step = np.where(known.wall[rows, v, u], _NEVER, _MOVE)
        cost[:, choice] = _TURN * off / 90.0 + step + known.to_go[rows, d, v, u] + 0.01 * choice
    d = (facing + np.array([0, 1, -1, 2])[cost.argmin(1)]) % 4
    # Its centre line, and a point of it one cell ahead.
    centre_x, centre_y = (i + 0.5) * CELL, (j + 0.5) * CELL
    along_x, along_y = _DX[d].astype(float), _DY[d].astype(float)
    side = np.where(d % 2 == 0, rest_y - centre_y, rest_x - centre_x)
    aim_x = np.where(d % 2 == 0, CELL * along_x, -side)
    aim_y = np.where(d % 2 == 0, -side, CELL * along_y)
    wanted = np.degrees(np.arctan2(aim_y, aim_x))
    err = (wanted - at.angle + 180.0) % 360.0 - 180.0
    # Before a corner: go on while that brings the place of rest nearer to the middle of its cell.
    way = np.radians(at.angle)
    ahead = np.where(d % 2 == 0, np.sin(way), np.cos(way))
    now = side + _SHORT_OF_CENTRE * np.sign(ahead)
    nearer = np.abs(now + _STRIDE * ahead) < np.abs(now)
    corner = (np.abs((90.0 * d - at.angle + 180.0) % 360.0 - 180.0) > 45.0) & (np.abs(ahead) > 0.7)
    left = np.where(np.abs(err) > 172.0, True, err > 0)
    turning = at.held > 0
    turn = np.abs(err) > np.where(turning, 7.03, _TOLERANCE)
    action = np.where(turn, np.where(left, LEFT, RIGHT), FORWARD)
    action = np.where(corner & nearer, FORWARD, action)
    return action, wanted % 360.0
