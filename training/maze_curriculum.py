"""What TRPO trains on mazes: trials in the model of the engine, or in ViZDoom, whose engines run on
from iteration to iteration.

Engines belong to the process and are ended with it. It must never draw a layout of the tests.
"""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from training.check import Look
from training.maze_draws import draw_mazes
from training.tasks.mazes.layouts import layouts
from training.tasks.mazes.trials import TOLD, MazeTrials
from training.tasks.mazes.workers import Engines
from training.tasks.mazes.worlds import EngineWorld, ModelWorld, World, wad_for
from training.tasks.task import Task

if TYPE_CHECKING:
    from training.policies.informed import InformedCritic


@dataclass(frozen=True)
class MazeCurriculum:
    """Small mazes, a few episodes each."""

    name: ClassVar[str] = "mazes"

    engines: int = 16
    """Trials at once."""
    workers: int = 1
    batches_an_iteration: int = 2
    episodes: int = 2
    steps: int = 300
    """Of a trial at most."""
    layouts: int = 1_000
    """Different training layouts."""
    layouts_seed: int = 0
    varied: bool = False
    """Whether mazes differ in textures and light."""
    in_model: bool = False
    """Whether they are walked in the model of the engine, on rays: `engines` trials, all new."""
    larger: float = 0.0
    """Share of mazes of 4×4 rooms in the model."""
    hard: float = 0.0
    """Share of mazes there that take the explorer long."""
    noise: float = 0.03
    """Deviation added to rays there."""

    def __post_init__(self) -> None:
        for name in ("engines", "workers", "batches_an_iteration", "episodes", "steps", "layouts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.workers > self.engines:
            raise ValueError(f"workers: expected at most {self.engines}, got {self.workers}")
        for name in ("larger", "hard"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name}: expected a share in [0, 1], got {getattr(self, name)}")
            if getattr(self, name) and not self.in_model:
                raise ValueError(f"{name}: expected --in-model beside it, which draws such mazes")
        if self.varied and self.in_model:
            raise ValueError("varied: expected no --in-model beside it: rays have no textures")

    def batches(self, rng: np.random.Generator, iteration: int) -> Iterator[Sequence[Task]]:
        """One group of trials a batch."""
        for _ in range(self.batches_an_iteration):
            yield [self._trials(rng)]

    def looks(self, action_range: tuple[int, int]) -> list[Look]:
        """None beside the training curve: `acclimate evaluate mazes` plays the test layouts."""
        return []

    def _trials(self, rng: np.random.Generator) -> MazeTrials:
        world: World
        if self.in_model:
            mazes = draw_mazes(
                rng, self.engines, larger=self.larger, hard=self.hard, seed=self.layouts_seed
            )
            world = ModelWorld(mazes, self.engines, self.noise, rng)
            return MazeTrials(
                world,
                rng,
                episodes=self.episodes,
                steps=self.steps,
                mazes=np.arange(self.engines),
            )
        world = _world(self.engines, self.workers, self.layouts, self.layouts_seed, self.varied)
        return MazeTrials(world, rng, episodes=self.episodes, steps=self.steps)


def new_critic(seed: int) -> InformedCritic:
    """A critic that is told how far the target is."""
    from training.policies.informed import InformedCritic
    from training.policies.network import build_critic

    critic = build_critic(InformedCritic.name, {"told": TOLD}, seed=seed + 1)
    assert isinstance(critic, InformedCritic)
    return critic


@cache
def _world(engines: int, workers: int, count: int, seed: int, varied: bool) -> EngineWorld:
    """The engines of this process, with small training layouts."""
    mazes = list(islice(layouts(3, "train", seed), count))
    folder = tempfile.TemporaryDirectory(prefix="acclimate-mazes-")
    looks = np.random.default_rng((seed, count)) if varied else None
    wad = wad_for(mazes, Path(folder.name), looks=looks)
    running = Engines(wad, engines, workers, seed)
    atexit.register(folder.cleanup)
    atexit.register(running.close)
    return EngineWorld(mazes, running)
