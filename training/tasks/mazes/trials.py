"""Mazes in ViZDoom, or in the model of it, as a task family: B trials at once, as Gymnasium has it.

A trial is a number of episodes in one maze, each from the same start, and ends with the last of
them, or after T steps. The rewards of Duan et al. (2016), section 3.3: +1 at the target, −0.04 a
step, −0.001 for walking into a wall. Numpy only: it must never import torch or know a policy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.encode import Float32
from training.tasks.mazes.explorer import steps_to_go
from training.tasks.mazes.ground import Bools, Floats, Ground, Ints
from training.tasks.mazes.streams import FOUND, LIVING
from training.tasks.mazes.wad import CELL
from training.tasks.mazes.walking import ACTIONS, FORWARD, RADIUS, Walkers, walk
from training.tasks.mazes.worlds import World

Array = NDArray[Any]

WALL_HIT = -0.001
REWARD_RANGE = (-1.0, 1.0)
EPISODE_STEPS = {"small": 250, "large": 1_000}
"""Steps after which an episode is over, found or not."""
TOLD = 4
"""Numbers that a critic is told."""
_NEAR = 1.0
"""A player this near to a wall that it walks towards is walking into it; map units."""


class MazeTrials:
    """B trials of at most `episodes` episodes and T steps, in mazes drawn from the world's."""

    actions = len(ACTIONS)
    reward_range = REWARD_RANGE

    def __init__(
        self,
        world: World,
        rng: np.random.Generator,
        *,
        episodes: int = 2,
        steps: int = 300,
        episode_steps: int = EPISODE_STEPS["small"],
    ) -> None:
        for name, number in (
            ("episodes", episodes),
            ("steps", steps),
            ("episode_steps", episode_steps),
        ):
            if number < 1:
                raise ValueError(f"{name}: expected at least 1, got {number}")
        self._world = world
        self.num_envs = len(world.at.x)
        self.episodes, self.steps, self.episode_steps = episodes, steps, episode_steps
        self._maze_rng = rng.spawn(1)[0]
        self._step = steps
        self._in_episode = np.zeros(self.num_envs, int)
        self._episode = np.zeros(self.num_envs, int)
        self._to_go: Floats = np.zeros(0)
        self._dreamt: tuple[Ints, Walkers, Bools] | None = None

    @property
    def known(self) -> NDArray[np.int64]:
        """Every step is fed back before the next, `[T]`."""
        return np.arange(self.steps)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """All actions, but in a trial that is over the first alone: it counts for nothing."""
        allowed = np.ones((self.num_envs, self.actions), bool)
        allowed[self._over(), 1:] = False
        return allowed

    def reset(self) -> tuple[Float32, dict[str, Any]]:
        """New mazes for every trial: pictures as contexts `[B, C]`, info."""
        numbers = self._maze_rng.choice(len(self._world.mazes), self.num_envs)
        self._dreamt = None
        self._world.load(np.arange(self.num_envs), [int(number) for number in numbers])
        self._step = 0
        self._in_episode[:] = 0
        self._episode[:] = 0
        self._to_go = true_steps_to_go(self._world.ground)
        return self._observation(), {"mazes": numbers}

    def step(self, actions: Array) -> tuple[Float32, Array, Array, Array, dict[str, Any]]:
        """One step a trial, actions `[B]`: observation, reward, terminated, truncated, info.

        `terminated`: the target was found; `truncated`: the episode's steps are spent. The
        observation is then that of the next episode. Trials that are over stand still and earn 0.
        """
        if self._step >= self.steps:
            raise RuntimeError(f"all {self.steps} steps of these trials are spent: call reset()")
        self._dreamt = None
        going = np.flatnonzero(~self._over())
        rewards = np.zeros(self.num_envs, np.float32)
        terminated = np.zeros(self.num_envs, bool)
        truncated = np.zeros(self.num_envs, bool)
        if going.size:
            chosen = np.asarray(actions, np.int64)[going]
            found = self._world.act(chosen, going)
            hit = into_wall(self._world.ground, self._world.at, going, chosen) & ~found
            rewards[going] = LIVING + FOUND * found + WALL_HIT * hit
            self._in_episode[going] += 1
            terminated[going] = found
            truncated[going] = ~found & (self._in_episode[going] >= self.episode_steps)
        ended = np.flatnonzero(terminated | truncated)
        self._episode[ended] += 1
        self._in_episode[ended] = 0
        self._world.again(ended[self._episode[ended] < self.episodes])
        self._step += 1
        info = {"trial_over": bool(self._over().all()) or self._step == self.steps}
        return self._observation(), rewards, terminated, truncated, info

    @staticmethod
    def shown(reward: Array) -> Float32:
        """Rewards of any shape as a policy is shown them: they lie in [−1, 1] as they are."""
        return np.asarray(reward, np.float32)

    def expected(self, actions: Array) -> NDArray[np.float64]:
        """What these actions `[B]` earn, by the model of the engine, which is not random."""
        _, found = self._foreseen(actions)
        earned: NDArray[np.float64] = np.where(self._over(), 0.0, LIVING + FOUND * found)
        return earned

    def bounds(self) -> tuple[Array, Array]:
        """What a step earns where the target is never found, and by one who knows the way."""
        start = self._world.ground.start
        rows = np.arange(self.num_envs)
        steps = self._to_go[rows, self._world.ground.heading, start[:, 1], start[:, 0]]
        return np.full(self.num_envs, LIVING), LIVING + FOUND / np.maximum(steps, 1.0)

    def lost(self, actions: Array) -> NDArray[np.float64]:
        """What these actions `[B]` cost: how much farther the target is than it need be."""
        after, found = self._foreseen(actions)
        farther = 1.0 + np.where(found, 0.0, self._left(after)) - self._left(self._world.at)
        cost: NDArray[np.float64] = np.where(self._over(), 0.0, -LIVING * farther)
        return cost

    def told(self) -> Float32:
        """For a critic: steps to the target, of the episode, episodes left, and if it is over."""
        over = self._over()
        told = np.stack(
            [
                np.where(over, 0.0, self._left(self._world.at) / 50.0),
                self._in_episode / self.episode_steps,
                (self.episodes - self._episode) / self.episodes,
                over,
            ],
            1,
        )
        return told.astype(np.float32)

    def _foreseen(self, actions: Array) -> tuple[Walkers, Bools]:
        """Where these actions lead, by the model, and who is at the target then; asked twice."""
        chosen = np.asarray(actions, np.int64)
        if self._dreamt is None or not np.array_equal(chosen, self._dreamt[0]):
            after = walk(self._world.at, chosen, self._world.ground.solid)
            self._dreamt = chosen.copy(), after, self._world.ground.touching(after)
        return self._dreamt[1:]

    def _left(self, at: Walkers) -> Floats:
        """Steps to the target by one who knows the maze, about, `[B]`."""
        rows = np.arange(self.num_envs)
        i, j = (at.x // CELL).astype(int), (at.y // CELL).astype(int)
        heading = np.round(at.angle / 90.0).astype(int) % 4
        left: Floats = np.minimum(self._to_go[rows, heading, j, i], 1_000.0)
        return left

    def _over(self) -> Bools:
        over: Bools = self._episode >= self.episodes
        return over

    def _observation(self) -> Float32:
        shown = self._world.contexts()
        shown[self._over()] = 0.0
        return shown


def true_steps_to_go(ground: Ground) -> Floats:
    """Steps to the target by one who knows the mazes, `[B, 4, Y, X]`, about."""
    red = ground.solid & ~ground.walls
    everyone = np.ones(len(red), bool)
    return steps_to_go(~ground.walls, ground.walls, red, everyone)


def into_wall(ground: Ground, at: Walkers, rows: Ints, actions: Ints) -> Bools:
    """Who of `rows`, having gone forward, is pressed against a wall `[n]`."""
    way = np.radians(at.angle[rows])
    x, y = at.x[rows], at.y[rows]
    pressed = np.zeros(len(rows), bool)
    for ahead, dx, dy in ((np.cos(way), 1.0, 0.0), (np.sin(way), 0.0, 1.0)):
        reach = np.sign(ahead) * (RADIUS + _NEAR)
        i, j = (x + dx * reach) // CELL, (y + dy * reach) // CELL
        wall = ground.walls[rows, j.astype(int), i.astype(int)]
        pressed |= wall & (np.abs(ahead) > 0.1)
    hit: Bools = pressed & (actions == FORWARD)
    return hit
