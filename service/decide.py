"""Decide: guard → read → infer → sample → record, one after another, for all who ask at once.

The action is drawn from what the guardrails left, and nothing leaves before the ledger's commit.
Accounts that are decided together share one call of the network and of the ledger, nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from contract.draw import draw, sample
from contract.encode import ContextError
from guardrails.guard import Offer
from guardrails.limits import Allowed
from service.asked import ActionsError, Asked, DecisionRequest, check, digest
from service.awareness import Awareness
from service.batching import BacklogFullError, Batcher
from service.catalog import Workflow
from service.clock import Clock
from service.correlation import ASKING, TOGETHER, exemplar
from service.fault_points import reach
from service.holds import Holds
from service.inference import LARGEST_BATCH, Choices, Memory, infer
from service.ledger.ledger import Ledger
from service.ledger.records import BodyConflictError, Decision, Head, LedgerUnavailableError
from service.ledger.settle import Behind, Committed, DecisionWrite
from service.memory.store import MemoryUnavailableError, StoredMemory
from service.metrics import Metrics
from service.networks import DEADLINE, Networks
from service.rationing import Rationed
from service.recall import Recall
from service.rollouts.traffic import Traffic
from service.steps import Steps

if TYPE_CHECKING:
    from service.tracing import Tracing  # only the otel extra has OpenTelemetry's SDK

CATCH_UPS = 2
"""How often a decision made from a memory behind the head is made again."""
AT_ONCE = 3
"""Batches of a workflow that are on their way: one is inferred while one before it commits."""

_Together = tuple[str, str, str | None]
"""What decisions made together share: workflow, policy, and whose place that policy keeps."""
_Outcome = Committed | Behind | Exception
R = TypeVar("R")

log = logging.getLogger(__name__)


class Decider:
    """Makes decisions."""

    def __init__(
        self,
        ledger: Ledger,
        recall: Recall,
        metrics: Metrics,
        clock: Clock,
        draw_key: bytes,
        traffic: Traffic,
        holds: Holds,
        deadline_seconds: float,
        tracing: Tracing | None = None,
    ) -> None:
        self._ledger = ledger
        self._recall = recall
        self._metrics = metrics
        self._clock = clock
        self._draw_key = draw_key
        self._traffic = traffic
        self._tracing = tracing
        self._holds = holds
        self._deadline = deadline_seconds
        self._awareness = Awareness()
        self._networks = Networks(metrics)
        self._batchers: defaultdict[_Together, Batcher[Asked, Committed | Behind]]
        self._batchers = defaultdict(lambda: Batcher(self._make, LARGEST_BATCH, at_once=AT_ONCE))

    async def decide(self, workflow: Workflow, request: DecisionRequest) -> Decision:
        """The committed decision; for a decision id seen before, the one it already has.

        Raises ContextError, ActionsError, BodyConflictError and LedgerUnavailableError.
        """
        asking = ASKING.get()
        if asking is not None:
            asking.workflow, asking.decision_id = workflow.name, request.decision_id
        try:
            asked = self._placed(check(workflow, request, time.perf_counter()))
            if asking is not None:
                asking.decision_id = asked.decision_id
        except (ContextError, ActionsError) as error:
            # Right under the spec of its day, it has its answer, and keeps it.
            answered = await self._answered(workflow, request)
            if answered is None:
                self._count_refused(workflow, error)
                raise
            return answered
        outcome = await self._ask(asked)
        made = (
            await self._catch_up(asked, outcome)
            if isinstance(outcome, Behind)
            else outcome.decision
        )
        if asking is not None:
            asking.reason = made.reason
        return made

    async def decide_many(
        self, workflow: Workflow, requests: Sequence[DecisionRequest]
    ) -> list[Decision | Exception]:
        """For each request what `decide` would give, or the exception it would raise; made by one
        call of the network and recorded in one piece."""
        started = time.perf_counter()
        results: dict[int, Decision | Exception] = {}
        valid: list[tuple[int, Asked]] = []
        for i, request in enumerate(requests):
            try:
                valid.append((i, self._placed(check(workflow, request, started))))
            except (ContextError, ActionsError) as error:
                answered = await _settled(self._answered(workflow, request))
                if answered is None:
                    self._count_refused(workflow, error)
                results[i] = error if answered is None else answered
        outcomes = await self._make_each([asked for _, asked in valid])
        behind = []
        for (i, asked), outcome in zip(valid, outcomes, strict=True):
            if isinstance(outcome, Behind):
                behind.append((i, _settled(self._catch_up(asked, outcome))))
            else:
                results[i] = outcome.decision if isinstance(outcome, Committed) else outcome
        caught_up = await asyncio.gather(*(late for _, late in behind))
        results |= {i: late for (i, _), late in zip(behind, caught_up, strict=True)}
        return [results[i] for i in range(len(requests))]

    def close(self) -> None:
        """Lets go of what watches over the networks."""
        self._networks.close()

    def _count_refused(self, workflow: Workflow, error: Exception) -> None:
        if isinstance(error, ContextError):
            self._metrics.observe_refusal(workflow.name, error)

    async def _answered(self, workflow: Workflow, request: DecisionRequest) -> Decision | None:
        """The decision that this very request got before. Raises BodyConflictError."""
        if request.decision_id is None:
            return None
        stored = await self._ledger.decision(request.tenant, request.decision_id)
        if stored is not None and stored.request_sha256 != digest(workflow, request):
            raise BodyConflictError("decision_id", request.decision_id)
        return stored

    def _ask(self, asked: Asked) -> asyncio.Future[Committed | Behind]:
        """What becomes of it when it is made together with what others ask for now."""
        try:
            return self._batchers[_together(asked)].ask(asked)
        except BacklogFullError as error:
            raise LedgerUnavailableError("too many decisions are waiting") from error

    async def _catch_up(self, asked: Asked, outcome: Committed | Behind) -> Decision:
        """The decision made again from the memory at the head that it was found behind."""
        while isinstance(outcome, Behind):
            self._metrics.memory_conflicts.labels(asked.workflow.name).inc()
            asked = await self._remembered(asked, outcome.head)
            outcome = await self._ask(asked)
        return outcome.decision

    async def _remembered(self, asked: Asked, head: Head) -> Asked:
        """The same question with the memory at `head` or above, or with why there is none."""
        again = asked._replace(catch_ups=asked.catch_ups + 1, memory=None)
        try:
            served = await self._recall.serving(asked.workflow, asked.key)
            # A replay that takes longer goes on for whoever asks next.
            replay = asyncio.ensure_future(self._recall.at_head(served, asked.key, head))
            memory = await asyncio.wait_for(asyncio.shield(replay), self._left(asked))
        except TimeoutError:
            replay.add_done_callback(_let_go)
            log.warning("a past takes too long to replay, the fallback decides")
            return again._replace(unreadable=DEADLINE)
        except MemoryUnavailableError as error:
            self._metrics.memory_unavailable.inc()
            log.warning("memory store unavailable, the fallback decides: %s", error)
            return again._replace(unreadable="memory_unavailable")
        except LedgerUnavailableError:
            raise
        except Exception as error:  # whatever is wrong with this past, there is an answer
            log.error("a past does not replay, the fallback decides: %s", type(error).__name__)
            return again._replace(unreadable="memory_unreadable")
        return again._replace(workflow=served, memory=memory)

    def _placed(self, asked: Asked) -> Asked:
        """The same question put to whatever serves this account, as rollouts and switches say."""
        if self._traffic.is_plain:
            return asked
        key, context = asked.key, asked.context
        place = self._traffic.place(asked.workflow, key.tenant, key.account_id, context)
        return asked._replace(workflow=place[0], unreadable=place[1])

    async def _make_each(self, asked: list[Asked]) -> list[_Outcome]:
        """`_make` for requests that more than one policy may have to serve."""
        groups: defaultdict[_Together, list[int]] = defaultdict(list)
        for i, one in enumerate(asked):
            groups[_together(one)].append(i)
        made = await asyncio.gather(
            *(self._make([asked[i] for i in some]) for some in groups.values())
        )
        outcomes: dict[int, _Outcome] = {}
        for some, of_group in zip(groups.values(), made, strict=True):
            outcomes |= zip(some, of_group, strict=True)
        return [outcomes[i] for i in range(len(asked))]

    async def _make(self, asked: list[Asked]) -> list[_Outcome]:
        """What becomes of valid requests of one workflow."""
        TOGETHER.set(asked)
        steps = Steps()
        try:
            return await self._make_by(asked, steps)
        finally:
            self._metrics.observe_steps(steps)
            if self._tracing is not None:
                self._tracing.record(steps, asked)

    async def _make_by(self, asked: list[Asked], steps: Steps) -> list[_Outcome]:
        """The same, in the five steps."""
        if self._holds:
            asked = [self._held(one) for one in asked]
        allowed = self._guard(asked)
        steps.done("guard")
        memories = await self._read(asked)
        steps.done("memory")
        choices = await infer(self._networks, asked, allowed, memories, self._left, self._deadline)
        decisions = self._sample(asked, allowed, memories, choices)
        steps.done("infer")
        reach("decide.drawn")
        outcomes = await self._ledger.record_decisions(decisions)
        steps.done("ledger")
        reach("decide.committed")
        self._count(asked, outcomes)
        return outcomes

    def _held(self, one: Asked) -> Asked:
        """The question, to be answered by the fallback where an alarm says so."""
        workflow = one.workflow
        if one.unreadable is None and self._holds.hold(
            workflow.spec, workflow.policy_name, one.key, one.context
        ):
            return one._replace(memory=None, unreadable="alarm")
        return one

    def _guard(self, asked: list[Asked]) -> list[Allowed]:
        """What the guardrails leave of each request, as far as no account's past is asked."""
        started = time.perf_counter()
        workflow = asked[0].workflow
        contexts = [one.context for one in asked]
        allowed = workflow.limits.allow_each(contexts, [one.request.actions for one in asked])
        spent = time.perf_counter() - started
        self._metrics.guardrail_seconds.labels(workflow.name).inc(spent)
        return allowed

    def _left(self, asked: Asked) -> float:
        """Seconds until the fallback has to decide."""
        return max(self._deadline - (time.perf_counter() - asked.started), 0.0)

    async def _read(self, asked: list[Asked]) -> list[Memory]:
        """The memories at hand or stored; None where the fallback decides without one.

        Where nothing is stored, it is most often because nothing has happened yet: the decision is
        made from the memory at an account's first head, and if that is not its head, the commit
        finds out, as it does with a stored memory that is behind.
        """
        memories: list[Memory] = [one.memory for one in asked]
        unread = [i for i, one in enumerate(asked) if one.memory is None and one.unreadable is None]
        found: Sequence[Memory]
        try:
            found = await self._recall.stored([(asked[i].workflow, asked[i].key) for i in unread])
        except MemoryUnavailableError as error:
            self._metrics.memory_unavailable.inc()
            log.warning("memory store unavailable, the fallback decides: %s", error)
            found = [error] * len(unread)
        unknown = asked[0].workflow.unknown
        for i, memory in zip(unread, found, strict=True):
            memories[i] = unknown if memory is None else memory
        return memories

    def _sample(
        self,
        asked: list[Asked],
        allowed: list[Allowed],
        memories: list[Memory],
        choices: Choices,
    ) -> list[DecisionWrite]:
        """The decisions that the draws pick, with all that the ledger keeps of them."""
        workflow, now = asked[0].workflow, self._clock()
        spec, rules = workflow.spec, workflow.spec.feedback
        expires = now + round(rules.window_seconds * 1e6)
        draws = [draw(self._draw_key, *one.key, one.decision_id) for one in asked]
        rows = sample(choices.probabilities, draws)
        drawn = choices.probabilities[np.arange(len(asked)), rows].tolist()
        actions = [spec.action_ids[row] for row in rows.tolist()]
        policy = workflow.policy_name
        has_default = rules.default_reward is not None
        took = self._metrics.guardrail_seconds.labels(workflow.name).inc
        writes = []
        for i, (one, memory) in enumerate(zip(asked, memories, strict=True)):
            head = memory.head if isinstance(memory, StoredMemory) else None
            decision = Decision(
                key=one.key,
                decision_id=one.decision_id,
                episode_id=one.request.episode_id,
                spec_version=workflow.version,
                policy=policy,
                context=dict(one.request.context),
                asked_for=one.request.actions,
                action=actions[i],
                probability=drawn[i],
                draw=draws[i],
                reason=choices.reasons[i],
                limits=list(allowed[i].limits),
                head=head,
                request_sha256=digest(workflow, one.request),
                created_at_us=now,
                expires_at_us=expires,
                mode=one.request.mode,
            )
            current = head is not None and one.catch_ups < CATCH_UPS
            ration = None
            if one.workflow.guard.declared:  # the account's own past has the last word
                offer = Offer(
                    one.context,
                    one.request.actions,
                    allowed[i],
                    choices.probabilities[i],
                    choices.reasons[i],
                    draws[i],
                )
                ration = Rationed(one.workflow.guard, spec, offer, took)
            writes.append(DecisionWrite(decision, current, has_default, ration))
        return writes

    def _count(self, asked: list[Asked], outcomes: Sequence[_Outcome]) -> None:
        """Tells the metrics of every decision that was not there before."""
        workflow, now = asked[0].workflow, time.perf_counter()
        name, policy = workflow.name, workflow.policy_name
        seconds = self._metrics.decision_seconds.labels(name)
        reasons: Counter[str] = Counter()
        for one, outcome in zip(asked, outcomes, strict=True):
            if not isinstance(outcome, Committed) or not outcome.new:
                continue
            seconds.observe(now - one.started, exemplar(one.asking))
            reasons[outcome.decision.reason] += 1
            waited = self._awareness.decided(one.key, outcome.account_head, outcome.aware)
            if waited is not None:
                self._metrics.feedback_to_behaviour.labels(name).observe(waited)
            if outcome.decision.deviates and outcome.decision.active:
                self._metrics.deviations.labels(name).inc()
            for limit in outcome.decision.limits:
                self._metrics.limits.labels(name, limit).inc()
            for feature in one.clipped:
                self._metrics.clipped.labels(name, feature).inc()
        if workflow.not_ready_for is not None:
            self._metrics.not_ready.labels(name, workflow.not_ready_for).inc(reasons.total())
        for reason, count in reasons.items():
            self._metrics.decisions.labels(name, policy, reason).inc(count)
            if reason != "policy":
                self._metrics.fallbacks.labels(name, reason).inc(count)


def _together(asked: Asked) -> _Together:
    workflow = asked.workflow
    return workflow.name, workflow.policy_name, workflow.not_ready_for


def _let_go(replay: asyncio.Future[StoredMemory]) -> None:
    """Nobody waits for it any more: what it raises is told here."""
    if not replay.cancelled() and (error := replay.exception()) is not None:
        log.warning("a past that took too long did not replay: %s", type(error).__name__)


async def _settled(work: Awaitable[R]) -> R | Exception:
    """What it gives or raises."""
    try:
        return await work
    except Exception as error:
        return error
