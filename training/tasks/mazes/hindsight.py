"""What only a simulator knows of steps in mazes: where they lead, what that costs, what is left.

Of N steps at once, of whatever trials and times: after a rollout all of them are asked about
together, which costs a hundredth of asking step by step. No policy is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.encode import Float32
from training.tasks.mazes.explorer import steps_to_go
from training.tasks.mazes.ground import Bools, Floats, Ground, Ints
from training.tasks.mazes.streams import FOUND, LIVING
from training.tasks.mazes.wad import CELL
from training.tasks.mazes.walking import Walkers, walk

TOLD = 4
"""Numbers that a critic is told."""


@dataclass(frozen=True)
class Moments:
    """N moments before a choice."""

    rows: Ints
    """In which maze each is, `[N]`."""
    at: Walkers
    in_episode: Ints
    """Steps of the episode so far, `[N]`."""
    episode: Ints
    """Episodes that have ended, `[N]`."""


class Hindsight:
    """About mazes that do not change. `episodes` and `episode_steps` are a trial's."""

    def __init__(self, ground: Ground, episodes: int, episode_steps: int) -> None:
        self._ground, self._to_go = ground, true_steps_to_go(ground)
        self._episodes, self._episode_steps = episodes, episode_steps

    def foreseen(self, moments: Moments, actions: Ints) -> tuple[Walkers, Bools]:
        """Where these actions `[N]` lead, by the model, and who is at the target then."""
        after = walk(moments.at, actions, self._ground.solid[moments.rows])
        return after, self._ground.touching(after, moments.rows)

    def expected(self, moments: Moments, found: Bools) -> NDArray[np.float64]:
        """What is earned where these are `found` next, `[N]`."""
        earned: NDArray[np.float64] = np.where(self._over(moments), 0.0, LIVING + FOUND * found)
        return earned

    def lost(self, moments: Moments, after: Walkers, found: Bools) -> NDArray[np.float64]:
        """How much farther the target is than it need be, in rewards, `[N]`."""
        rows = moments.rows
        left = np.where(found, 0.0, self._left(rows, after))
        farther = 1.0 + left - self._left(rows, moments.at)
        cost: NDArray[np.float64] = np.where(self._over(moments), 0.0, -LIVING * farther)
        return cost

    def told(self, moments: Moments) -> Float32:
        """Steps to the target, of the episode, episodes left, and if it is over, `[N, TOLD]`."""
        over = self._over(moments)
        told = np.stack(
            [
                np.where(over, 0.0, self._left(moments.rows, moments.at) / 50.0),
                moments.in_episode / self._episode_steps,
                (self._episodes - moments.episode) / self._episodes,
                over,
            ],
            -1,
        )
        return told.astype(np.float32)

    def bounds(self) -> tuple[Floats, Floats]:
        """What a step earns where the target is never found, and by one who knows the way, `[B]`
        each."""
        ground = self._ground
        rows = np.arange(len(ground.start))
        steps = self._to_go[rows, ground.heading, ground.start[:, 1], ground.start[:, 0]]
        return np.full(len(rows), LIVING), LIVING + FOUND / np.maximum(steps, 1.0)

    def _over(self, moments: Moments) -> Bools:
        over: Bools = moments.episode >= self._episodes
        return over

    def _left(self, rows: Ints, at: Walkers) -> Floats:
        """Steps to the target by one who knows the maze, about, `[N]`."""
        i, j = (at.x // CELL).astype(int), (at.y // CELL).astype(int)
        heading = np.round(at.angle / 90.0).astype(int) % 4
        left: Floats = np.minimum(self._to_go[rows, heading, j, i], 1_000.0)
        return left


def true_steps_to_go(ground: Ground) -> NDArray[np.floating[Any]]:
    """Steps to the target by one who knows the mazes, `[B, 4, Y, X]`, about."""
    red = ground.solid & ~ground.walls
    everyone = np.ones(len(red), bool)
    return steps_to_go(~ground.walls, ground.walls, red, everyone)
