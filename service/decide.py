"""Decide: read → guard → infer → sample → record, one after another, for one account.

The action is drawn from what the guardrails left, and nothing leaves before the ledger's commit.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.draw import draw, sample
from contract.encode import check_context
from guardrails.distribution import is_sound, point_mass
from guardrails.limits import Allowed
from service.catalog import Workflow
from service.clock import Clock
from service.ledger.ledger import Ledger
from service.ledger.records import AccountKey, Decision
from service.ledger.settle import Behind, Committed, DecisionWrite
from service.memory.store import MemoryUnavailableError, StoredMemory
from service.metrics import Metrics
from service.recall import Recall

CATCH_UPS = 2
"""How often a decision made from a memory behind the head is made again."""

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
class _Choice:
    """A distribution over the actions and why it is this one."""

    probabilities: NDArray[Any]
    reason: str


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

    async def decide(self, workflow: Workflow, request: DecisionRequest) -> Decision:
        """The committed decision; for a decision id seen before, the one it already has.

        Raises ContextError, ActionsError, BodyConflictError and LedgerUnavailableError.
        """
        started = time.perf_counter()
        context, clipped = check_context(workflow.spec, request.context)
        _refuse_unknown_actions(workflow, request.actions)
        key = AccountKey(request.tenant, workflow.name, request.account_id)
        decision_id = request.decision_id or secrets.token_hex(16)
        for catch_up in range(CATCH_UPS + 1):
            stored = await self._read(workflow, key)
            allowed = workflow.limits.allow(context, request.actions)
            choice = _infer(workflow, stored, context, allowed)
            drawn = draw(self._draw_key, *key, decision_id)
            row = int(sample(choice.probabilities, drawn))
            decision = self._compose(
                workflow, key, decision_id, request, stored, allowed, choice, row, drawn
            )
            current = stored is not None and catch_up < CATCH_UPS
            outcome = await self._ledger.record_decision(DecisionWrite(decision, current))
            if isinstance(outcome, Committed):
                break
            self._metrics.memory_conflicts.labels(workflow.name).inc()
            await self._catch_up(workflow, key, outcome)
        assert isinstance(outcome, Committed)
        if outcome.new:
            self._count(workflow, outcome.decision, clipped, time.perf_counter() - started)
        return outcome.decision

    async def _read(self, workflow: Workflow, key: AccountKey) -> StoredMemory | None:
        """The account's memory, or None when the store does not answer."""
        try:
            return await self._recall.latest(workflow, key)
        except MemoryUnavailableError as error:
            self._metrics.memory_unavailable.inc()
            log.warning("memory store unavailable, the fallback decides: %s", error)
            return None

    async def _catch_up(self, workflow: Workflow, key: AccountKey, behind: Behind) -> None:
        try:
            await self._recall.at_head(workflow, key, behind.head)
        except MemoryUnavailableError:
            self._metrics.memory_unavailable.inc()

    def _compose(
        self,
        workflow: Workflow,
        key: AccountKey,
        decision_id: str,
        request: DecisionRequest,
        stored: StoredMemory | None,
        allowed: Allowed,
        choice: _Choice,
        row: int,
        drawn: float,
    ) -> Decision:
        now = self._clock()
        rules = workflow.spec.feedback
        expires = now + round(rules.window_seconds * 1e6)
        return Decision(
            key=key,
            decision_id=decision_id,
            episode_id=request.episode_id,
            spec_version=workflow.version,
            policy=workflow.spec.policy,
            context=dict(request.context),
            asked_for=request.actions,
            action=workflow.spec.action_ids[row],
            probability=float(choice.probabilities[row]),
            draw=drawn,
            reason=choice.reason,
            limits=list(allowed.limits),
            head=stored.head if stored else None,
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


def _infer(
    workflow: Workflow, stored: StoredMemory | None, context: Mapping[str, Any], allowed: Allowed
) -> _Choice:
    """The policy's distribution over what is allowed; the fallback's choice when it has none."""
    size = len(workflow.spec.actions)
    if allowed.exhausted:
        return _Choice(point_mass(int(np.argmax(allowed.mask)), size), "safe_action")
    if stored is None:
        reason = "memory_unavailable"
    else:
        try:
            probabilities = workflow.probabilities(
                stored.memory, stored.head.position, context, allowed.mask
            )
        except Exception:  # whatever onnxruntime raises, there is an answer
            log.exception("policy %s failed, the fallback decides", workflow.spec.policy)
            reason = "policy_failed"
        else:
            if is_sound(probabilities, allowed.mask):
                scaled = probabilities.astype(np.float64)
                return _Choice(scaled / scaled.sum(), "policy")
            log.error("policy %s gave no distribution, the fallback decides", workflow.spec.policy)
            reason = "policy_unsound"
    return _Choice(point_mass(workflow.fallback.choose(context, allowed.mask), size), reason)


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
