"""Where B mazes are walked: in the model of the engine, or in the engine itself, in the same words.

A world moves players and says who touched the target. It must never count steps or end an episode
by itself: what a trial is, others say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from contract.encode import Float32
from training.tasks.mazes.engine import PIXELS
from training.tasks.mazes.ground import SHIFT, Bools, Ground, Ints
from training.tasks.mazes.layouts import Layout
from training.tasks.mazes.seats import Seats
from training.tasks.mazes.sight import features
from training.tasks.mazes.walking import FORWARD, TICS, Walkers, standing, walk
from training.tasks.mazes.workers import Engines

R = TypeVar("R")


class World(Protocol):
    """B players, each in a maze."""

    ground: Ground
    at: Walkers
    """Where they are, in the ground's map units."""
    mazes: Sequence[Layout]
    """The mazes there are, by number."""

    @property
    def parts(self) -> Sequence[slice]:
        """Which players each process has that could play them by itself."""
        ...

    def load(self, rows: Ints, numbers: Sequence[int]) -> None:
        """These players at the start of these mazes."""
        ...

    def again(self, rows: Ints) -> None:
        """These players back at their starts."""
        ...

    def act(self, actions: Ints, rows: Ints | None = None) -> Bools:
        """One action each; `rows`: of these players alone. Who touched the target `[n]`."""
        ...

    def contexts(self) -> NDArray[Any]:
        """What a policy is told of what everybody sees now, `[B, C]`; later acts leave it alone."""
        ...


class ModelWorld:
    """Walks by `walking`: fast, and with rays in place of a picture."""

    parts: Sequence[slice] = ()

    def __init__(
        self,
        mazes: Sequence[Layout],
        trials: int,
        noise: float = 0.0,
        rng: np.random.Generator | None = None,
    ) -> None:
        """`noise`: deviation added to the rays in contexts, drawn from `rng`: eyes err as well."""
        self.mazes = mazes
        self._noise, self._rng = noise, rng
        self.ground = Ground.room(trials, max(len(maze.open) for maze in mazes))
        nowhere = np.zeros(trials)
        self.at = standing(nowhere, nowhere, nowhere)

    def load(self, rows: Ints, numbers: Sequence[int]) -> None:
        """See `World`."""
        for row, number in zip(rows, numbers, strict=True):
            self.ground.put(int(row), self.mazes[number])
        self.again(rows)

    def again(self, rows: Ints) -> None:
        """See `World`."""
        self.at.put(rows, self.ground.at_start().take(rows))

    def act(self, actions: Ints, rows: Ints | None = None) -> Bools:
        """See `World`."""
        if rows is None:
            self.at = walk(self.at, actions, self.ground.solid)
            return self.ground.touching(self.at)
        self.at.put(rows, walk(self.at.take(rows), actions, self.ground.solid[rows]))
        touched: Bools = self.ground.touching(self.at)[rows]
        return touched

    def contexts(self) -> Float32:
        """Rays `[B, 3R]`; see `features`."""
        told = features(self.ground.look(self.at))
        return told if self._rng is None else blurred(told, self._noise, self._rng)


class EngineWorld:
    """Walks in ViZDoom. Use it in a `with`, or close its engines."""

    def __init__(
        self,
        mazes: Sequence[Layout],
        engines: Engines | Seats,
        numbers: Sequence[int] | None = None,
    ) -> None:
        """`numbers`: of these mazes in the WAD, where they are some of it alone."""
        self.mazes = mazes
        self._numbers = range(len(mazes)) if numbers is None else numbers
        self.engines = engines
        trials = len(engines.poses)
        self.ground = Ground.room(trials, max(len(maze.open) for maze in mazes))
        nowhere = np.zeros(trials)
        self.at = standing(nowhere, nowhere, nowhere)
        self._all = np.arange(trials)
        self._before = np.full(trials, FORWARD)

    def load(self, rows: Ints, numbers: Sequence[int]) -> None:
        """See `World`."""
        for row, number in zip(rows, numbers, strict=True):
            self.ground.put(int(row), self.mazes[number])
        self.engines.load([int(row) for row in rows], [self._numbers[one] for one in numbers])
        self._arrive(rows)

    def again(self, rows: Ints) -> None:
        """See `World`."""
        if len(rows):
            self.engines.restart([int(row) for row in rows])
            self._arrive(rows)

    def act(self, actions: Ints, rows: Ints | None = None) -> Bools:
        """See `World`."""
        rows = self._all if rows is None else rows
        touched = self.engines.act([int(row) for row in rows], [int(one) for one in actions])
        held = np.where(actions == self._before[rows], self.at.held[rows], 0) + TICS
        self.at.held[rows] = np.where(actions == FORWARD, 0, held)
        self._before[rows] = actions
        self._look(rows)
        return touched

    @property
    def parts(self) -> Sequence[slice]:
        """See `World`."""
        return self.engines.parts

    def have(self, jobs: Sequence[Callable[[Seats], R]]) -> list[R]:
        """Has every worker do its job; see `Engines.have`. Players are loaded anew after it."""
        assert isinstance(self.engines, Engines)
        return self.engines.have(jobs)

    def pictures(self) -> NDArray[np.uint8]:
        """What everybody sees now, uint8 `[B, 30, 40, 3]`, in memory that the next act changes."""
        pictures: NDArray[np.uint8] = self.engines.pictures
        return pictures

    def contexts(self) -> NDArray[np.uint8]:
        """Pictures as bytes, `[B, 3600]`, of which a network makes what `as_context` makes."""
        return self.pictures().reshape(-1, PIXELS).copy()

    def _arrive(self, rows: Ints) -> None:
        self.at.held[rows] = 0
        self._before[rows] = FORWARD
        self._look(rows)

    def _look(self, rows: Ints) -> None:
        poses = self.engines.poses[rows]
        self.at.x[rows], self.at.y[rows] = poses[:, 0] + SHIFT, poses[:, 1] + SHIFT
        self.at.angle[rows], self.at.vx[rows], self.at.vy[rows] = poses[:, 2:].T


def blurred(rays: Float32, noise: float, rng: np.random.Generator) -> Float32:
    """Rays `[B, 3R]` whose lengths are off by this deviation; what they end at is not."""
    ends = rays.shape[1] // 3 * 2
    rays[:, :ends] += rng.normal(0.0, noise, (len(rays), ends)).astype(np.float32)
    return rays


def as_context(pictures: NDArray[np.uint8]) -> Float32:
    """Pictures uint8 `[..., 30, 40, 3]` as contexts `[..., 3600]` in [−1, 1]."""
    flat = pictures.reshape(*pictures.shape[:-3], PIXELS)
    context: Float32 = flat.astype(np.float32) * np.float32(2 / 255) - np.float32(1)
    return context


def wad_for(
    mazes: Sequence[Layout],
    folder: Path,
    name: str = "mazes",
    looks: np.random.Generator | None = None,
) -> Path:
    """The WAD of these mazes, in this folder; all alike, or painted and lit as `looks` draws."""
    from training.tasks.mazes.wad import varied, write_wad

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.wad"
    write_wad(path, mazes, None if looks is None else [varied(looks) for _ in mazes])
    return path
