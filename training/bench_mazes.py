"""How fast mazes are played: TRPO's rollouts beside the engine alone with random actions.

The same engines in the same workers, in turns, so that whatever else the machine does bears on
both; each begins an episode in every engine once a turn. It must never train.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from training.policies.vision import Vision, VisionSizes
from training.spread import play
from training.tasks.mazes.layouts import layouts
from training.tasks.mazes.trials import MazeTrials
from training.tasks.mazes.workers import Engines
from training.tasks.mazes.worlds import EngineWorld, wad_for


@dataclass(frozen=True)
class Costs:
    """Processor time of a step, microseconds on one core, the median of some rounds."""

    learner: float
    workers: float
    engines: float


@dataclass(frozen=True)
class Speeds:
    """Steps a second, the median of some rounds."""

    engine_alone: float
    """One engine after the other, each in a warm cache."""
    in_turns: float
    """A step of each engine, then the next, asked from outside as a policy asks."""
    rollouts: float
    alone_costs: Costs
    rollout_costs: Costs
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
    alone_costs, rollout_costs = [], []
    torch.set_num_threads(1)
    with (
        tempfile.TemporaryDirectory(prefix="acclimate-mazes-") as folder,
        Engines(wad_for(mazes, Path(folder)), engines, workers, seed) as running,
    ):
        world = EngineWorld(mazes, running)
        for turn in range(rounds + 1):
            numbers = rng.choice(len(mazes), engines, replace=False)
            running.load(range(engines), numbers.tolist())
            used = [_processor_seconds(running)]
            began = time.perf_counter()
            running.walk_at_random(steps)
            used.append(_processor_seconds(running))
            middle = time.perf_counter()
            running.walk_at_random(steps, in_turns=True)
            turned = time.perf_counter()
            task = MazeTrials(world, rng, episodes=1_000_000, steps=steps)
            used.append(_processor_seconds(running))
            ready = time.perf_counter()
            play(policy, task, rng)
            ended = time.perf_counter()
            used.append(_processor_seconds(running))
            if turn:
                alone.append(engines * steps / (middle - began))
                turns.append(engines * steps / (turned - middle))
                played.append(engines * steps / (ended - ready))
                alone_costs.append((used[1] - used[0]) / (engines * steps))
                rollout_costs.append((used[3] - used[2]) / (engines * steps))
    return Speeds(
        engine_alone=median(alone),
        in_turns=median(turns),
        rollouts=median(played),
        alone_costs=_costs(alone_costs),
        rollout_costs=_costs(rollout_costs),
        engines=engines,
        workers=workers,
        rounds=rounds,
    )


def _processor_seconds(running: Engines) -> NDArray[np.float64]:
    """Seconds used so far by this process, the workers and the engines, `[3]`."""
    groups = [[os.getpid()], running.pids, running.engine_pids]
    return np.array([sum(_used(pid) for pid in group) for group in groups])


def _used(pid: int) -> float:
    """A process's processor time, seconds, of all its threads; NaN where the system tells none."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return float("nan")
    spent = []
    for task in tasks:
        with suppress(OSError):  # it has ended since
            spent.append(int((task / "schedstat").read_text().split()[0]))
    return sum(spent) / 1e9 if spent else float("nan")


def _costs(rounds: Sequence[NDArray[np.float64]]) -> Costs:
    """The median round's, of seconds a step `[3]`."""
    return Costs(*(1e6 * np.median(rounds, axis=0)).tolist())


def to_json(speeds: Speeds) -> dict[str, Any]:
    """As plain numbers."""
    return {**asdict(speeds), "share": speeds.share}
