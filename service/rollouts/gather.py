"""Gathers a rollout's evidence from the ledger, a page of accounts that changed at a time.

An account's contribution is written down with how much of its past it holds: it is counted once
whoever counts it how often, and anew where its past was revised. What runs here runs in one
transaction; killed anywhere, nothing of the page is kept, and the next run reads it again.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
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
from service.ledger.rollout_tables import rollout_accounts, rollout_progress, rollout_sums
from service.ledger.rows import to_account
from service.ledger.tables import accounts, decisions, feedback
from service.rollouts.records import Rollout, Transition
from service.rollouts.store import one_at_a_time
from service.rollouts.traffic import KILLED, Candidate

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
FAILED = ("policy_failed", "policy_unsound")
REWARD = "reward"
COHORTS = ("candidate", "control", "holdout")


@dataclass
class Progress:
    """How far a rollout's evidence has been gathered, and what is counted."""

    read_to_us: int = 0
    stage_since_us: int = 0
    """Of the stage that these three are about."""
    stage_candidates: int = 0
    stage_controls: int = 0
    stage_interactions: int = 0
    unwatched_us: int = 0
    """In this stage, how long nobody looked."""
    watched_at_us: int = 0
    decisions: int = 0
    failures: int = 0
    shadow_decisions: int = 0
    shadow_failures: int = 0
    shadow_agreement: float = 0.0
    """Sum of the candidate's probabilities of what was served."""
    verdict: str = ""
    reason: str = ""
    detail: str = ""
    """The last verdict."""
    comparisons: dict[str, Any] = field(default_factory=dict)
    """What it rested on."""

    def enter(self, rollout: Rollout) -> None:
        """Begins to count anew where the rollout has come to another stage."""
        if self.stage_since_us != rollout.stage_since_us:
            self.stage_since_us = rollout.stage_since_us
            self.stage_candidates = self.stage_controls = self.stage_interactions = 0
            self.unwatched_us = 0


class Page(NamedTuple):
    """What one transaction looked at."""

    fresh: list[AccountKey]
    """Accounts with something new."""
    end: Place | None
    """Where the next page begins; None: there is none."""


def read_progress(connection: Connection, rollout_id: str) -> Progress:
    """As it was written last, or a blank one."""
    columns = rollout_progress.c
    query = select(columns.body).where(columns.rollout_id == rollout_id)
    body = connection.scalar(query)
    return Progress() if body is None else Progress(**json.loads(body))


def write_progress(connection: Connection, rollout_id: str, progress: Progress) -> None:
    """In place of what was there."""
    columns = rollout_progress.c
    connection.execute(delete(rollout_progress).where(columns.rollout_id == rollout_id))
    row = {"rollout_id": rollout_id, "body": json.dumps(asdict(progress))}
    connection.execute(insert(rollout_progress).values(row))


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
        holdout_salt: str,
        transitions: Sequence[Transition],
        spec_of: Callable[[int], WorkflowSpec],
    ) -> None:
        self._candidate = candidate
        self._rollout = candidate.rollout
        self._holdout_salt = holdout_salt
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
        """Adds one interaction to its cohort's cell; the beginning of the stage that the account
        has been counted in."""
        rollout = self._rollout
        stage = self._stage_at(one.created_at_us)
        cohort = self._cohort(key, one, stage)
        if cohort is None:
            return counted
        spec = self._spec_of(one.spec_version)
        scaled = (one.folded_reward - spec.reward.min) / (spec.reward.max - spec.reward.min)
        outcomes = [float(one.outcome == metric.outcome) for metric in rollout.schedule.guardrails]
        place = str(stratum(stage, max(one.position - 1, 0)))
        cell = cells.setdefault(cohort, {}).setdefault(place, [0.0] * (2 + len(outcomes)))
        for k, value in enumerate((1.0, scaled, *outcomes)):
            cell[k] += value
        if again:  # counted when it first came
            return counted
        if cohort == "candidate":
            progress.decisions += 1
            progress.failures += one.reason in FAILED
        if one.created_at_us < rollout.stage_since_us or cohort == "holdout":
            return counted
        progress.stage_interactions += cohort == "candidate"
        if counted != rollout.stage_since_us:
            progress.stage_candidates += cohort == "candidate"
            progress.stage_controls += cohort == "control"
        return rollout.stage_since_us

    def _stage_at(self, at_us: int) -> int:
        """The stage that the rollout was in."""
        return max((stage for since, stage in self._timeline if since <= at_us), default=0)

    def _cohort(self, key: AccountKey, one: Row[Any], stage: int) -> str | None:
        """Whose the interaction is; None: nobody's, as nobody was exposed or its segment is not
        the stage's."""
        schedule = self._rollout.schedule
        percent = schedule.stages[stage].percent
        if percent == 0 or one.reason == KILLED:
            return None
        segment = self._candidate.segments[stage]
        if segment is not None and not self._holds(segment, one):
            return None
        place = bucket(self._holdout_salt, key.tenant, key.account_id)
        if is_below(place, schedule.holdout_percent):
            return "holdout"
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
