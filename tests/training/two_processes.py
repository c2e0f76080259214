"""What each of two processes does in the test of data-parallel training. Started by torchrun."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from tests.training.trials import TINY
from training import distributed
from training.hyperparameters import Hyperparameters
from training.informed_mdps import TOLD, InformedMDPs
from training.policies.network import build, build_critic
from training.rollout import Played, play
from training.tasks.bandits import BernoulliBandits
from training.tasks.task import Task
from training.trpo import (
    Learner,
    fit_critic,
    fit_value,
    improve_policy,
    new_learner,
    prepare,
)

WHOLE = {"fisher_trials": 1.0, "fisher_times": 1.0, "critic_batches": 1, "critic_epochs": 2}


def learner_of(network: str) -> tuple[Learner, Hyperparameters]:
    """The same learner in every process; nothing in it draws a sample of the trials."""
    h = Hyperparameters(**{**vars(TINY), **WHOLE})
    if network == "planning":
        critic = build_critic("informed", {"told": TOLD}, 2)
        return new_learner(build(network, {"width": 4}, 1), critic, 3, h), h
    sizes = {"actions": 3, "hidden": 5}
    if network == "actionwise":
        sizes = {"shared": 5, "row": 4, "width": 6}
    return new_learner(build(network, sizes, 1), build(network, sizes, 2), 3, h), h


def update(learner: Learner, h: Hyperparameters, played: list[Played]) -> dict[str, float]:
    """One iteration on trials that were already played, side by side in one batch."""
    batches = [prepare(learner.critic, played, h)]
    improved = improve_policy(learner.policy, batches, learner.rng, h, 1)
    errors = {"critic": fit_critic(learner, batches, h)}
    learner.rng = np.random.default_rng(7)  # which steps the value head sees
    return improved | errors | {"value": fit_value(learner, batches)}


def task_of(network: str, rng: np.random.Generator) -> Task:
    """What such a network is trained on."""
    return InformedMDPs(8, 2, rng) if network == "planning" else BernoulliBandits(16, 3, 6, rng)


def main() -> None:
    out, network = Path(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    with distributed.together():
        learner, h = learner_of(network)
        played = play(learner.policy, task_of(network, learner.rng), learner.rng)
        report = distributed.mean_of(update(learner, h, [played]))
        weights = learner.policy.state_dict(), learner.critic.state_dict()
        torch.save((played, weights, report), out / f"{distributed.number()}.pt")


if __name__ == "__main__":
    main()
