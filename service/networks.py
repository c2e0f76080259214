"""Calls of policies' networks to decide: each within its time, and behind a circuit breaker.

Whatever a network does, there is a distribution, or the reason why the fallback decides.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guardrails.breaker import Breaker, Fuse, ask, failed
from guardrails.distribution import are_sound
from service.catalog import Workflow
from service.memory.store import StoredMemory
from service.metrics import Metrics
from service.watchdog import Watchdog

FUSE = Fuse(failures=3, rest_us=1_000_000)
DEADLINE = "deadline"
"""The reason of decisions that there was no time left for."""
FAILED = "policy_failed"
UNSOUND = "policy_unsound"

Distributions = tuple[NDArray[np.float64], list[str | None]]
"""`[B, K]`, and for each why it is not one, if it is not."""

log = logging.getLogger(__name__)


class Networks:
    """The networks of all policies."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._breakers: dict[str, Breaker] = {}
        self._watchdog = Watchdog()
        self._trial = Watchdog()
        """Of the thread that tries a network again."""

    async def distributions(
        self,
        workflow: Workflow,
        memories: list[StoredMemory],
        contexts: Sequence[Mapping[str, Any]],
        masks: NDArray[np.bool_],
        seconds: float,
    ) -> Distributions:
        """The policy's distributions over `masks` `[B, K]`, if they are there after `seconds`.

        One account's numbers never touch another's. A network that failed several times in a row
        is left alone; when it has rested, it is tried in a thread of its own, so that nobody else
        waits for it.
        """
        policy = workflow.policy_name
        breaker = self._breakers.get(policy, Breaker())
        may, breaker = ask(breaker, FUSE, _now_us())
        self._becomes(policy, breaker)
        nothing = np.zeros(masks.shape)
        if not may:
            return nothing, [FAILED] * len(masks)
        asked = workflow, memories, contexts, masks, seconds
        if breaker.until_us is None:
            raw = _run(self._watchdog, *asked)
        else:
            raw = await asyncio.to_thread(_run, self._trial, *asked)
        if isinstance(raw, str):
            self._becomes(policy, failed(self._breakers[policy], FUSE, _now_us()))
            return nothing, [raw] * len(masks)
        self._becomes(policy, Breaker())
        sound = are_sound(raw, masks)
        if not sound.all():
            log.error("policy %s gave no distribution, the fallback decides", policy)
        raw /= np.where(sound, raw.sum(axis=1), 1.0)[:, None]
        return raw, [None if one else UNSOUND for one in sound]

    def close(self) -> None:
        """Lets go of the threads."""
        self._watchdog.close()
        self._trial.close()

    def _becomes(self, policy: str, breaker: Breaker) -> None:
        was = self._breakers.get(policy, Breaker())
        self._breakers[policy] = breaker
        is_open = breaker.until_us is not None
        if (was.until_us is not None) is not is_open:
            self._metrics.circuit_open.labels(policy).set(is_open)


def _run(
    watchdog: Watchdog,
    workflow: Workflow,
    memories: list[StoredMemory],
    contexts: Sequence[Mapping[str, Any]],
    masks: NDArray[np.bool_],
    seconds: float,
) -> NDArray[np.float64] | str:
    """What the network gives, or why it gave nothing."""
    with watchdog.limit(seconds) as options:
        try:
            raw = workflow.probabilities(memories, contexts, masks, options)
        except Exception:  # whatever onnxruntime raises, there is an answer
            if options.terminate:
                log.error("policy %s took too long, the fallback decides", workflow.policy_name)
                return DEADLINE
            log.exception("policy %s failed, the fallback decides", workflow.policy_name)
            return FAILED
    return raw.astype(np.float64)


def _now_us() -> int:
    return time.monotonic_ns() // 1_000
