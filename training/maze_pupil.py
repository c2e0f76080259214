"""What maze lessons keep: their plan, the pupil, its checkpoint, and the run that they end as.

It must never teach: that is `maze_lessons`.
"""

from __future__ import annotations

import copy
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from training import distributed
from training.policies.vision import Vision, VisionSizes
from training.tasks.mazes.ground import MARKS

STAGES = ("memory", "eyes", "together")
FILE = "lessons.pt"


@dataclass(frozen=True)
class Plan:
    """Everything that shapes the lessons. Minutes are of the process's own computing time."""

    memory_minutes: float = 24.0
    eyes_minutes: float = 8.0
    together_minutes: float = 60.0
    memory_rate: float = 4e-3
    eyes_rate: float = 1.5e-3
    together_rate: float = 5e-4
    streams: int = 192
    """Mazes that are walked at once in the model."""
    engines: int = 24
    workers: int = 1
    steps: tuple[int, ...] = (30, 60, 100, 140, 190)
    """Of a stream: short ones first, so that a memory learns where it is before it learns a map. In
    the engine the last two, half of the lessons each."""
    until: tuple[float, ...] = (0.08, 0.2, 0.4, 0.65)
    """Shares of the lessons in the model at which the streams grow."""
    passes: int = 2
    """Times that each stream is learned from, about."""
    part: int = 16
    """Streams a step of Adam."""
    kept: int = 12
    """Batches of streams from the engine that are learned from again."""
    larger: float = 0.25
    """Share of mazes of 4×4 rooms; the others have 3×3, and none has 5×5."""
    hard: float = 0.5
    """Share of mazes in which the explorer itself searches long: those that a pupil fails."""
    noise: float = 0.03
    """Deviation added to rays in the model."""
    layouts: int = 1_000
    """Different training layouts in the engine."""
    help_share: float = 0.1
    help_after: int = 75
    varied: bool = False
    """Whether mazes in the engine differ in textures and light."""
    sharpened: float = 6.0
    """What scores are multiplied by at the end: who imitates hesitates, and a service draws."""

    def minutes(self, stage: str) -> float:
        """How long a stage lasts."""
        return float(getattr(self, f"{stage}_minutes"))


@dataclass
class Pupil:
    """Everything that changes in lessons, and so everything that their checkpoint keeps."""

    policy: Vision
    marker: nn.Linear
    optimiser: torch.optim.Adam
    rng: np.random.Generator
    seed: int
    stage: str = STAGES[0]
    minutes: float = 0.0
    """Spent in this stage."""
    iteration: int = 0
    """Within this stage."""
    steps: int = 0
    """Walked in all stages."""
    history: list[dict[str, float]] = field(default_factory=list)


def new_pupil(seed: int, sizes: VisionSizes | None = None) -> Pupil:
    """A pupil that has learned nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = Vision(sizes or VisionSizes())
        marker = nn.Linear(policy.sizes.hidden, MARKS)
    return Pupil(policy, marker, _adam(policy, marker), distributed.own_generator(seed), seed)


def _adam(policy: Vision, marker: nn.Linear) -> torch.optim.Adam:
    return torch.optim.Adam([*policy.parameters(), *marker.parameters()])


def save(pupil: Pupil, plan: Plan, path: Path) -> None:
    """Writes beside `path`, then renames. Of several processes the first writes."""
    if distributed.number():
        return
    state = {
        "plan": asdict(plan),
        "sizes": asdict(pupil.policy.sizes),
        "policy": pupil.policy.state_dict(),
        "marker": pupil.marker.state_dict(),
        "optimiser": pupil.optimiser.state_dict(),
        "seed": pupil.seed,
        "stage": pupil.stage,
        "minutes": pupil.minutes,
        "iteration": pupil.iteration,
        "steps": pupil.steps,
        "history": pupil.history,
    }
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        torch.save(state, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load(path: Path) -> Pupil:
    """The pupil of a checkpoint. Raises ValueError for a file that holds none.

    Its generator starts anew from its seed and iteration: mazes drawn before are not drawn again in
    the same order, and nothing else depends on it.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        pupil = new_pupil(int(state["seed"]), VisionSizes(**state["sizes"]))
        pupil.policy.load_state_dict(state["policy"])
        pupil.marker.load_state_dict(state["marker"])
        pupil.optimiser.load_state_dict(state["optimiser"])
        for name in ("stage", "minutes", "iteration", "steps", "history"):
            setattr(pupil, name, state[name])
    except Exception as error:  # torch raises whatever its unpickler and zip reader meet
        raise ValueError(f"{path}: expected a checkpoint of maze lessons: {error}") from error
    passed = (STAGES.index(pupil.stage), pupil.iteration, distributed.number())
    pupil.rng = np.random.default_rng((pupil.seed, *passed))
    return pupil


def begin(pupil: Pupil, stage: str) -> None:
    """This stage from its beginning, with whatever has been learned."""
    pupil.stage, pupil.minutes, pupil.iteration = stage, 0.0, 0
    pupil.optimiser = _adam(pupil.policy, pupil.marker)


def minutes_of(history: list[dict[str, float]]) -> float:
    """Computing time of all stages, of one process: each counts its own minutes from nothing."""
    spent = [entry["minutes"] for entry in history]
    return sum(one for one, after in zip(spent, [*spent, 0.0][1:], strict=True) if after < one)


def finish(pupil: Pupil, plan: Plan, folder: Path, threads: int) -> None:
    """A checkpoint as `acclimate train mazes --start` and `acclimate export` take it."""
    from training import checkpoints
    from training.hyperparameters import Hyperparameters
    from training.maze_curriculum import MazeCurriculum, new_critic
    from training.run import machine
    from training.train_command import typed
    from training.trpo import new_learner

    taught = len(pupil.history)
    policy = copy.deepcopy(pupil.policy)
    with torch.no_grad():
        for parameter in policy.score.parameters():
            parameter.mul_(plan.sharpened)
    hyperparameters = Hyperparameters(teacher="explorer", lessons=taught, expected_rewards=False)
    learner = new_learner(policy, new_critic(pupil.seed), pupil.seed, hyperparameters)
    learner.steps, learner.history, learner.iteration = pupil.steps, pupil.history, taught
    run = {
        "seed": pupil.seed,
        "command": typed(),
        "seconds": 60.0 * minutes_of(pupil.history),
        "task": MazeCurriculum.name,
        "machine": machine(threads),
        "lessons": asdict(plan),
    }
    checkpoints.save(learner, run, hyperparameters, MazeCurriculum(), folder / checkpoints.FILE)
