"""Decide: guard → read → infer → sample → record, one after another, for all who ask at once.

The action is drawn from what the guardrails left, and nothing leaves before the ledger's commit.
Accounts that are decided together share one call of the network and of the ledger, nothing else.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.draw import draw, sample
from contract.encode import ContextError, check_context
from guardrails.distribution import are_sound, point_mass
from guardrails.limits import Allowed
from service.batching import BacklogFullError, Batcher
from service.catalog import Workflow
from service.clock import Clock
from service.fault_points import reach
from service.ledger.ledger import Ledger
from service.ledger.records import (
    AccountKey,
    BodyConflictError,
    Decision,
    Head,
    LedgerUnavailableError,
)
from service.ledger.settle import Committed, DecisionWrite
from service.memory.store import MemoryUnavailableError, StoredMemory
from service.metrics import Metrics
from service.recall import Recall

CATCH_UPS = 2
"""How often a decision made from a memory behind the head is made again."""
LARGEST_BATCH = 256
"""Decisions that share one call of the network at most."""

log = logging.getLogger(__name__)


class ActionsError(ValueError):
    """The actions asked for are not the workflow's. The message says what was expected."""


@dataclass(frozen=True)
class DecisionRequest:
    """One decision as asked for."""

    tenant: str
    account_id: str
    context: Mapping[str, Any]
    decision_id: str | None = None
    episode_id: str | None = None
    actions: list[str] | None = None


@dataclass(frozen=True)
class _Asked:
    """A request that has been found valid, with what the guardrails leave of it."""

    workflow: Workflow
    request: DecisionRequest
    key: AccountKey
    decision_id: str
    context: Mapping[str, Any]
    allowed: Allowed
    memory: StoredMemory | None = None
    """The memory to decide from, when it is at hand; else the stored one."""
    unreadable: str | None = None
    """Why there is no memory to decide from: the fallback's reason."""


@dataclass(frozen=True)
class _Choice:
    """A distribution `[K]` over the actions, why it is this one, and what it was made from."""

    probabilities: NDArray[Any]
    reason: str
    stored: StoredMemory | None


class Decider:
    """Makes decisions."""

    def __init__(
        self, ledger: Ledger, recall: Recall, metrics: Metrics, clock: Clock, draw_key: bytes
    ) -> None:
        self._ledger = ledger
        self._recall = recall
        self._metrics = metrics
        self._clock = clock
        self._draw_key = draw_key
        self._choices: Batcher[_Asked, _Choice | None] = Batcher(self._choose, LARGEST_BATCH)

    async def decide(self, workflow: Workflow, request: DecisionRequest) -> Decision:
        """The committed decision; for a decision id seen before, the one it already has.

        Raises ContextError, ActionsError, BodyConflictError and LedgerUnavailableError.
        """
        started = time.perf_counter()
        try:
            context, clipped = check_context(workflow.spec, request.context)
            _refuse_unknown_actions(workflow, request.actions)
        except (ContextError, ActionsError):
            # Right under the spec of its day, it has its answer, and keeps it.
            answered = await self._answered(workflow, request)
            if answered is None:
                raise
            return answered
        asked = _Asked(
            workflow,
            request,
            AccountKey(request.tenant, workflow.name, request.account_id),
            request.decision_id or secrets.token_hex(16),
            context,
            workflow.limits.allow(context, request.actions),
        )
        for catch_up in range(CATCH_UPS + 1):
            choice = await self._choice(asked)
            decision = self._sample(asked, choice)
            reach("decide.drawn")
            current = choice.stored is not None and catch_up < CATCH_UPS
            outcome = await self._ledger.record_decision(DecisionWrite(decision, current))
            if isinstance(outcome, Committed):
                break
            self._metrics.memory_conflicts.labels(workflow.name).inc()
            asked = await self._remembered(asked, outcome.head)
        assert isinstance(outcome, Committed)
        reach("decide.committed")
        if outcome.new:
            self._count(workflow, outcome.decision, clipped, time.perf_counter() - started)
        return outcome.decision

    async def _answered(self, workflow: Workflow, request: DecisionRequest) -> Decision | None:
        """The decision that this very request got before. Raises BodyConflictError."""
        if request.decision_id is None:
            return None
        stored = await self._ledger.decision(request.tenant, request.decision_id)
        if stored is not None and stored.request_sha256 != _digest(workflow, request):
            raise BodyConflictError("decision_id", request.decision_id)
        return stored

    async def _choice(self, asked: _Asked) -> _Choice:
        """The distribution to draw from; the fallback's when the memory is not to be had."""
        if asked.unreadable is not None:
            return _fall_back(asked, asked.unreadable, None)
        try:
            choice = await self._choices.ask(asked)
            if choice is None:  # nothing is stored: replay, apart from everybody else's decision
                remembered = await self._remembered(asked, Head())
                if remembered.unreadable is not None:
                    return _fall_back(asked, remembered.unreadable, None)
                choice = await self._choices.ask(remembered)
            assert choice is not None
        except BacklogFullError as error:
            raise LedgerUnavailableError("too many decisions are waiting") from error
        return choice

    async def _remembered(self, asked: _Asked, head: Head) -> _Asked:
        """The same question with the memory at `head` or above, or with why there is none."""
        try:
            memory = await self._recall.at_head(asked.workflow, asked.key, head)
        except MemoryUnavailableError as error:
            self._metrics.memory_unavailable.inc()
            log.warning("memory store unavailable, the fallback decides: %s", error)
            return replace(asked, memory=None, unreadable="memory_unavailable")
        except LedgerUnavailableError:
            raise
        except Exception as error:  # whatever is wrong with this past, there is an answer
            log.error("a past does not replay, the fallback decides: %s", type(error).__name__)
            return replace(asked, memory=None, unreadable="memory_unreadable")
        return replace(asked, memory=memory)

    async def _choose(self, batch: list[_Asked]) -> list[_Choice | Exception | None]:
        """A distribution for each, those of one workflow by one call of its network; None where no
        memory is stored."""
        memories = await self._read(batch)
        choices: dict[int, _Choice | Exception | None] = {}
        by_workflow: dict[str, list[tuple[int, _Asked, StoredMemory]]] = defaultdict(list)
        for i, (asked, stored) in enumerate(zip(batch, memories, strict=True)):
            mask = asked.allowed.mask
            if isinstance(stored, MemoryUnavailableError):
                choices[i] = _fall_back(asked, "memory_unavailable", None)
            elif stored is None:
                choices[i] = None
            elif asked.allowed.exhausted:
                instead = point_mass(int(np.argmax(mask)), mask.size)
                choices[i] = _Choice(instead, "safe_action", stored)
            else:
                by_workflow[asked.workflow.name].append((i, asked, stored))
        for group in by_workflow.values():
            inferred = _infer([(asked, stored) for _, asked, stored in group])
            choices |= {i: choice for (i, *_), choice in zip(group, inferred, strict=True)}
        return [choices[i] for i in range(len(batch))]

    async def _read(
        self, batch: list[_Asked]
    ) -> Sequence[StoredMemory | MemoryUnavailableError | None]:
        """The memories at hand or stored, None where nothing is stored."""
        unread = [asked for asked in batch if asked.memory is None]
        try:
            found = iter(await self._recall.stored([(one.workflow, one.key) for one in unread]))
        except MemoryUnavailableError as error:
            self._metrics.memory_unavailable.inc()
            log.warning("memory store unavailable, the fallback decides: %s", error)
            return [asked.memory or error for asked in batch]
        return [asked.memory if asked.memory is not None else next(found) for asked in batch]

    def _sample(self, asked: _Asked, choice: _Choice) -> Decision:
        """The decision that the draw picks, with all that the ledger keeps of it."""
        workflow, request = asked.workflow, asked.request
        drawn = draw(self._draw_key, *asked.key, asked.decision_id)
        row = int(sample(choice.probabilities, drawn))
        now = self._clock()
        rules = workflow.spec.feedback
        expires = now + round(rules.window_seconds * 1e6)
        return Decision(
            key=asked.key,
            decision_id=asked.decision_id,
            episode_id=request.episode_id,
            spec_version=workflow.version,
            policy=workflow.spec.policy,
            context=dict(request.context),
            asked_for=request.actions,
            action=workflow.spec.action_ids[row],
            probability=float(choice.probabilities[row]),
            draw=drawn,
            reason=choice.reason,
            limits=list(asked.allowed.limits),
            head=choice.stored.head if choice.stored else None,
            request_sha256=_digest(workflow, request),
            created_at_us=now,
            expires_at_us=expires,
            default_due_at_us=expires if rules.default_reward is not None else None,
        )

    def _count(
        self, workflow: Workflow, decision: Decision, clipped: tuple[str, ...], seconds: float
    ) -> None:
        name = workflow.name
        self._metrics.decisions.labels(name, decision.policy, decision.reason).inc()
        self._metrics.decision_seconds.labels(name).observe(seconds)
        if decision.reason != "policy":
            self._metrics.fallbacks.labels(name, decision.reason).inc()
        for limit in decision.limits:
            self._metrics.limits.labels(name, limit).inc()
        for feature in clipped:
            self._metrics.clipped.labels(name, feature).inc()


def _infer(asked: list[tuple[_Asked, StoredMemory]]) -> list[_Choice]:
    """The policy's distributions for decisions of one workflow; the fallback's choice where the
    network gives none. One account's numbers never touch another's."""
    workflow = asked[0][0].workflow
    masks = np.stack([one.allowed.mask for one, _ in asked])
    try:
        probabilities = workflow.probabilities(
            [stored for _, stored in asked], [one.context for one, _ in asked], masks
        ).astype(np.float64)
    except Exception:  # whatever onnxruntime raises, there is an answer
        log.exception("policy %s failed, the fallback decides", workflow.spec.policy)
        return [_fall_back(one, "policy_failed", stored) for one, stored in asked]
    sound = are_sound(probabilities, masks)
    if not sound.all():
        log.error("policy %s gave no distribution, the fallback decides", workflow.spec.policy)
    probabilities /= np.where(sound, probabilities.sum(axis=1), 1.0)[:, None]
    return [
        _Choice(probabilities[i], "policy", stored)
        if sound[i]
        else _fall_back(one, "policy_unsound", stored)
        for i, (one, stored) in enumerate(asked)
    ]


def _fall_back(asked: _Asked, reason: str, stored: StoredMemory | None) -> _Choice:
    """The fallback's choice, and why it is asked."""
    mask = asked.allowed.mask
    row = asked.workflow.fallback.choose(asked.context, mask)
    return _Choice(point_mass(row, mask.size), reason, stored)


def _refuse_unknown_actions(workflow: Workflow, actions: list[str] | None) -> None:
    if actions is None:
        return
    ids = workflow.spec.action_ids
    unknown = [action for action in actions if action not in ids]
    if unknown:
        raise ActionsError(f"expected some of {list(ids)}, got {unknown[0]!r}")
    if not actions or len(set(actions)) != len(actions):
        raise ActionsError(f"expected at least one of {list(ids)}, each once")


def _digest(workflow: Workflow, request: DecisionRequest) -> str:
    """What makes two requests of one decision id the same."""
    body = [
        workflow.name,
        request.account_id,
        request.episode_id,
        request.actions,
        sorted(request.context.items()),
    ]
    return hashlib.sha256(json.dumps(body).encode()).hexdigest()
