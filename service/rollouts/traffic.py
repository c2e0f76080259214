"""Who is served by what: the rollouts as this process knows them, asked at every decision.

Only memory is read here, and nothing at all while no rollout stands and no switch is thrown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from guardrails.conditions import Condition, context_variables
from guardrails.rollouts.buckets import bucket, is_below
from service.catalog import Workflow
from service.rollouts.records import FALLBACK, Rollout

EVERYTHING = "*"
"""The kill switch of all workflows."""

HELD_OUT = "held_out"
NOT_IN = "not_in_rollout"
KILLED = "kill_switch"


@dataclass(frozen=True)
class Candidate:
    """A rollout on its way, or one that has arrived, ready to be asked who is in."""

    rollout: Rollout
    workflow: Workflow | None
    """The workflow on the candidate; None where it cannot be served here."""
    segments: tuple[Condition | None, ...]
    """By stage."""

    def includes(self, tenant: str, account_id: str, context: Mapping[str, Any]) -> bool:
        """Whether this decision is the candidate's: a stage up to the current one says so, so that
        nobody whom one took in is put out by the next."""
        place = bucket(self.rollout.salt, tenant, account_id)
        stages = self.rollout.schedule.stages[: self.rollout.stage + 1]
        return any(
            is_below(place, stage.percent) and _holds(segment, context)
            for stage, segment in zip(stages, self.segments, strict=False)
        )


def _holds(segment: Condition | None, context: Mapping[str, Any]) -> bool:
    return segment is None or segment.holds(context_variables(context)) is True


@dataclass(frozen=True)
class Lineup:
    """One workflow's policies, and who is served by which."""

    current: Workflow
    """On the policy of whoever is in no rollout on its way."""
    active: Candidate | None = None
    arrived: Candidate | None = None
    """The last that reached all accounts: it is watched on until another has."""
    holdout_salt: str = ""
    holdout_percent: float = 0.0
    retired: tuple[Workflow, ...] = ()
    """On policies that were taken back: they serve nobody, and have memories."""

    def place(
        self, tenant: str, account_id: str, context: Mapping[str, Any]
    ) -> tuple[Workflow, str | None]:
        """The workflow on the policy that serves the account, and why the fallback decides in its
        place, if it does."""
        if self.is_held_out(tenant, account_id):
            return self.current, HELD_OUT
        active = self.active
        if active is None:
            return self.current, None
        if active.workflow is not None and active.includes(tenant, account_id, context):
            return active.workflow, None
        return self.current, NOT_IN if active.rollout.against == FALLBACK else None

    def is_held_out(self, tenant: str, account_id: str) -> bool:
        """Whether the account stays on the fallback for good."""
        return self.holdout_percent > 0 and is_below(
            bucket(self.holdout_salt, tenant, account_id), self.holdout_percent
        )

    def serving(self) -> list[Workflow]:
        """The workflow on every policy that may serve an account of it."""
        served = [self.current]
        if self.active is not None and self.active.workflow is not None:
            served.insert(0, self.active.workflow)
        return served


@dataclass
class Traffic:
    """What the decision path asks. Replaced piece by piece as rollouts and switches change."""

    lineups: Mapping[str, Lineup] = field(default_factory=dict)
    """Of workflows with a rollout that stands."""
    killed: frozenset[str] = frozenset()
    """Workflows whose kill switch is thrown, or EVERYTHING."""

    def place(
        self, workflow: Workflow, tenant: str, account_id: str, context: Mapping[str, Any]
    ) -> tuple[Workflow, str | None]:
        """See Lineup.place; a thrown switch comes before everything."""
        lineup = self.lineups.get(workflow.name)
        placed: tuple[Workflow, str | None] = (workflow, None)
        if lineup is not None:
            placed = lineup.place(tenant, account_id, context)
        if self.killed and (workflow.name in self.killed or EVERYTHING in self.killed):
            return placed[0], KILLED
        return placed

    @property
    def is_plain(self) -> bool:
        """Whether every account is served by its workflow's one policy."""
        return not self.lineups and not self.killed
