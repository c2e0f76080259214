"""The networks there are, by name. It must never guess: an unknown name or size is refused.

Every network is two pure functions over a memory (shared `[B, G]`, rows `[B, K, H]`), `decide` and
`learn`, and the same over recorded trials at once, `logits` and `pools`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from training.policies.actionwise import Actionwise, ActionwiseSizes
from training.policies.contextual import Contextual, ContextualSizes
from training.policies.gru import Gru, GruSizes
from training.policies.informed import InformedCritic, InformedSizes
from training.policies.planning import Planning, PlanningSizes
from training.policies.vision import Vision, VisionSizes

Network = Actionwise | Contextual | Gru | Planning | Vision
Critic = Network | InformedCritic


def build(name: str, sizes: Mapping[str, Any], seed: int = 0) -> Network:
    """A new network. `seed` fixes its first weights and leaves torch's own stream alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        match name:
            case "actionwise":
                return Actionwise(ActionwiseSizes(**sizes))
            case "contextual":
                return Contextual(ContextualSizes(**sizes))
            case "gru":
                return Gru(GruSizes(**sizes))
            case "planning":
                return Planning(PlanningSizes(**sizes))
            case "vision":
                return Vision(VisionSizes(**sizes))
            case _:
                names = "actionwise, contextual, gru, planning or vision"
                raise ValueError(f"network: expected {names}, got {name}")


def build_critic(name: str, sizes: Mapping[str, Any], seed: int = 0) -> Critic:
    """A new critic: any network, or the `informed` one."""
    if name != InformedCritic.name:
        return build(name, sizes, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return InformedCritic(InformedSizes(**sizes))


def architecture(network: Critic) -> dict[str, Any]:
    """Name and sizes: what `build` needs, and what a checkpoint is compared by."""
    return {"name": network.name, "sizes": asdict(network.sizes)}
