"""How a Doom player walks and turns, B of them at once. A model of the engine, never the engine.

Thrust, friction and turning are the engine's own constants; a wall takes away what points into it,
and on first contact the share of the move that was left. `tests/training/tasks` holds it to the
engine. Used by the search for the shortest path and by lessons that need no picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.tasks.mazes.wad import CELL

LEFT, RIGHT, FORWARD = 0, 1, 2
ACTIONS = ("turn_left", "turn_right", "forward")
TICS = 4
"""Frame skip."""
RADIUS = 16.0
_THRUST = 25 * 2048 / 65536
FRICTION = 0.90625
_SLOW, _FAST = 320 * 360 / 65536, 640 * 360 / 65536
_SLOW_TICS = 5
_GAP = 0.02

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]


@dataclass
class Walkers:
    """Where B players are."""

    x: Floats
    y: Floats
    angle: Floats
    """Degrees, counter-clockwise from east."""
    vx: Floats
    vy: Floats
    held: NDArray[np.int64]
    """Tics for which a turn has been held."""

    @classmethod
    def of(cls, parts: Sequence[Walkers]) -> Walkers:
        """All these players, one part after the other."""
        return cls(
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("x", "y", "angle", "vx", "vy", "held")
            )
        )

    def take(self, rows: NDArray[np.int64]) -> Walkers:
        """The players at these indices."""
        return Walkers(
            self.x[rows],
            self.y[rows],
            self.angle[rows],
            self.vx[rows],
            self.vy[rows],
            self.held[rows],
        )

    def put(self, rows: NDArray[np.int64], others: Walkers) -> None:
        """Sets the players at these indices."""
        for name in ("x", "y", "angle", "vx", "vy", "held"):
            getattr(self, name)[rows] = getattr(others, name)


def standing(x: Floats, y: Floats, angle: Floats) -> Walkers:
    """Players at rest."""
    still = np.zeros_like(x)
    return Walkers(x.copy(), y.copy(), angle.copy(), still, still.copy(), np.zeros(len(x), int))


def walk(at: Walkers, action: NDArray[np.int64], solid: NDArray[np.bool_]) -> Walkers:
    """One action of TICS tics. `solid` `[B, Y, X]`: cells that stop a player, target included."""
    turn = (action == LEFT).astype(float) - (action == RIGHT)
    ahead = _THRUST * (action == FORWARD)
    x, y, angle, vx, vy = at.x.copy(), at.y.copy(), at.angle.copy(), at.vx.copy(), at.vy.copy()
    held = at.held.copy()
    for _ in range(TICS):
        held = np.where(turn != 0, held + 1, 0)
        angle = angle + turn * np.where(held <= _SLOW_TICS, _SLOW, _FAST)
        way = np.radians(angle)
        vx, vy = vx + ahead * np.cos(way), vy + ahead * np.sin(way)
        x, vx, hit_x = _moved(x, y, vx, solid, along_x=True)
        vy = np.where(hit_x < 1.0, vy * np.where(hit_x > 0.02, 1.0 - hit_x, 1.0), vy)
        y, vy, hit_y = _moved(y, x, vy, solid, along_x=False)
        vx = np.where(hit_y < 1.0, vx * np.where(hit_y > 0.02, 1.0 - hit_y, 1.0), vx)
        vx, vy = vx * FRICTION, vy * FRICTION
    return Walkers(x, y, angle % 360.0, vx, vy, held)


def _moved(
    here: Floats, across: Floats, speed: Floats, solid: NDArray[np.bool_], *, along_x: bool
) -> tuple[Floats, Floats, Floats]:
    """Position and speed along one axis after a tic, and the share of the move made, 1 if free."""
    rows = np.arange(len(here))
    front = here + speed + np.sign(speed) * RADIUS
    blocked = np.zeros(len(here), bool)
    for side in (-RADIUS + _GAP, RADIUS - _GAP):
        a, b = (front, across + side) if along_x else (across + side, front)
        blocked |= is_solid(solid, rows, a, b)
    edge = np.where(
        speed > 0,
        np.floor(front / CELL) * CELL - RADIUS - _GAP,
        np.ceil(front / CELL) * CELL + RADIUS + _GAP,
    )
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        share = np.where(speed == 0, 0.0, np.clip((edge - here) / speed, 0.0, 1.0))
    moved = np.where(blocked, np.where(share > 0, edge, here), here + speed)
    return moved, np.where(blocked, 0.0, speed), np.where(blocked, share, 1.0)


def is_solid(solid: Bools, rows: NDArray[np.int64], x: Floats, y: Floats) -> Bools:
    """Whether points lie in solid cells; outside the grid all is solid."""
    height, width = solid.shape[1:]
    i, j = np.floor(x / CELL).astype(int), np.floor(y / CELL).astype(int)
    inside = (i >= 0) & (i < width) & (j >= 0) & (j < height)
    there: Bools = ~inside | solid[rows, np.clip(j, 0, height - 1), np.clip(i, 0, width - 1)]
    return there
