"""How fast mazes are played: TRPO's rollouts beside the engine alone with random actions.

The same engines in the same workers, in turns, so that whatever else the machine does bears on
both. It must never train.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from training.policies.vision import Vision, VisionSizes
from training.spread import play
from training.tasks.mazes.layouts import layouts
from training.tasks.mazes.trials import MazeTrials
from training.tasks.mazes.workers import Engines
from training.tasks.mazes.worlds import EngineWorld, wad_for


@dataclass(frozen=True)
class Speeds:
    """Steps a second, the median of some rounds."""

    engine_alone: float
    """One engine after the other, each in a warm cache."""
    in_turns: float
    """A step of each engine, then the next, asked from outside as a policy asks."""
    rollouts: float
    engines: int
    workers: int
    rounds: int

    @property
    def share(self) -> float:
        """Of the engine's speed that rollouts reach."""
        return self.rollouts / self.engine_alone


def bench_mazes(engines: int, workers: int, rounds: int, steps: int, seed: int = 0) -> Speeds:
    """`rounds` turns of `steps` steps a maze, after one that warms up."""
    mazes = list(islice(layouts(3, "train", seed), 200))
    policy = Vision(VisionSizes())
    rng = np.random.default_rng(seed)
    alone, turns, played = [], [], []
    torch.set_num_threads(1)
    with (
        tempfile.TemporaryDirectory(prefix="acclimate-mazes-") as folder,
        Engines(wad_for(mazes, Path(folder)), engines, workers, seed) as running,
    ):
        world = EngineWorld(mazes, running)
        for turn in range(rounds + 1):
            numbers = rng.choice(len(mazes), engines, replace=False)
            running.load(range(engines), numbers.tolist())
            began = time.perf_counter()
            running.walk_at_random(steps)
            middle = time.perf_counter()
            running.walk_at_random(steps, in_turns=True)
            turned = time.perf_counter()
            task = MazeTrials(world, rng, episodes=1_000_000, steps=steps)
            ready = time.perf_counter()
            play(policy, task, rng)
            ended = time.perf_counter()
            if turn:
                alone.append(engines * steps / (middle - began))
                turns.append(engines * steps / (turned - middle))
                played.append(engines * steps / (ended - ready))
    return Speeds(median(alone), median(turns), median(played), engines, workers, rounds)


def to_json(speeds: Speeds) -> dict[str, Any]:
    """As plain numbers."""
    return {**asdict(speeds), "share": speeds.share}
