"""The shortest way through mazes with these actions, searched in the model of the engine.

A beam search over actions: every step keeps the states that are nearest to the target, no two of
them alike. What it finds can be walked, so it is an upper bound of the optimum, and a tight one
where a wider beam finds nothing shorter. Numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.tasks.mazes.explorer import place_of_rest
from training.tasks.mazes.ground import Floats, Ground, Ints
from training.tasks.mazes.hindsight import true_steps_to_go
from training.tasks.mazes.layouts import HEADINGS, Layout
from training.tasks.mazes.wad import CELL
from training.tasks.mazes.walking import ACTIONS, Walkers, walk

_STRIDE = 33.1
"""Map units that a step forward is worth."""
_TURN = 6.2
"""Steps that a quarter turn is worth."""


def shortest(mazes: Sequence[Layout], width: int = 300, together: int = 16) -> Ints:
    """Steps to the target in each maze, from its start at rest; `width`: states kept."""
    found = [_search(mazes[at : at + together], width) for at in range(0, len(mazes), together)]
    return np.concatenate(found)


def _search(mazes: Sequence[Layout], width: int) -> Ints:
    ground = Ground.of(mazes)
    M = len(mazes)
    to_go = true_steps_to_go(ground)
    maze = np.arange(M)
    at = ground.at_start()
    steps = np.zeros(M, np.int64)
    for step in range(1, 2_000):
        actions = np.tile(np.arange(len(ACTIONS)), len(maze))
        parents = np.repeat(np.arange(len(maze)), len(ACTIONS))
        maze = maze[parents]
        at = walk(at.take(parents), actions, ground.solid[maze])
        arrived = np.zeros(M, bool)
        arrived[maze[_touching(ground, maze, at)]] = True
        steps[arrived] = step
        going = ~arrived[maze]
        if not going.any():
            return steps
        maze, at = maze[going], at.take(np.flatnonzero(going))
        score = _left(ground, to_go, maze, at)
        kept = _best(maze, at, score, width)
        maze, at = maze[kept], at.take(kept)
    raise RuntimeError("expected to reach every target within 2,000 steps")


def _touching(ground: Ground, maze: Ints, at: Walkers) -> NDArray[np.bool_]:
    one = Ground(
        ground.walls[maze],
        ground.solid[maze],
        ground.target[maze],
        ground.start[maze],
        ground.heading[maze],
    )
    return one.touching(at)


def _left(ground: Ground, to_go: Floats, maze: Ints, at: Walkers) -> NDArray[np.float64]:
    """About how many steps are left, from where a player would come to rest."""
    walls = ground.walls[maze]
    x, y = place_of_rest(walls, at)
    i, j = (x // CELL).astype(int), (y // CELL).astype(int)
    rows = np.arange(len(maze))
    height, width = walls.shape[1:]
    best = np.full(len(maze), np.inf)
    for heading, (dx, dy) in enumerate(HEADINGS):
        u, v = np.clip(i + dx, 0, width - 1), np.clip(j + dy, 0, height - 1)
        off = np.abs((90.0 * heading - at.angle + 180.0) % 360.0 - 180.0)
        beyond = (u + 0.5 - 0.5 * dx) * CELL, (v + 0.5 - 0.5 * dy) * CELL
        edge = np.where(dx != 0, np.abs(beyond[0] - x), np.abs(beyond[1] - y))
        here = edge / _STRIDE + _TURN * off / 90.0 + to_go[maze, heading, v, u]
        best = np.minimum(best, np.where(walls[rows, v, u], np.inf, here))
    return best


def _best(maze: Ints, at: Walkers, score: NDArray[np.float64], width: int) -> Ints:
    """The `width` best states of each maze, the better of two alike."""
    alike = np.stack(
        [
            maze,
            (at.x // 8).astype(np.int64),
            (at.y // 8).astype(np.int64),
            np.round(at.angle / 7.03).astype(np.int64),
            (np.hypot(at.vx, at.vy) // 1.5).astype(np.int64),
            np.minimum(at.held // 4, 2),
        ],
        1,
    )
    order = np.argsort(score, kind="stable")
    _, first = np.unique(alike[order], axis=0, return_index=True)
    kept = order[np.sort(first)]
    by_maze = kept[np.argsort(maze[kept], kind="stable")]
    start = np.searchsorted(maze[by_maze], maze[by_maze])
    ranked: Ints = by_maze[np.arange(len(by_maze)) - start < width]
    return ranked
