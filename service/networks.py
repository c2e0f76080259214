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

_Used = tuple[str, str]
"""Workflow and policy: what is slow for one workflow's accounts may be fine for another's."""

log = logging.getLogger(__name__)


class Networks:
    """The networks of all policies."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._breakers: dict[_Used, Breaker] = {}
        self._tried: set[_Used] = set()
        """What a thread of its own tries again just now."""
        self._watchdog = Watchdog()

    async def distributions(
        self,
        workflow: Workflow,
        memories: list[StoredMemory],
        contexts: Sequence[Mapping[str, Any]],
        masks: NDArray[np.bool_],
        seconds: float,
        *,
        is_ample: bool = True,
    ) -> Distributions:
        """The policy's distributions over `masks` `[B, K]`, if they are there after `seconds`; a
        network that is late counts as failing if those are ample.

        One account's numbers never touch another's. A network that failed several times in a row
        is left alone in that workflow; when it has rested, it is tried in a thread of its own, by
        one call at a time, so that nobody else waits for it.
        """
        used = workflow.name, workflow.policy_name
        breaker = self._breakers.get(used, Breaker())
        nothing = np.zeros(masks.shape)
        if used in self._tried:
            return nothing, [FAILED] * len(masks)
        may, breaker = ask(breaker, FUSE, _now_us())
        self._becomes(used, breaker)
        if not may:
            return nothing, [FAILED] * len(masks)
        asked = workflow, memories, contexts, masks, seconds
        if breaker.until_us is None:
            raw = _run(self._watchdog, *asked)
        else:
            self._tried.add(used)
            try:
                raw = await asyncio.to_thread(_try, *asked)
            finally:
                self._tried.discard(used)
        if isinstance(raw, str):
            if is_ample or raw != DEADLINE:
                self._becomes(used, failed(self._breakers[used], FUSE, _now_us()))
            return nothing, [raw] * len(masks)
        self._becomes(used, Breaker())
        sound = are_sound(raw, masks)
        if not sound.all():
            log.error("policy %s gave no distribution, the fallback decides", used[1])
        raw /= np.where(sound, raw.sum(axis=1), 1.0)[:, None]
        return raw, [None if one else UNSOUND for one in sound]

    def close(self) -> None:
        """Lets go of the thread."""
        self._watchdog.close()

    def _becomes(self, used: _Used, breaker: Breaker) -> None:
        was = self._breakers.get(used, Breaker())
        self._breakers[used] = breaker
        is_open = breaker.until_us is not None
        if (was.until_us is not None) is not is_open:
            self._metrics.circuit_open.labels("{1} on {0}".format(*used)).set(is_open)


def _try(*asked: Any) -> NDArray[np.float64] | str:
    """`_run` under a watchdog of its own."""
    watchdog = Watchdog()
    try:
        return _run(watchdog, *asked)
    finally:
        watchdog.close()


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
