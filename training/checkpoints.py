"""Checkpoints: everything that a run needs to go on exactly as if it had never stopped.

A checkpoint is written whole or not at all, and one that does not fit is refused before anything
is overwritten.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training import distributed
from training.curricula import build_curriculum, settings_of
from training.curriculum import Curriculum
from training.hyperparameters import Hyperparameters
from training.policies.network import architecture, build, build_critic
from training.trpo import Learner, new_learner, refuse_not_finite_weights
from training.whole_files import whole

FORMAT = 2
FILE = "checkpoint.pt"


class CheckpointError(RuntimeError):
    """A checkpoint cannot be used. The message says which and why."""


def save(
    learner: Learner,
    run: dict[str, Any],
    hyperparameters: Hyperparameters,
    curriculum: Curriculum,
    path: Path,
) -> None:
    """Writes beside `path`, then renames: a reader sees the old file or the new one.

    `run` is whatever else the run wants to find again: seed, command, time spent, machine. Raises
    TrainingDivergedError, and writes nothing, when a weight is not finite. Of several processes the
    first writes, for all of them.
    """
    refuse_not_finite_weights(learner, learner.iteration)
    generators = distributed.gathered(_rng_state(learner.rng))
    if distributed.number():
        return
    state = {
        "format": FORMAT,
        "architecture": architecture(learner.policy),
        "hyperparameters": asdict(hyperparameters),
        "curriculum": {"name": curriculum.name, "settings": settings_of(curriculum)},
        "run": run,
        "iteration": learner.iteration,
        "steps": learner.steps,
        "history": learner.history,
        "policy": learner.policy.state_dict(),
        "critic_architecture": architecture(learner.critic),
        "critic": learner.critic.state_dict(),
        "critic_optimiser": learner.critic_optimiser.state_dict(),
        "value_optimiser": learner.value_optimiser.state_dict(),
        "lesson_optimiser": learner.lesson_optimiser.state_dict(),
        "belief_optimiser": learner.belief_optimiser.state_dict(),
        "rng": generators[0],
        "other_rngs": generators[1:],
    }
    with whole(path) as partial, partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())


def load(path: Path) -> tuple[Learner, dict[str, Any], Hyperparameters, Curriculum]:
    """The learner, the run, its hyperparameters and its curriculum. Raises CheckpointError."""
    state = read(path)
    try:
        hyperparameters = Hyperparameters(**state["hyperparameters"])
        curriculum = build_curriculum(**state["curriculum"])
        name, sizes = state["architecture"]["name"], state["architecture"]["sizes"]
        critic = build_critic(**state.get("critic_architecture", state["architecture"]))
        learner = new_learner(build(name, sizes), critic, 0, hyperparameters)
        learner.policy.load_state_dict(state["policy"])
        learner.critic.load_state_dict(state["critic"])
        learner.critic_optimiser.load_state_dict(state["critic_optimiser"])
        learner.value_optimiser.load_state_dict(state["value_optimiser"])
        if "lesson_optimiser" in state:
            learner.lesson_optimiser.load_state_dict(state["lesson_optimiser"])
        if "belief_optimiser" in state:
            learner.belief_optimiser.load_state_dict(state["belief_optimiser"])
        generators = [state["rng"], *state.get("other_rngs", [])]
        learner.rng = _rng_of(generators[distributed.number() % len(generators)])
        learner.iteration, learner.steps = state["iteration"], state["steps"]
        learner.history = state["history"]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: its parts do not fit together: {error}") from error
    return learner, state["run"], hyperparameters, curriculum


def read(path: Path) -> dict[str, Any]:
    """The raw state in a checkpoint file. Raises CheckpointError for a file that is not one."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no checkpoint there")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its unpickler and zip reader meet
        raise CheckpointError(
            f"{path}: truncated or not a checkpoint ({type(error).__name__}); nothing was changed"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path}: expected a checkpoint of format {FORMAT}")
    return state


def refuse_other_architecture(path: Path, learner: Learner, wanted: dict[str, Any]) -> None:
    """Raises CheckpointError unless the checkpoint holds the network that was asked for."""
    found = architecture(learner.policy)
    if found != wanted:
        raise CheckpointError(
            f"{path}: holds {_shown(found)}, but {_shown(wanted)} was asked for; resume with the "
            "same network, or choose another --out"
        )


def refuse_other_processes(path: Path, run: dict[str, Any]) -> None:
    """Raises CheckpointError unless as many processes go on as made the checkpoint."""
    made, now = run.get("processes", 1), distributed.count()
    if made != now:
        raise CheckpointError(
            f"{path}: trained by {made} processes, and a resumed run keeps their number; "
            f"started with {now}"
        )


def _shown(built: dict[str, Any]) -> str:
    sizes = ", ".join(f"{key} {value}" for key, value in built["sizes"].items())
    return f"{built['name']} ({sizes})"


def _rng_state(rng: np.random.Generator) -> dict[str, Any]:
    """A generator with its count of spawned children, in plain numbers."""
    bits = rng.bit_generator
    seeds = bits.seed_seq
    assert isinstance(seeds, np.random.SeedSequence)
    inner = bits.state["state"]
    return {
        "state": str(inner["state"]),
        "inc": str(inner["inc"]),
        "has_uint32": int(bits.state["has_uint32"]),
        "uinteger": int(bits.state["uinteger"]),
        "entropy": str(seeds.entropy),
        "children": seeds.n_children_spawned,
    }


def _rng_of(state: dict[str, Any]) -> np.random.Generator:
    seeds = np.random.SeedSequence(int(state["entropy"]), n_children_spawned=state["children"])
    bits = np.random.PCG64(seeds)
    bits.state = {
        "bit_generator": "PCG64",
        "state": {"state": int(state["state"]), "inc": int(state["inc"])},
        "has_uint32": state["has_uint32"],
        "uinteger": state["uinteger"],
    }
    return np.random.Generator(bits)
