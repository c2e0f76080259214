"""Gathers a rollout's evidence from the ledger, a page of accounts that changed at a time.

An account's contribution is written down with how much of its past it holds: it is counted once
whoever counts it how often, and anew where its past was revised. What runs here runs in one
transaction; killed anywhere, nothing of the page is kept, and the next run reads it again.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import Connection, Row, delete, insert, select, tuple_

from contract.encode import ContextError, check_context
from contract.spec import WorkflowSpec
from guardrails.conditions import Condition, context_variables
from guardrails.rollouts.buckets import bucket, is_below
from guardrails.rollouts.cohorts import Array, Cohort, strata, stratum
from service.fault_points import reach
from service.ledger.records import Account, AccountKey, Head
from service.ledger.rollout_tables import rollout_accounts, rollout_sums
from service.ledger.rows import to_account
from service.ledger.tables import accounts, decisions, feedback
from service.rollouts.progress import Progress, read_progress, write_progress
from service.rollouts.records import Rollout, Transition
from service.rollouts.store import one_at_a_time
from service.rollouts.traffic import HELD_OUT, KILLED, NOT_IN, Candidate

Place = tuple[int, str, str]
"""Where a walk over changed accounts stands: when, tenant, name."""
Cells = dict[str, dict[str, list[float]]]
"""An account's contribution: by cohort and stratum, interactions and sums of each measure."""

PAGE = 500
"""Accounts that one transaction looks at."""
OVERLAP_US = 10_000_000
"""How far each run looks back behind the last: commits do not land in clock order."""
ASKED_AT_ONCE = 100
"""Accounts whose interactions one statement reads: those of about the same position."""
FAILED = ("policy_failed", "policy_unsound", "memory_unreadable", "deadline")
"""Reasons of decisions that the candidate was to make and did not: its network failed, its memory
of the account is not finite, or it took too long."""
ALARMED = "alarm"
ELSEWHERE = ("memory_unavailable", HELD_OUT, NOT_IN)
"""Reasons of decisions that the candidate had no part in."""
REWARD = "reward"
COHORTS = ("candidate", "control", "holdout")


class Holdout(NamedTuple):
    """Who stays on the fallback: what traffic goes by, whichever rollout asked for it."""

    salt: str
    percent: float


class Page(NamedTuple):
    """What one transaction looked at."""

    fresh: list[AccountKey]
    """Accounts with something new."""
    end: Place | None
    """Where the next page begins; None: there is none."""


def read_cohorts(connection: Connection, rollout: Rollout) -> dict[str, dict[str, Cohort]]:
    """By cohort and measure."""
    size = strata(len(rollout.schedule.stages))
    cohorts = {
        cohort: {measure: Cohort.empty(size) for measure in measures(rollout)} for cohort in COHORTS
    }
    query = select(rollout_sums).where(rollout_sums.c.rollout_id == rollout.rollout_id)
    for row in connection.execute(query):
        cohorts[row.cohort][row.measure] = Cohort.from_bytes(row.sums, size)
    return cohorts


def measures(rollout: Rollout) -> list[str]:
    """What is summed of each interaction: the reward, and each guardrail metric."""
    return [REWARD, *(f"guardrail:{one.name}" for one in rollout.schedule.guardrails)]


class Gatherer:
    """One rollout's evidence, with what must be known to place an interaction."""

    def __init__(
        self,
        candidate: Candidate,
        holdout: Holdout,
        transitions: Sequence[Transition],
        spec_of: Callable[[int], WorkflowSpec],
    ) -> None:
        self._candidate = candidate
        self._rollout = candidate.rollout
        self._holdout = holdout
        self._timeline = [(one.at_us, one.stage) for one in transitions]
        self._spec_of = spec_of

    def page(self, connection: Connection, after: Place | None) -> Page:
        """Counts in the next page of accounts that changed, above `after`, or from where the run
        before got to."""
        one_at_a_time(connection)
        rollout = self._rollout
        progress = read_progress(connection, rollout.rollout_id)
        progress.enter(rollout)
        since = max(progress.read_to_us - OVERLAP_US, rollout.created_at_us)
        found = _changed(connection, rollout.workflow, after or (since, "", ""))
        before = self._contributions(connection, found)
        fresh = [one for one in found if _seen(before.get(one.key)) != one.head]
        if fresh:
            cohorts = read_cohorts(connection, rollout)
            for tenant in sorted({one.key.tenant for one in fresh}):
                some = [one for one in fresh if one.key.tenant == tenant]
                self._count(connection, some, before, progress, cohorts)
            self._write_cohorts(connection, cohorts)
        if found:
            progress.read_to_us = max(progress.read_to_us, found[-1].updated_at_us)
        write_progress(connection, rollout.rollout_id, progress)
        reach("rollouts.in_transaction")
        end = None
        if len(found) == PAGE:
            last = found[-1]
            end = (last.updated_at_us, last.key.tenant, last.key.account_id)
        return Page([one.key for one in fresh], end)

    def _contributions(
        self, connection: Connection, found: Sequence[Account]
    ) -> dict[AccountKey, Row[Any]]:
        """What these accounts contributed so far."""
        columns, workflow = rollout_accounts.c, self._rollout.workflow
        query = select(rollout_accounts).where(
            columns.rollout_id == self._rollout.rollout_id,
            columns.tenant.in_({one.key.tenant for one in found}),
            columns.account_id.in_({one.key.account_id for one in found}),
        )
        return {
            AccountKey(row.tenant, workflow, row.account_id): row
            for row in connection.execute(query)
        }

    def _count(
        self,
        connection: Connection,
        fresh: Sequence[Account],
        before: Mapping[AccountKey, Row[Any]],
        progress: Progress,
        cohorts: Mapping[str, Mapping[str, Cohort]],
    ) -> None:
        """Counts in what is new of accounts of one tenant."""
        came = self._interactions(connection, fresh, before)
        size, names = strata(len(self._rollout.schedule.stages)), measures(self._rollout)
        rows = []
        for account in fresh:
            row = before.get(account.key)
            revised = row is not None and row.generation != account.head.generation
            cells: Cells = {} if row is None or revised else json.loads(row.cells)
            was: Cells = {} if row is None else json.loads(row.cells)
            new = came[account.key.account_id]
            if revised:  # what it contributed is worked out anew
                known: set[int] = set()
            else:
                known = {0} if row is None else set(range(row.position + 1))
            counted = 0 if row is None else row.counted_in
            for one in new:
                if one.position in known:
                    continue
                again = revised and row is not None and one.position <= row.position
                counted = self._place(account.key, one, cells, progress, counted, again)
            for cohort in {*cells, *was}:
                then, now = (_sums(one.get(cohort, {}), size, len(names)) for one in (was, cells))
                for k, name in enumerate(names, start=1):
                    cohorts[cohort][name].replace((then[0], then[k]), (now[0], now[k]))
            rows.append(
                {
                    "rollout_id": self._rollout.rollout_id,
                    "tenant": account.key.tenant,
                    "account_id": account.key.account_id,
                    "generation": account.head.generation,
                    "position": account.head.position,
                    "counted_in": counted,
                    "cells": json.dumps(cells),
                }
            )
        columns = rollout_accounts.c
        connection.execute(
            delete(rollout_accounts).where(
                columns.rollout_id == self._rollout.rollout_id,
                columns.tenant == fresh[0].key.tenant,
                columns.account_id.in_([one.key.account_id for one in fresh]),
            )
        )
        connection.execute(insert(rollout_accounts), rows)

    def _place(
        self,
        key: AccountKey,
        one: Row[Any],
        cells: Cells,
        progress: Progress,
        counted: int,
        again: bool,
    ) -> int:
        """Adds one interaction to its cohort; the beginning of the stage that the account has been
        counted in. One that an alarm had the fallback decide says nothing of either policy, and
        its account counts for the cohorts' sizes all the same."""
        rollout = self._rollout
        stage = self._stage_at(one.created_at_us)
        cohort = self._cohort(key, one, stage)
        if cohort is None:
            return counted
        alarmed = one.reason == ALARMED
        first = cohort not in cells
        if not alarmed:
            self._add(one, cells.setdefault(cohort, {}), stage)
        if again:  # counted when it first came
            return counted
        mine = cohort == "candidate"
        if mine and not alarmed:
            progress.decisions += 1
            progress.failures += one.reason in FAILED
        if one.created_at_us < rollout.stage_since_us or cohort == "holdout":
            return counted
        if alarmed:
            progress.stage_candidate_alarms += mine
            progress.stage_control_alarms += not mine
        else:
            progress.stage_interactions += mine
            progress.stage_control_interactions += not mine
            if mine and not first:
                progress.stage_due += 1
                progress.stage_served += self._served(one)
        if counted != rollout.stage_since_us:
            progress.stage_candidates += mine
            progress.stage_controls += not mine
        return rollout.stage_since_us

    def _add(self, one: Row[Any], cells: dict[str, list[float]], stage: int) -> None:
        """Adds one interaction to a cohort's cells."""
        spec, metrics = self._spec_of(one.spec_version), self._rollout.schedule.guardrails
        scaled = (one.folded_reward - spec.reward.min) / (spec.reward.max - spec.reward.min)
        outcomes = [float(one.outcome == metric.outcome) for metric in metrics]
        place = str(stratum(stage, max(one.position - 1, 0)))
        cell = cells.setdefault(place, [0.0] * (2 + len(outcomes)))
        for k, value in enumerate((1.0, scaled, *outcomes)):
            cell[k] += value

    def _served(self, one: Row[Any]) -> bool:
        """Whether the candidate decided, or failed to."""
        return one.policy == self._rollout.policy and one.reason not in ELSEWHERE

    def _stage_at(self, at_us: int) -> int:
        """The stage that the rollout was in."""
        return max((stage for since, stage in self._timeline if since <= at_us), default=0)

    def _cohort(self, key: AccountKey, one: Row[Any], stage: int) -> str | None:
        """Whose the interaction is; None: nobody's, as nobody was exposed, its segment is not the
        stage's, or the next rollout's candidate decided what is all of this one's."""
        schedule = self._rollout.schedule
        percent = schedule.stages[stage].percent
        if percent == 0 or one.reason == KILLED:
            return None
        segment = self._candidate.segments[stage]
        if segment is not None and not self._holds(segment, one):
            return None
        place = bucket(self._holdout.salt, key.tenant, key.account_id)
        if is_below(place, self._holdout.percent):
            return "holdout"
        if stage == len(schedule.stages) - 1 and one.policy != self._rollout.policy:
            return None
        place = bucket(self._rollout.salt, key.tenant, key.account_id)
        return "candidate" if is_below(place, percent) else "control"

    def _holds(self, segment: Condition, one: Row[Any]) -> bool:
        try:
            context, _ = check_context(self._spec_of(one.spec_version), json.loads(one.context))
        except ContextError:
            return False
        return segment.holds(context_variables(context)) is True

    def _interactions(
        self,
        connection: Connection,
        fresh: Sequence[Account],
        before: Mapping[AccountKey, Row[Any]],
    ) -> dict[str, list[Row[Any]]]:
        """By account of one tenant, its interactions that may be new, as they stand now; of one
        whose past was revised, all since the rollout began."""
        came: defaultdict[str, dict[tuple[str, int], Any]] = defaultdict(dict)
        lowest: list[tuple[int, Account]] = []
        for account in fresh:
            row = before.get(account.key)
            same = row is not None and row.generation == account.head.generation
            lowest.append((row.position if same and row is not None else 0, account))
        lowest.sort(key=lambda one: one[0])
        for start in range(0, len(lowest), ASKED_AT_ONCE):
            some = lowest[start : start + ASKED_AT_ONCE]
            query = (
                select(
                    feedback.c.account_id,
                    feedback.c.decision_id,
                    feedback.c.position,
                    feedback.c.generation,
                    feedback.c.folded_reward,
                    feedback.c.outcome,
                    decisions.c.created_at_us,
                    decisions.c.spec_version,
                    decisions.c.policy,
                    decisions.c.reason,
                    decisions.c.context,
                )
                .join(
                    decisions,
                    (decisions.c.tenant == feedback.c.tenant)
                    & (decisions.c.decision_id == feedback.c.decision_id),
                )
                .where(
                    feedback.c.account_id.in_([account.key.account_id for _, account in some]),
                    feedback.c.workflow == self._rollout.workflow,
                    feedback.c.tenant == fresh[0].key.tenant,
                    feedback.c.position > some[0][0],
                    decisions.c.created_at_us >= self._rollout.created_at_us,
                )
                .order_by(feedback.c.generation, feedback.c.position)
            )
            for one in connection.execute(query):  # of one interaction, the newest stands
                came[one.account_id][one.decision_id, one.position] = one
        return defaultdict(list, {name: list(rows.values()) for name, rows in came.items()})

    def _write_cohorts(
        self, connection: Connection, cohorts: Mapping[str, Mapping[str, Cohort]]
    ) -> None:
        own = rollout_sums.c.rollout_id == self._rollout.rollout_id
        connection.execute(delete(rollout_sums).where(own))
        connection.execute(
            insert(rollout_sums),
            [
                {
                    "rollout_id": self._rollout.rollout_id,
                    "cohort": cohort,
                    "measure": measure,
                    "sums": sums.to_bytes(),
                }
                for cohort, by_measure in cohorts.items()
                for measure, sums in by_measure.items()
            ],
        )


def _changed(connection: Connection, workflow: str, after: Place) -> list[Account]:
    """The accounts of a workflow that changed after that, oldest change first."""
    columns = accounts.c
    place = tuple_(columns.updated_at_us, columns.tenant, columns.account_id)
    query = (
        select(accounts)
        .where(
            columns.workflow == workflow, columns.updated_at_us >= after[0], place > tuple_(*after)
        )
        .order_by(columns.updated_at_us, columns.tenant, columns.account_id)
        .limit(PAGE)
    )
    return [to_account(row) for row in connection.execute(query)]


def _seen(row: Row[Any] | None) -> Head | None:
    return None if row is None else Head(row.generation, row.position)


def _sums(cells: Mapping[str, Sequence[float]], size: int, measured: int) -> Array:
    """Interactions, and sums of each measure, by stratum: `[1 + M, J]`."""
    whole = np.zeros((1 + measured, size))
    for place, values in cells.items():
        whole[:, int(place)] = values
    return whole
