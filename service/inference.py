"""The step infer: what decisions that are made together are to be drawn from, and why.

The policy's distributions come by as few calls of its network as may be; whoever has no memory or
no time left has the fallback's choice. It draws nothing and records nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from guardrails.distribution import point_mass
from guardrails.limits import Allowed
from service.asked import Asked
from service.memory.store import MemoryUnavailableError, StoredMemory
from service.networks import DEADLINE, Networks

LARGEST_BATCH = 256
"""Decisions that share one call of the network at most."""

Memory = StoredMemory | MemoryUnavailableError | None
_ToInfer = tuple[int, StoredMemory, float]
"""Which of the requests, its memory, and the seconds that are left."""


class Choices(NamedTuple):
    """What is to be drawn from for B decisions of one workflow."""

    probabilities: NDArray[np.float64]
    """`[B, K]` over the actions."""
    reasons: list[str]
    """Why these are the ones."""


async def infer(
    networks: Networks,
    asked: list[Asked],
    allowed: list[Allowed],
    memories: list[Memory],
    left: Callable[[Asked], float],
    deadline_seconds: float,
) -> Choices:
    """The policy's distributions, by one call of its network; the fallback's where there is no
    memory or no time, and one action where the limits left nothing.

    `left` says how many seconds of `deadline_seconds` a request has, just as it is looked at.
    """
    masks = np.array([one.mask for one in allowed])
    probabilities = np.zeros(masks.shape)
    reasons = ["policy"] * len(asked)
    fresh: list[_ToInfer] = []
    spent: list[_ToInfer] = []
    for i, (one, memory) in enumerate(zip(asked, memories, strict=True)):
        if not isinstance(memory, StoredMemory):
            reasons[i] = one.unreadable or "memory_unavailable"
        elif allowed[i].exhausted:
            reasons[i] = "safe_action"
            probabilities[i, np.argmax(masks[i])] = 1.0
        elif not (seconds := left(one)):
            reasons[i] = DEADLINE
        else:
            (fresh if seconds >= deadline_seconds / 2 else spent).append((i, memory, seconds))
    # Who has waited long has a call of its own, which ends nobody else's and says nothing of
    # the network.
    for group in (fresh, spent):
        for start in range(0, len(group), LARGEST_BATCH):
            if start:
                await asyncio.sleep(0)  # others' turn
            part = group[start : start + LARGEST_BATCH]
            rows = [i for i, _, _ in part]
            probabilities[rows], unsound = await networks.distributions(
                asked[0].workflow,
                [memory for _, memory, _ in part],
                [asked[i].context for i in rows],
                masks[rows],
                min(seconds for _, _, seconds in part),
                is_ample=group is fresh,
            )
            for i, why in zip(rows, unsound, strict=True):
                reasons[i] = why or "policy"
    for i, one in enumerate(asked):
        if reasons[i] not in ("policy", "safe_action"):
            row = one.workflow.fallback.choose(one.context, masks[i])
            probabilities[i] = point_mass(row, masks.shape[1])
    return Choices(probabilities, reasons)
