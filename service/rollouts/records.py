"""A rollout as the ledger has it, and what may be done to it. Pure: no clock, no I/O."""

from __future__ import annotations

from typing import Literal, NamedTuple

from guardrails.rollouts.schedule import Schedule, Stage

Status = Literal["running", "paused", "completed", "rolled_back"]
Action = Literal["create", "advance", "approve", "pause", "resume", "roll_back"]
FALLBACK = "fallback"
"""What a rollout is against where no policy served before."""
EVALUATOR = "evaluator"
"""Who acts when nobody does."""
LONGEST_WHY = 1_000


class RefusedError(Exception):
    """What was asked for cannot be done now, and changed nothing. `field` names what is off."""

    def __init__(self, field: str, expected: str) -> None:
        super().__init__(f"{field}: expected {expected}")
        self.field = field
        self.expected = expected


class Rollout(NamedTuple):
    """One policy on its way to a workflow's accounts."""

    rollout_id: str
    workflow: str
    policy: str
    against: str
    """The policy of who is not in, or `fallback`."""
    file_policy: str
    """The policy that the workflow's file named when it was created."""
    schedule: Schedule
    salt: str
    status: Status
    stage: int
    stage_since_us: int
    approved: bool
    """Whether the next stage was approved."""
    reason: str
    created_at_us: int
    created_by: str
    revision: int = 1

    @property
    def is_active(self) -> bool:
        """Whether it is on its way: a workflow has one such at most."""
        return self.status in ("running", "paused")

    @property
    def current(self) -> Stage:
        """The stage it is in."""
        return self.schedule.stages[self.stage]


class Transition(NamedTuple):
    """One change of a rollout, and who made it."""

    rollout_id: str
    revision: int
    at_us: int
    actor: str
    action: Action
    status: Status
    stage: int
    reason: str
    evidence: str
    """JSON: what was known then."""


def changed(
    rollout: Rollout, action: Action, why: str, now_us: int, *, waits_for_approval: bool = False
) -> Rollout:
    """The rollout after an action. Raises RefusedError where that makes no sense."""
    after = rollout._replace(revision=rollout.revision + 1, reason=why)
    match action:
        case "advance":
            if rollout.stage == len(rollout.schedule.stages) - 1 or not rollout.is_active:
                raise RefusedError("rollout_id", f"one that is on its way, {_said(rollout)}")
            last = rollout.stage + 1 == len(rollout.schedule.stages) - 1
            return after._replace(
                status="completed" if last else "running",
                stage=rollout.stage + 1,
                stage_since_us=now_us,
                approved=False,
            )
        case "approve":
            if rollout.status != "running" or rollout.approved or not waits_for_approval:
                raise RefusedError("rollout_id", f"one that waits for approval, {_said(rollout)}")
            return after._replace(approved=True)
        case "pause":
            if rollout.status != "running":
                raise RefusedError("rollout_id", f"one that is running, {_said(rollout)}")
            return after._replace(status="paused")
        case "resume":
            if rollout.status != "paused":
                raise RefusedError("rollout_id", f"one that is paused, {_said(rollout)}")
            return after._replace(status="running", stage_since_us=now_us)
        case "roll_back":
            if rollout.status == "rolled_back":
                raise RefusedError("rollout_id", f"one that is not, {_said(rollout)}")
            return after._replace(status="rolled_back")
        case _:
            raise AssertionError(action)


def _said(rollout: Rollout) -> str:
    return f"got one that is {rollout.status} at {rollout.current.percent:g} %"


def standing(rollouts: list[Rollout], file_policy: str) -> list[Rollout]:
    """Those of one workflow that still count, oldest first: not taken back, and begun while the
    file named the policy it names now, or one that it names by now. A file that names yet another
    policy has the last word."""
    return [
        one
        for one in sorted(rollouts, key=lambda one: (one.created_at_us, one.rollout_id))
        if one.status != "rolled_back" and file_policy in (one.file_policy, one.policy)
    ]
