"""What operators do to rollouts, and how each process comes to know of it."""

from __future__ import annotations

import asyncio
import copy
import logging
import secrets
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from contract.bundle import BundleError
from contract.spec import SpecError, WorkflowSpec
from guardrails.conditions import Condition
from guardrails.rollouts.schedule import DEFAULT_SCHEDULE, Schedule, ScheduleError, parse_schedule
from service.bundles import Policy
from service.catalog import Catalog, Workflow
from service.clock import Clock
from service.ledger.ledger import Ledger
from service.metrics import Metrics
from service.recall import Recall
from service.rollouts.evidence import Judged, evaluate_rollout, waits_for_approval
from service.rollouts.gather import Holdout
from service.rollouts.records import (
    FALLBACK,
    Action,
    Rollout,
    standing,
)
from service.rollouts.store import Network, begin, change, read_rollouts
from service.rollouts.traffic import Candidate, Lineup, Traffic

CURRENT = "current"
"""Against whatever serves the workflow now."""

log = logging.getLogger(__name__)


class MisfitError(Exception):
    """What was asked for can never be a rollout. `field` names what is off."""

    def __init__(self, field: str, expected: str) -> None:
        super().__init__(f"{field}: expected {expected}")
        self.field = field
        self.expected = expected


class Rollouts:
    """One process's view of all rollouts, and the door to change them."""

    def __init__(
        self,
        ledger: Ledger,
        catalog: Catalog,
        traffic: Traffic,
        metrics: Metrics,
        clock: Clock,
        warm_up: Callable[[Workflow], None],
    ) -> None:
        self._ledger = ledger
        self._catalog = catalog
        self._traffic = traffic
        self._metrics = metrics
        self._clock = clock
        self._warm_up = warm_up
        self._files: Mapping[str, Workflow] = dict(catalog.workflows)
        """On the policies that their files name."""
        self._variants: dict[tuple[str, str, str], Workflow] = {}
        self._known: list[tuple[str, int]] = []
        self._lineups: dict[str, Lineup] = {}
        self._refreshing = asyncio.Lock()

    async def create(
        self,
        workflow: str,
        policy: str,
        against: str,
        schedule: Mapping[str, Any] | None,
        actor: str,
        why: str,
    ) -> Rollout:
        """A new rollout, at its first stage. Raises MisfitError, RefusedError and
        LedgerUnavailableError."""
        await self.refresh()
        spec, now = self._files[workflow].spec, self._clock()
        current = self._catalog.workflows[workflow].policy_name
        if against != FALLBACK and policy == current:
            raise MisfitError("policy", f"another than {current}, which serves {workflow} already")
        followed = _followed(schedule, spec)
        found = await asyncio.to_thread(self._fit, workflow, policy)
        rollout = Rollout(
            rollout_id=secrets.token_hex(8),
            workflow=workflow,
            policy=policy,
            against=FALLBACK if against == FALLBACK else current,
            file_policy=spec.policy,
            schedule=followed,
            salt=secrets.token_hex(8),
            status="completed" if len(followed.stages) == 1 else "running",
            stage=0,
            stage_since_us=now,
            approved=False,
            reason=why,
            created_at_us=now,
            created_by=actor,
        )
        hashes = found.onnx.manifest.sha256
        network = Network(policy, hashes["decide.onnx"], hashes["learn.onnx"])
        rollout = await self._ledger.alone(partial(begin, rollout=rollout, network=network))
        log.info("rollout %s of %s on %s is begun", rollout.rollout_id, policy, workflow)
        await self.refresh()
        return rollout

    async def act(self, rollout_id: str, action: Action, actor: str, why: str) -> Rollout:
        """The rollout after the action. Raises RefusedError and LedgerUnavailableError."""

        def work(connection: Any) -> Rollout | None:
            return change(
                connection,
                rollout_id,
                action,
                actor,
                why,
                self._clock(),
                waits_for_approval=waits_for_approval(connection, rollout_id),
            )

        after = await self._ledger.alone(work)
        assert after is not None
        log.info("rollout %s: %s", rollout_id, action)
        await self.refresh()
        return after

    async def refresh(self) -> None:
        """Takes note of what changed in the ledger. Raises LedgerUnavailableError."""
        async with self._refreshing:
            found = await self._ledger.read(read_rollouts)
            known = [(one.rollout_id, one.revision) for one in found]
            if known == self._known:
                return
            by_workflow: defaultdict[str, list[Rollout]] = defaultdict(list)
            for one in found:
                by_workflow[one.workflow].append(one)
            lineups = {}
            for name, rollouts in by_workflow.items():
                if name in self._files:
                    lineups[name] = await asyncio.to_thread(self._line_up, name, rollouts)
            for name, lineup in lineups.items():
                self._catalog.adopt(name, lineup.current, lineup.serving(), lineup.retired)
                self._export(name, lineup)
            self._traffic.lineups = {
                name: one for name, one in lineups.items() if one.active or one.holdout_percent
            }
            self._lineups = lineups
            self._known = known

    async def evaluate(self, recall: Recall, now_us: int) -> list[Judged]:
        """The verdict on every rollout on its way, and on the last that arrived on each workflow,
        as of now, and what follows. One that cannot be judged keeps no other from it: what was
        wrong with the first such is raised at the end, LedgerUnavailableError and
        MemoryUnavailableError among it."""
        await self.refresh()
        judged: list[Judged] = []
        failed: list[Exception] = []
        for lineup in list(self._lineups.values()):
            holdout = Holdout(lineup.holdout_salt, lineup.holdout_percent)
            for watched in (lineup.arrived, lineup.active):
                if watched is None:
                    continue
                ledger, catalog, metrics = self._ledger, self._catalog, self._metrics
                try:
                    found = await evaluate_rollout(
                        ledger, recall, catalog, metrics, watched, holdout, now_us
                    )
                except Exception as error:
                    rollout, what = watched.rollout.rollout_id, type(error).__name__
                    log.error("rollout %s is not judged: %s", rollout, what)
                    failed.append(error)
                    continue
                judged.append(found)
                if found.above:  # the one on its way went with it
                    break
        await self.refresh()
        if failed:
            raise failed[0]
        return judged

    def _export(self, name: str, lineup: Lineup) -> None:
        self._metrics.rollout_percent.labels(name).set(
            lineup.active.rollout.current.percent if lineup.active else 0
        )
        self._metrics.rollout_stage_since.labels(name).set(
            lineup.active.rollout.stage_since_us / 1e6 if lineup.active else 0
        )
        self._metrics.rollout_paused.labels(name).set(
            lineup.active is not None and lineup.active.rollout.status == "paused"
        )

    def _line_up(self, name: str, rollouts: list[Rollout]) -> Lineup:
        """Who is served by what, as these rollouts say. Blocks."""
        base = self._files[name]
        stand = standing(rollouts, base.spec.policy)
        current, holdout, active, arrived = base, 0.0, None, None
        for one in stand:
            served = self._variant(name, one.policy, current)
            candidate = Candidate(one, served, _segments(one.schedule, base.spec))
            if one.status == "completed":
                arrived = candidate
                current = served or current
                holdout = max(holdout, one.schedule.holdout_percent)
            else:
                active = candidate
                if one.current.percent:
                    holdout = max(holdout, one.schedule.holdout_percent)
        gone = {one.policy for one in rollouts} - {one.policy for one in stand}
        retired = [self._variant(name, policy, None) for policy in sorted(gone)]
        return Lineup(
            current,
            active,
            arrived,
            f"{self._ledger.ledger_id}|holdout|{name}",
            holdout,
            tuple(one for one in retired if one is not None),
        )

    def _variant(self, name: str, policy: str, before: Workflow | None) -> Workflow | None:
        """The workflow on that policy, whose accounts come from the one before; None where it
        cannot be served here. Blocks."""
        base = self._files[name]
        if before is not None and before.policy_name == policy:
            return before
        key = (name, policy, "" if before is None else before.policy_name)
        if key not in self._variants:
            try:
                fitted = self._fit(name, policy)
                served = Workflow(base.spec, base.version, fitted, base.baseline)
                self._warm_up(served)
            except (BundleError, SpecError, MisfitError) as error:
                log.error("%s cannot be served by %s here: %s", name, policy, error)
                return None
            if before is not None:
                served.before = copy.copy(before)
                served.before.not_ready_for = policy
            parity = served.policy.parity.difference
            self._metrics.parity.labels(policy).set(parity)
            self._variants[key] = served
        return self._variants[key]

    def _fit(self, name: str, policy: str) -> Policy:
        """The policy, if it passes its parity vectors and fits every spec that accounts remember.
        Raises MisfitError. Blocks."""
        try:
            found = self._catalog.bundles.policy(policy)
            found.onnx.manifest.refuse_misfit(self._files[name].spec)
            for spec in self._ledger.spec_versions(name).values():
                found.onnx.manifest.refuse_misfit(spec)
        except BundleError as error:
            raise MisfitError("policy", f"a bundle that can serve {name}, but {error}") from error
        return found


def _followed(data: Mapping[str, Any] | None, spec: WorkflowSpec) -> Schedule:
    """The schedule asked for, fit for the workflow. Raises MisfitError."""
    try:
        schedule = DEFAULT_SCHEDULE if data is None else parse_schedule(data)
        _segments(schedule, spec)
    except ScheduleError as error:
        raise MisfitError(f"schedule.{error.field}", error.expected) from error
    for i, metric in enumerate(schedule.guardrails):
        if metric.outcome not in spec.reward.outcomes:
            known = sorted(spec.reward.outcomes) or "none: the workflow declares no outcomes"
            field = f"schedule.guardrails.{i}.outcome"
            raise MisfitError(field, f"one of {known}, got {metric.outcome!r}")
    return schedule


def _segments(schedule: Schedule, spec: WorkflowSpec) -> tuple[Condition | None, ...]:
    """By stage, compiled. Raises ScheduleError."""
    conditions: list[Condition | None] = []
    for i, stage in enumerate(schedule.stages):
        if stage.segment is None:
            conditions.append(None)
            continue
        field = f"stages.{i}.segment"
        try:
            conditions.append(Condition(spec, field, stage.segment, of_action=False))
        except SpecError as error:
            expected = str(error).partition("expected ")[2] or str(error)
            raise ScheduleError(field, expected) from error
    return tuple(conditions)
