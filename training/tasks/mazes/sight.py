"""What a player sees, as rays: how far the wall is in each column of the picture, and whether it is
the target. Numpy only, many players at once; the engine's pictures show the same, and more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.tasks.mazes.wad import CELL

COLUMNS = 40
"""Rays, one in the middle of each column of a picture 40 wide; the field of view is 90 degrees."""
ACROSS = (np.arange(COLUMNS) - (COLUMNS - 1) / 2) / (COLUMNS / 2)
"""Tangent of each column's angle to the right of straight ahead."""
FEATURES = 3
"""Numbers told of a ray by `features`."""

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.signedinteger[Any]]


@dataclass(frozen=True)
class Sight:
    """What B players see by COLUMNS rays."""

    depth: Floats
    """Distance along the line of sight to what the ray meets, map units `[B, R]`."""
    red: NDArray[np.bool_]
    """Whether that is the target `[B, R]`."""
    passed: NDArray[np.bool_]
    """Cells that some ray passed through `[B, Y, X]`."""
    met: NDArray[np.bool_]
    """Cells that some ray ended at `[B, Y, X]`."""


def look(x: Floats, y: Floats, angle: Floats, solid: NDArray[np.bool_], target: Ints) -> Sight:
    """Casts all rays, cell by cell (Amanatides & Woo 1987).

    `solid` `[B, Y, X]` with walls all round, target included; `target` int `[B, 2]` (x, y).
    Positions are in that grid's map units.
    """
    B = len(x)
    height, width = solid.shape[1:]
    way = np.radians(angle)[:, None]
    dx = (np.cos(way) + ACROSS * np.sin(way)).ravel()
    dy = (np.sin(way) - ACROSS * np.cos(way)).ravel()
    R = COLUMNS
    at_x, at_y = np.repeat(x, R) / CELL, np.repeat(y, R) / CELL
    i, j = np.floor(at_x).astype(np.int64), np.floor(at_y).astype(np.int64)
    with np.errstate(divide="ignore"):
        step_x, step_y = 1.0 / np.abs(dx), 1.0 / np.abs(dy)
    sx, sy = np.where(dx > 0, 1, -1), np.where(dy > 0, 1, -1)
    with np.errstate(invalid="ignore"):
        next_x = np.where(dx > 0, i + 1 - at_x, at_x - i) * step_x
        next_y = np.where(dy > 0, j + 1 - at_y, at_y - j) * step_y
    flat_solid = solid.reshape(-1)
    base = np.repeat(np.arange(B), R) * (height * width)
    cell = base + j * width + i
    passed = np.zeros(B * height * width, bool)
    met = np.zeros(B * height * width, bool)
    depth = np.zeros(B * R)
    last = np.zeros(B * R, np.int64)
    live = np.arange(B * R)
    passed[cell] = True
    jump = sy * width
    while live.size:
        nx, ny = next_x[live], next_y[live]
        by_x = nx < ny
        so_far = np.where(by_x, nx, ny)
        next_x[live] = np.where(by_x, nx + step_x[live], nx)
        next_y[live] = np.where(by_x, ny, ny + step_y[live])
        here = cell[live] + np.where(by_x, sx[live], jump[live])
        cell[live] = here
        stopped = flat_solid[here]
        done = live[stopped]
        depth[done], last[done] = so_far[stopped], here[stopped]
        passed[here[~stopped]] = True
        live = live[~stopped]
    met[last] = True
    goal = base + np.repeat(target[:, 1] * width + target[:, 0], R)
    shape = (B, height, width)
    return Sight(
        depth=(depth * CELL).reshape(B, R),
        red=(last == goal).reshape(B, R),
        passed=passed.reshape(shape),
        met=met.reshape(shape),
    )


def features(sight: Sight) -> NDArray[np.float32]:
    """Of each ray: nearness, log distance, and whether it is the target; `[B, 3R]` in [−1, 1]."""
    near = 16.0 / np.maximum(sight.depth, 12.0)
    far = np.log(np.maximum(sight.depth, 12.0) / 96.0) / 2.5
    told = np.concatenate([near, far, sight.red], 1)
    shown: NDArray[np.float32] = np.clip(told, -1.0, 1.0).astype(np.float32)
    return shown
