"""Random records and networks with weights that matter, small enough to check by hand."""

from __future__ import annotations

from typing import Any

import torch

from training.curriculum import BanditCurriculum
from training.hyperparameters import Hyperparameters
from training.policies.actionwise import Actionwise
from training.policies.network import Network, build
from training.record import Record
from training.trpo import Learner, new_learner

SMALL: dict[str, Any] = {"shared": 5, "row": 4, "width": 6, "context": 3, "action_features": 2}


def record(*, T: int = 7, B: int = 3, K: int = 4, C: int = 3, F: int = 2, seed: int = 0) -> Record:
    """A record of random interactions, every action allowed."""
    draw = torch.Generator().manual_seed(seed)
    return Record(
        action=torch.randint(0, K, (T, B), generator=draw),
        reward=torch.randint(0, 2, (T, B), generator=draw).float() * 2 - 1,
        done=torch.randint(0, 2, (T, B), generator=draw).float(),
        horizon_left=torch.rand(T, B, 2, generator=draw),
        context=torch.rand(T, B, C, generator=draw) * 2 - 1,
        action_features=torch.rand(B, K, F, generator=draw) * 2 - 1,
        action_mask=torch.ones(B, K, dtype=torch.bool),
    )


def small_actionwise(seed: int = 0) -> Actionwise:
    """An actionwise network whose every weight and blank memory counts."""
    network = build("actionwise", SMALL, seed=seed)
    assert isinstance(network, Actionwise)
    shake(network, seed)
    return network


def small_believing(seed: int = 0) -> Actionwise:
    """The same with exact statistics in its rows."""
    network = build("actionwise", SMALL | {"belief": True}, seed=seed)
    assert isinstance(network, Actionwise)
    shake(network, seed)
    return network


def shake(network: Network, seed: int = 0, scale: float = 0.3) -> None:
    """Moves every parameter away from where it started, zeros too."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draw) * scale)


def step_by_step(
    network: Network, one: Record
) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """Probabilities at every step, and the memory of all, by `decide` and `learn` in turn."""
    memories = [network.blank(one.trials, one.action_mask.shape[1])]
    probabilities = []
    for t in range(one.steps):
        shared, rows = memories[t if one.known is None else int(one.known[t])]
        chosen, _ = network.decide(
            shared,
            rows,
            one.context[t],
            one.action_mask,
            one.horizon_left[t],
            one.action_features,
        )
        probabilities.append(chosen)
        learned = network.learn(
            *memories[t],
            one.context[t],
            one.action[t],
            one.reward[t],
            one.done[t],
            one.action_features,
        )
        memories.append(learned)
    return probabilities, *memories[-1]


TINY = Hyperparameters(teacher="none", cg_iterations=3, fisher_trials=0.5, fisher_times=1.0)
TINY_BANDITS = BanditCurriculum(
    horizons=2,
    groups=2,
    steps_per_group=60,
    arms=(2, 4),
    held_out_arms=(),
    pulls=(3, 6),
    growing=0,
    gaussian_share=0.0,
    drift_share=0.0,
    delay_share=0.0,
)
"""A run whose iterations take milliseconds."""


def tiny_learner(seed: int = 1, hyperparameters: Hyperparameters = TINY) -> Learner:
    """A learner with small networks, at iteration 0."""
    sizes = {"shared": 5, "row": 4, "width": 6}
    return new_learner(
        build("actionwise", sizes, seed=seed),
        build("actionwise", sizes, seed=seed + 1),
        seed,
        hyperparameters,
    )
