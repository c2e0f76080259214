"""One process's service, put together: ledger, memories, catalog, decider, learner, jobs."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from contract.bundle import BundleError
from contract.spec import BooleanFeature, CategoryFeature, ImageFeature, WorkflowSpec
from guardrails.distribution import are_sound
from service.access.keys import Keyring
from service.access.rates import Rates
from service.alarms import Watch
from service.catalog import Catalog, Workflow, open_catalog
from service.clock import Clock, now_us
from service.decide import Decider
from service.holds import Holds
from service.jobs import Jobs
from service.learn import Learner
from service.ledger.ledger import Ledger
from service.ledger.records import Head, Interaction
from service.memory.in_process import InProcessMemoryStore
from service.memory.store import MemoryStore, StoredMemory
from service.metrics import Metrics
from service.pins import read_pins
from service.recall import Recall
from service.rederive import Rederiver
from service.replay import Rebuilder
from service.rollouts.kill_switch import KillSwitch, SharedPlace, SwitchFile
from service.rollouts.operate import Rollouts
from service.rollouts.traffic import Traffic
from service.scheduler import Scheduler
from service.settings import Settings
from service.together import Together
from service.verify import Verifier

if TYPE_CHECKING:
    from service.tracing import Tracing

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Service:
    """Everything a request needs."""

    settings: Settings
    ledger: Ledger
    memories: MemoryStore
    catalog: Catalog
    recall: Recall
    decider: Decider
    learner: Learner
    jobs: Jobs
    scheduler: Scheduler
    watch: Watch
    metrics: Metrics
    rederiver: Rederiver
    rebuilder: Rebuilder
    verifier: Verifier
    keyring: Keyring
    rates: Rates
    clock: Clock
    rollouts: Rollouts
    kill_switch: KillSwitch
    traffic: Traffic
    tracing: Tracing | None
    """None: nobody asked for traces."""


@contextlib.asynccontextmanager
async def open_service(
    settings: Settings, clock: Clock = now_us, *, schedule: bool = True
) -> AsyncIterator[Service]:
    """The service, verified and warm; `schedule` runs its jobs in the background.

    Raises SettingError, SpecError, BundleError and LedgerUnavailableError.
    """
    metrics, tracing = Metrics(), open_traces(settings)
    key = settings.draw_key()
    ledger = Ledger.open(
        settings.ledger, metrics.observe_commit, key=key, migrates=settings.migrations == "start"
    )
    try:
        pins = read_pins(settings.policy_pins)
        catalog = open_catalog(settings.workflows, settings.policies, ledger, clock(), pins)
        memories = open_memories(settings, ledger, metrics)
        recall = Recall(ledger, memories, catalog, metrics, clock, settings.snapshot_every)
        keyring = open_keyring(settings, ledger, clock)
        await keyring.refresh()
        together = Together(memories, recall, catalog, metrics)
        holds = Holds()
        watch = Watch(ledger, memories, recall, catalog, metrics, holds, clock)
        traffic = Traffic()
        learner = Learner(ledger, recall, together, catalog, metrics, clock, traffic, tracing)
        rollouts = Rollouts(ledger, catalog, traffic, metrics, clock, warm_up)
        place = open_shared_switch(settings, ledger)
        switch = KillSwitch(SwitchFile(settings.data_dir), place, ledger, traffic, metrics)
        jobs = Jobs(
            ledger,
            memories,
            recall,
            learner,
            catalog,
            metrics,
            clock,
            settings,
            rollouts,
            switch,
            watch,
        )
        service = Service(
            settings,
            ledger,
            memories,
            catalog,
            recall,
            Decider(
                ledger,
                recall,
                metrics,
                clock,
                key,
                traffic,
                holds,
                settings.decision_deadline_seconds,
                tracing,
            ),
            learner,
            jobs,
            Scheduler(ledger, metrics, settings, jobs.runs()),
            watch,
            metrics,
            Rederiver(recall, catalog, key),
            Rebuilder(ledger, memories, recall),
            Verifier(ledger, memories, recall, catalog),
            keyring,
            Rates(settings.requests_per_second, time.monotonic),
            clock,
            rollouts,
            switch,
            traffic,
            tracing,
        )
        for workflow in catalog.workflows.values():
            warm_up(workflow)
            policy = workflow.policy
            metrics.parity.labels(workflow.spec.policy).set(policy.parity.difference)
            metrics.expect_context(workflow.spec)
            metrics.expect_exploration(workflow.spec)
            metrics.expect_events(workflow.spec)
            metrics.progress.expect(workflow.spec)
        await jobs.follow()  # who was in is in from the first request on
        await watch.observe()  # before the first decision: where to fall back
        background = []
        if schedule:
            every = settings.key_refresh_seconds
            background = [
                asyncio.create_task(service.scheduler.run()),
                asyncio.create_task(keyring.keep_fresh(every)),
            ]
        try:
            yield service
        finally:
            for one in background:
                await end(one)
            service.decider.close()
            await recall.close()
            await switch.close()
            await memories.close()
    finally:
        await ledger.close()
        if tracing is not None:
            await asyncio.to_thread(tracing.close)  # it waits for the collector


async def end(task: asyncio.Task[None]) -> None:
    """Cancels `task` until it has ended: before Python 3.12, `asyncio.wait_for` forgets that it was
    cancelled where it has an answer at that very moment."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=0.1)
    with contextlib.suppress(asyncio.CancelledError):
        await task


def warm_up(workflow: Workflow) -> None:
    """One whole decision and its fold on an example, with nothing recorded.

    Raises BundleError when the policy gives no distribution.
    """
    started = time.perf_counter()
    context = example_context(workflow.spec)
    allowed = workflow.limits.allow(context, None)
    blank = StoredMemory(workflow.blank(), Head())
    masks = allowed.mask[None]
    probabilities = workflow.probabilities([blank], [context], masks)
    if not are_sound(probabilities, masks).all():
        raise BundleError(
            f"policy {workflow.spec.policy} gives no distribution for a new account of workflow "
            f"{workflow.name}, expected probabilities that sum to 1"
        )
    action = workflow.spec.action_ids[int(np.argmax(probabilities))]
    example = Interaction(1, workflow.version, context, action, workflow.spec.reward.max, True)
    workflow.fold(blank.memory, example, workflow.spec)
    log.info("%s is warm after %.1f ms", workflow.name, 1e3 * (time.perf_counter() - started))


def example_context(spec: WorkflowSpec) -> dict[str, Any]:
    """A context that the workflow takes: middles of ranges, first values, false."""
    example: dict[str, Any] = {}
    for name, feature in spec.context.items():
        match feature:
            case CategoryFeature(values=values):
                example[name] = values[0]
            case BooleanFeature():
                example[name] = False
            case ImageFeature():
                example[name] = base64.b64encode(bytes(feature.bytes)).decode()
            case _:
                example[name] = (feature.min + feature.max) / 2
    return example


def open_keyring(settings: Settings, ledger: Ledger, clock: Clock) -> Keyring:
    """The keys, not read yet."""
    admin = settings.admin_key
    return Keyring(
        ledger,
        clock,
        time.monotonic,
        None if admin is None else admin.get_secret_value(),
        settings.may_be_open,
        settings.access == "open",
    )


def open_traces(settings: Settings) -> Tracing | None:
    """Where spans go; None where none are made."""
    if settings.traces == "off":
        return None
    from service.tracing import open_tracing  # only the otel extra has OpenTelemetry's SDK

    return open_tracing()


def open_memories(settings: Settings, ledger: Ledger, metrics: Metrics) -> MemoryStore:
    """Where the settings say that memories are kept."""
    if settings.redis_url is None:
        return InProcessMemoryStore(settings.in_process_memories)
    from service.memory.redis_store import RedisMemoryStore  # only the production extra has redis

    return RedisMemoryStore(
        settings.redis_url,
        ledger.ledger_id,
        settings.memory_timeout_seconds,
        settings.memory_idle_seconds,
        lambda why: metrics.memory_corrupt.labels(why).inc(),
        lambda is_open: metrics.circuit_open.labels("memory").set(is_open),
    )


def open_shared_switch(settings: Settings, ledger: Ledger) -> SharedPlace | None:
    """Where replicas see each other's kill switches; None: there is but this process."""
    if settings.redis_url is None:
        return None
    from service.rollouts.redis_switch import RedisSwitch  # only the production extra has redis

    return RedisSwitch(settings.redis_url, ledger.ledger_id)
