"""Learn: commit feedback and its position to the ledger → fold the memory → answer.

Once committed, a failing memory store fails nothing: the next decision finds the memory behind
and brings it to the head.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from contract.spec import WorkflowSpec
from service.catalog import Catalog
from service.clock import Clock
from service.fault_points import reach
from service.ledger.ledger import Ledger
from service.ledger.records import (
    AccountKey,
    Decision,
    DecisionUnknownError,
    Feedback,
    Interaction,
)
from service.ledger.settle import DefaultWrite, FeedbackWrite, Recorded
from service.memory.store import MemoryUnavailableError
from service.metrics import Metrics
from service.recall import Recall

log = logging.getLogger(__name__)


class FeedbackError(ValueError):
    """The feedback does not fit its decision's workflow. `field` names what is off."""

    def __init__(self, field: str, expected: str) -> None:
        super().__init__(f"{field}: expected {expected}")
        self.field = field
        self.expected = expected


class FeedbackRequest(NamedTuple):
    """What came of one decision, as told."""

    tenant: str
    decision_id: str
    reward: float | None
    outcome: str | None
    feedback_id: str | None
    episode_end: bool
    occurred_at_us: int | None


class Learner:
    """Takes feedback."""

    def __init__(
        self, ledger: Ledger, recall: Recall, catalog: Catalog, metrics: Metrics, clock: Clock
    ) -> None:
        self._ledger = ledger
        self._recall = recall
        self._catalog = catalog
        self._metrics = metrics
        self._clock = clock

    async def learn(self, request: FeedbackRequest) -> Recorded:
        """The committed feedback. Raises DecisionUnknownError, FeedbackError, BodyConflictError
        and LedgerUnavailableError."""
        started = time.perf_counter()
        try:
            recorded = await self._ledger.record_feedback(self._write(request, self._clock()))
        except DecisionUnknownError:
            self._metrics.feedback_dangling.inc()
            raise
        reach("revise.committed" if recorded.revised else "learn.committed")
        await self._fold(recorded)
        self._count(recorded, time.perf_counter() - started)
        return recorded

    async def learn_many(self, requests: Sequence[FeedbackRequest]) -> list[Recorded | Exception]:
        """For each request what `learn` would give, or the exception it would raise; recorded in
        one piece, and folded account by account in the order of the requests."""
        started, now = time.perf_counter(), self._clock()
        writes = [self._write(request, now) for request in requests]
        outcomes = await self._ledger.record_feedbacks(writes) if writes else []
        by_account: defaultdict[AccountKey, list[Recorded]] = defaultdict(list)
        for outcome in outcomes:
            if isinstance(outcome, Recorded):
                by_account[outcome.decision.key].append(outcome)
            elif isinstance(outcome, DecisionUnknownError):
                self._metrics.feedback_dangling.inc()

        async def fold(of_one_account: list[Recorded]) -> None:
            for recorded in of_one_account:
                await self._fold(recorded)
                self._count(recorded, time.perf_counter() - started)

        await asyncio.gather(*map(fold, by_account.values()))
        return outcomes

    def _write(self, request: FeedbackRequest, now: int) -> FeedbackWrite:
        digest = _digest(request)
        return FeedbackWrite(
            tenant=request.tenant,
            decision_id=request.decision_id,
            feedback_id=request.feedback_id or "",
            request_sha256=digest,
            received_at_us=now,
            interpret=lambda decision: self._interpret(request, decision, now, digest),
        )

    async def fold_default(self, decision: Decision) -> Recorded | None:
        """Folds the default reward of a decision whose window has closed; None: not due."""
        spec = self._spec_of(decision)
        recorded = await self._ledger.record_default(DefaultWrite(decision, spec, self._clock()))
        if recorded is not None:
            reach("default.committed")
            await self._fold(recorded)
            self._count(recorded, None)
        return recorded

    def _interpret(
        self, request: FeedbackRequest, decision: Decision, now_us: int, digest: str
    ) -> tuple[Feedback, WorkflowSpec]:
        """What the request means under the spec that its decision was made under. Called where
        the decision is found, inside the commit. Raises FeedbackError."""
        spec = self._spec_of(decision)
        given = Feedback(
            key=decision.key,
            decision_id=decision.decision_id,
            feedback_id=request.feedback_id or "",
            kind="received",
            reward=_reward(spec, request),
            outcome=request.outcome,
            episode_end=request.episode_end,
            occurred_at_us=request.occurred_at_us,
            received_at_us=now_us,
            request_sha256=digest,
        )
        return given, spec

    def _spec_of(self, decision: Decision) -> WorkflowSpec:
        return self._catalog.spec(decision.key.workflow, decision.spec_version)

    async def _fold(self, recorded: Recorded) -> None:
        """Brings the memory to the head; a duplicate does so too, and heals what a crash left."""
        decision, given = recorded.decision, recorded.feedback
        workflow = self._catalog.workflows.get(decision.key.workflow)
        if workflow is None or recorded.head.position == 0:
            return
        newest = None
        if given.head == recorded.head:
            newest = Interaction(
                recorded.head.position,
                decision.spec_version,
                decision.context,
                decision.action,
                given.folded_reward or 0.0,
                bool(given.folded_end),
            )
        try:
            served = await self._recall.serving(workflow, decision.key)
            await self._recall.at_head(served, decision.key, recorded.head, newest)
        except MemoryUnavailableError as error:
            self._metrics.memory_unavailable.inc()
            log.warning("memory store unavailable, the memory is folded later: %s", error)
        except Exception as error:  # it is committed: nothing may make of it an error now
            log.error("committed feedback is not folded yet: %s", type(error).__name__)

    def _count(self, recorded: Recorded, seconds: float | None) -> None:
        given, spec = recorded.feedback, self._spec_of(recorded.decision)
        name = spec.workflow
        self._metrics.feedback.labels(name, status(recorded)).inc()
        if recorded.default is not None:
            self._metrics.feedback.labels(name, "default").inc()
            self._metrics.reward.labels(name).inc(_scaled(recorded.default.reward, spec))
        if seconds is not None:
            self._metrics.feedback_seconds.labels(name).observe(seconds)
        if recorded.duplicate:
            return
        if given.late:
            self._metrics.feedback_late.labels(name).inc()
        if given.head is not None and not recorded.revised:  # a counter takes nothing back
            self._metrics.reward.labels(name).inc(_scaled(given.reward, spec))
        if recorded.newly_adapted_at is not None:
            self._metrics.adaptation.labels(name).observe(recorded.newly_adapted_at)


def status(recorded: Recorded) -> str:
    """What became of the feedback: it was `folded`, `revised` an interaction, was `recorded` only,
    is a `default`, or a `duplicate`."""
    if recorded.duplicate:
        return "duplicate"
    if recorded.feedback.kind == "default":
        return "default"
    if recorded.revised:
        return "revised"
    return "folded" if recorded.feedback.head is not None else "recorded"


def _scaled(reward: float, spec: WorkflowSpec) -> float:
    """A raw reward in [0, 1]."""
    return (reward - spec.reward.min) / (spec.reward.max - spec.reward.min)


def _reward(spec: WorkflowSpec, request: FeedbackRequest) -> float:
    """The raw reward that the request means under the decision's own spec."""
    if (request.reward is None) == (request.outcome is None):
        raise FeedbackError("reward", "either a reward or an outcome, not both")
    if request.outcome is not None:
        outcomes = spec.reward.outcomes
        if request.outcome not in outcomes:
            known = sorted(outcomes) or "none, this workflow declares no outcomes"
            raise FeedbackError("outcome", f"a declared outcome ({known})")
        return outcomes[request.outcome]
    reward = request.reward
    assert reward is not None
    if not spec.reward.min <= reward <= spec.reward.max:
        raise FeedbackError(
            "reward",
            f"a number in [{spec.reward.min:g}, {spec.reward.max:g}], got {reward:g}",
        )
    return reward


def _digest(request: FeedbackRequest) -> str:
    """What makes two pieces of feedback of one id the same."""
    body = [request.reward, request.outcome, request.episode_end, request.occurred_at_us]
    return hashlib.sha256(json.dumps(body).encode()).hexdigest()
