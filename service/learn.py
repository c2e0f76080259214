"""Learn: commit feedback and its position to the ledger → fold the memory → answer.

Once committed, a failing memory store fails nothing: the next decision finds the memory behind
and brings it to the head.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from contract.spec import WorkflowSpec
from service.batching import BacklogFullError, Batcher
from service.catalog import Catalog
from service.clock import Clock
from service.correlation import ASKING, TOGETHER, Asking, exemplar
from service.fault_points import reach
from service.feedback_order import FeedbackOrder
from service.ledger.ledger import Ledger
from service.ledger.records import (
    BodyConflictError,
    Decision,
    DecisionUnknownError,
    ErasedError,
    Feedback,
    Interaction,
    LedgerUnavailableError,
    NotActiveError,
)
from service.ledger.settle import DefaultWrite, FeedbackWrite, Recorded
from service.memory.store import MemoryUnavailableError
from service.metrics import Metrics
from service.progress_metrics import scaled
from service.recall import Recall
from service.rollouts.traffic import Traffic
from service.steps import Steps
from service.together import Advance, Ahead, Together

if TYPE_CHECKING:
    from service.tracing import Tracing  # only the otel extra has OpenTelemetry's SDK

LARGEST_BATCH = 256
"""Pieces of feedback that are committed and folded together at most."""
AT_ONCE = 3
"""One batch is folded while the next is committed."""

log = logging.getLogger(__name__)


class FeedbackError(ValueError):
    """The feedback does not fit its decision's workflow. `field` names what is off."""

    def __init__(self, field: str, expected: str) -> None:
        super().__init__(f"{field}: expected {expected}")
        self.field = field
        self.expected = expected


REFUSALS: Mapping[type[Exception], str] = {
    BodyConflictError: "conflict",
    ErasedError: "erased",
    FeedbackError: "invalid",
    NotActiveError: "not_active",
}
"""Why feedback for a decision that is known is not taken."""


class FeedbackRequest(NamedTuple):
    """What came of one decision, as told."""

    tenant: str
    decision_id: str
    reward: float | None
    outcome: str | None
    feedback_id: str | None
    episode_end: bool
    occurred_at_us: int | None


class _Told(NamedTuple):
    """Feedback as it came."""

    request: FeedbackRequest
    started: float
    """When, by the clock of `time.perf_counter`."""
    asking: Asking | None
    """The request it came with."""

    @property
    def decision_id(self) -> str:
        """The decision it is about."""
        return self.request.decision_id


class Learner:
    """Takes feedback."""

    def __init__(
        self,
        ledger: Ledger,
        recall: Recall,
        together: Together,
        catalog: Catalog,
        metrics: Metrics,
        clock: Clock,
        traffic: Traffic,
        tracing: Tracing | None = None,
    ) -> None:
        self._ledger = ledger
        self._recall = recall
        self._together = together
        self._catalog = catalog
        self._metrics = metrics
        self._clock = clock
        self._traffic = traffic
        self._order = FeedbackOrder()
        self._tracing = tracing
        self._batches: Batcher[_Told, Recorded] = Batcher(
            self._take, LARGEST_BATCH, at_once=AT_ONCE
        )

    async def learn(self, request: FeedbackRequest) -> Recorded:
        """The committed feedback. Raises DecisionUnknownError, ErasedError, NotActiveError,
        FeedbackError, BodyConflictError and LedgerUnavailableError."""
        asking = ASKING.get()
        if asking is not None:
            asking.decision_id = request.decision_id
        try:
            return await self._batches.ask(_Told(request, time.perf_counter(), asking))
        except BacklogFullError as error:
            raise LedgerUnavailableError("too much feedback is waiting") from error

    async def learn_many(self, requests: Sequence[FeedbackRequest]) -> list[Recorded | Exception]:
        """For each request what `learn` would give, or the exception it would raise; recorded in
        one piece, and folded in the order of the requests."""
        started = time.perf_counter()
        told = [_Told(request, started, ASKING.get()) for request in requests]
        return await self._take(told) if told else []

    async def _take(self, asked: Sequence[_Told]) -> list[Recorded | Exception]:
        """What becomes of requests."""
        token, steps = TOGETHER.set(asked), Steps()
        try:
            return await self._take_by(asked, steps)
        finally:
            TOGETHER.reset(token)
            if self._tracing is not None:
                self._tracing.record(steps, asked)

    async def _take_by(self, asked: Sequence[_Told], steps: Steps) -> list[Recorded | Exception]:
        """The same, in steps: commit → fold."""
        now = self._clock()
        writes = [self._write(one.request, now) for one in asked]
        ahead = self._together.read_ahead(self._ledger.owners(writes))
        try:
            outcomes = await self._ledger.record_feedbacks(writes)
        except BaseException:
            if ahead is not None:
                ahead.cancel()
            raise
        steps.done("ledger")
        recorded = [one for one in outcomes if isinstance(one, Recorded)]
        for one in recorded:
            reach("revise.committed" if one.revised else "learn.committed")
        await self._fold(recorded, ahead)
        steps.done("memory")
        try:
            self._count(recorded)
            self._time(asked, outcomes)
        except Exception as error:  # it is committed: nothing may make of it an error now
            log.error("committed feedback is not counted: %s", type(error).__name__)
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
            await self._fold([recorded], None)
            self._count([recorded])
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

    async def _fold(self, recorded: Sequence[Recorded], ahead: Ahead | None) -> None:
        """Brings memories to their heads; a duplicate does so too, and heals what a crash left."""
        moved: list[Advance] = []
        for one in recorded:
            decision, given = one.decision, one.feedback
            workflow = self._catalog.workflows.get(decision.key.workflow)
            if workflow is None or one.head.position == 0:
                continue
            workflow, _ = self._traffic.place(
                workflow, decision.key.tenant, decision.key.account_id, decision.context
            )
            newest = None
            if given.head == one.head:
                newest = Interaction(
                    one.head.position,
                    decision.spec_version,
                    decision.context,
                    decision.action,
                    given.folded_reward or 0.0,
                    bool(given.folded_end),
                )
            try:
                served = await self._recall.serving(workflow, decision.key)
            except MemoryUnavailableError:
                served = workflow
            moved.append(Advance(served, decision.key, one.head, newest))
        errors: Sequence[Exception | None]
        try:
            errors = await self._together.advance(moved, ahead)
        except Exception as whole:
            errors = [whole]
        for error in errors:  # it is committed: nothing may make of it an error now
            if isinstance(error, MemoryUnavailableError):
                self._metrics.memory_unavailable.inc()
                log.warning("memory store unavailable, a memory is folded later: %s", error)
            elif error is not None:
                log.error("committed feedback is not folded yet: %s", type(error).__name__)

    def _count(self, recorded: Sequence[Recorded]) -> None:
        """Tells the metrics what became of feedback."""
        statuses: Counter[tuple[str, str]] = Counter()
        earned: defaultdict[str, float] = defaultdict(float)
        for one in recorded:
            given, spec = one.feedback, self._spec_of(one.decision)
            name = spec.workflow
            statuses[name, status(one)] += 1
            if one.default is not None:
                statuses[name, "default"] += 1
                earned[name] += scaled(one.default.reward, spec)
            if one.duplicate:
                continue
            made_at_us = one.decision.activated_at_us or one.decision.created_at_us
            if given.kind == "received":
                delay = max(given.received_at_us - made_at_us, 0) / 1e6
                self._metrics.feedback_delay.labels(name).observe(delay)
            if given.late:
                self._metrics.feedback_late.labels(name).inc()
            if given.head is not None and not one.revised:  # a counter takes nothing back
                earned[name] += scaled(given.reward, spec)
                if self._order.folded(one.decision.key, made_at_us):
                    self._metrics.feedback_out_of_order.labels(name).inc()
            self._metrics.progress.observe(one, spec)
        for (name, what), count in statuses.items():
            self._metrics.feedback.labels(name, what).inc(count)
        for name, reward in earned.items():
            self._metrics.reward.labels(name).inc(reward)

    def _time(
        self,
        asked: Sequence[_Told],
        outcomes: Sequence[Recorded | Exception],
    ) -> None:
        """Tells the metrics how long requests took, and how many were for nobody's decision."""
        now, timed = time.perf_counter(), self._metrics.feedback_seconds
        of_workflow = {
            name: timed.labels(name)
            for name in {one.decision.key.workflow for one in outcomes if isinstance(one, Recorded)}
        }
        for one, outcome in zip(asked, outcomes, strict=True):
            if isinstance(outcome, Recorded):
                seconds = of_workflow[outcome.decision.key.workflow]
                seconds.observe(now - one.started, exemplar(one.asking))
            elif isinstance(outcome, DecisionUnknownError):
                self._metrics.feedback_dangling.inc()
            elif (cause := REFUSALS.get(type(outcome))) is not None:
                self._metrics.feedback_refused.labels(cause).inc()


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
