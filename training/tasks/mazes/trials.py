"""Mazes in ViZDoom, or in the model of it, as a task family: B trials at once, as Gymnasium has it.

A trial is a number of episodes in one maze, each from the same start, and ends with the last of
them, or after T steps. The rewards of Duan et al. (2016), section 3.3: +1 at the target, −0.04 a
step, −0.001 for walking into a wall. Numpy only: it must never import torch or know a policy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from contract.encode import Float32
from training.tasks.mazes.ground import Bools, Ground, Ints
from training.tasks.mazes.hindsight import TOLD, Hindsight, Moments
from training.tasks.mazes.layouts import Layout
from training.tasks.mazes.seats import Seats
from training.tasks.mazes.streams import FOUND, LIVING
from training.tasks.mazes.wad import CELL
from training.tasks.mazes.walking import ACTIONS, FORWARD, RADIUS, Walkers
from training.tasks.mazes.worlds import EngineWorld, World
from training.tasks.task import Recount

__all__ = ["EPISODE_STEPS", "REWARD_RANGE", "TOLD", "WALL_HIT", "MazeTrials"]

Array = NDArray[Any]
R = TypeVar("R")

WALL_HIT = -0.001
REWARD_RANGE = (-1.0, 1.0)
EPISODE_STEPS = {"small": 250, "large": 1_000}
"""Steps after which an episode is over, found or not."""
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
        mazes: Ints | None = None,
    ) -> None:
        """`mazes` `[B]`: whose trials these are, by number; None: they are drawn."""
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
        self._mazes = mazes
        self._step = steps
        self._in_episode = np.zeros(self.num_envs, int)
        self._episode = np.zeros(self.num_envs, int)
        self._rows = np.arange(self.num_envs)
        self._past: list[Moments] = []
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

    def reset(self) -> tuple[Array, dict[str, Any]]:
        """New mazes for every trial: pictures as contexts `[B, C]`, info."""
        numbers = self._drawn()
        self._dreamt = None
        self._past = []
        self._world.load(self._rows, [int(number) for number in numbers])
        self._step = 0
        self._in_episode[:] = 0
        self._episode[:] = 0
        self._hindsight = Hindsight(self._world.ground, self.episodes, self.episode_steps)
        return self._observation(), {"mazes": numbers}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """One step a trial, actions `[B]`: observation, reward, terminated, truncated, info.

        `terminated`: the target was found; `truncated`: the episode's steps are spent. The
        observation is then that of the next episode. Trials that are over stand still and earn 0.
        """
        if self._step >= self.steps:
            raise RuntimeError(f"all {self.steps} steps of these trials are spent: call reset()")
        self._dreamt = None
        self._past.append(self._now())
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
        return self._hindsight.expected(self._now(), self._foreseen(actions)[1])

    def bounds(self) -> tuple[Array, Array]:
        """What a step earns where the target is never found, and by one who knows the way."""
        return self._hindsight.bounds()

    def lost(self, actions: Array) -> NDArray[np.float64]:
        """What these actions `[B]` cost: how much farther the target is than it need be."""
        return self._hindsight.lost(self._now(), *self._foreseen(actions))

    def told(self) -> Float32:
        """For a critic: steps to the target, of the episode, episodes left, and if it is over."""
        return self._hindsight.told(self._now())

    def recount(self, actions: Array) -> Recount:
        """All that is above, of every step since `reset`, whose actions were these `[T, B]`."""
        past, shape = self._past, np.shape(actions)
        moments = Moments(
            np.concatenate([one.rows for one in past]),
            Walkers.of([one.at for one in past]),
            np.concatenate([one.in_episode for one in past]),
            np.concatenate([one.episode for one in past]),
        )
        after, found = self._hindsight.foreseen(moments, np.asarray(actions, np.int64).ravel())
        low, high = self._hindsight.bounds()
        return Recount(
            expected=self._hindsight.expected(moments, found).reshape(shape),
            random=np.broadcast_to(low, shape),
            best=np.broadcast_to(high, shape),
            lost=self._hindsight.lost(moments, after, found).reshape(shape),
            told=self._hindsight.told(moments).reshape(*shape, TOLD),
        )

    @property
    def parts(self) -> Sequence[slice]:
        """Which trials each worker has that can play its own; none in the model of the engine."""
        return self._world.parts

    def spread(self, jobs: Sequence[Callable[[MazeTrials], R]]) -> list[R]:
        """Has every worker do its job with its part of new trials; see `Engines.have`."""
        world = self._world
        assert isinstance(world, EngineWorld)
        numbers = self._drawn()
        self._step = self.steps
        settings = self.episodes, self.steps, self.episode_steps
        return world.have(
            [
                _Part([world.mazes[one] for one in numbers[part]], numbers[part], settings, job)
                for part, job in zip(self.parts, jobs, strict=True)
            ]
        )

    def _drawn(self) -> Ints:
        """Numbers of the next trials' mazes, `[B]`."""
        if self._mazes is not None:
            return self._mazes
        return self._maze_rng.choice(len(self._world.mazes), self.num_envs)

    def _now(self) -> Moments:
        at = self._world.at.take(self._rows)
        return Moments(self._rows, at, self._in_episode.copy(), self._episode.copy())

    def _foreseen(self, actions: Array) -> tuple[Walkers, Bools]:
        """Where these actions lead, and who is at the target then; asked twice."""
        chosen = np.asarray(actions, np.int64)
        if self._dreamt is None or not np.array_equal(chosen, self._dreamt[0]):
            self._dreamt = chosen.copy(), *self._hindsight.foreseen(self._now(), chosen)
        return self._dreamt[1:]

    def _over(self) -> Bools:
        over: Bools = self._episode >= self.episodes
        return over

    def _observation(self) -> NDArray[Any]:
        shown = self._world.contexts()
        shown[self._over()] = 0.0
        return shown


@dataclass(frozen=True)
class _Part(Generic[R]):
    """A worker's part of some trials, and what it is to do with them."""

    layouts: list[Layout]
    numbers: Ints
    """Of these in the WAD."""
    settings: tuple[int, int, int]
    job: Callable[[MazeTrials], R]

    def __call__(self, seats: Seats) -> R:
        episodes, steps, episode_steps = self.settings
        world = EngineWorld(self.layouts, seats, self.numbers.tolist())
        task = MazeTrials(
            world,
            np.random.default_rng(0),
            episodes=episodes,
            steps=steps,
            episode_steps=episode_steps,
            mazes=np.arange(len(self.layouts)),
        )
        return self.job(task)


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
