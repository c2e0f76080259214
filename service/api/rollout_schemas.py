"""What the API takes and gives about rollouts and the kill switch."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from service.access.roles import ANYONE, Who
from service.api.schemas import Body
from service.rollouts.records import LONGEST_WHY

Why = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_WHY)]


class SignedBody(Body):
    """Something an operator does: why, and who where no key says so."""

    why: Why
    by: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = Field(
        None, description="Who asks, where the service needs no keys; else the key says so."
    )

    def actor(self, who: Who) -> str:
        """Who it was, for records."""
        return self.by or who.name if who.holder is ANYONE else who.name


class RolloutBody(SignedBody):
    """Begins a rollout."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "workflow": "retention-offer",
                    "policy": "retention-offer/1",
                    "why": "trained on the last year",
                }
            ]
        },
    )

    workflow: str
    policy: str = Field(description="A bundle's name and version.", examples=["retention-offer/1"])
    against: Literal["current", "fallback"] = Field(
        "current",
        description="Who is not in is served by the policy that serves now, or by the fallback.",
    )
    schedule: dict[str, Any] | None = Field(
        None, description="As `acclimate rollout schedule` prints it."
    )


class WhyBody(SignedBody):
    """Says why."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"why": "complaints from two accounts"}]}
    )


class VerdictRecord(BaseModel):
    """The last verdict on a rollout."""

    verdict: str = Field(description="`advance`, `hold`, `pause` or `rollback`.")
    reason: str
    detail: str
    at: datetime


class EvidenceRecord(BaseModel):
    """What the last verdict rested on. Rewards are scaled to [0, 1]."""

    stage_candidate_accounts: int
    stage_control_accounts: int
    stage_interactions: int = Field(description="Of the candidate's accounts, in this stage.")
    shadow_decisions: int
    shadow_failures: int
    shadow_agreement: float | None = Field(
        description="The candidate's mean probability of what was served in shadow."
    )
    comparisons: dict[str, dict[str, float]] = Field(
        description="By measure: both means, their difference, its standard error and bounds."
    )


class TransitionRecord(BaseModel):
    """One change of a rollout."""

    at: datetime
    actor: str = Field(description="An operator, or `evaluator`.")
    action: str
    status: str
    stage: int
    percent: float
    reason: str
    evidence: dict[str, Any]


class RolloutRecord(BaseModel):
    """One rollout."""

    rollout_id: str
    workflow: str
    policy: str
    against: str
    status: str = Field(description="`running`, `paused`, `completed` or `rolled_back`.")
    stage: int = Field(description="Counted from 0.")
    stages: int
    percent: float
    stage_since: datetime
    approved: bool
    reason: str = Field(description="Why it is where it is.")
    created_at: datetime
    created_by: str


class WholeRolloutRecord(RolloutRecord):
    """One rollout, with all that is known of it."""

    verdict: VerdictRecord | None
    evidence: EvidenceRecord
    transitions: list[TransitionRecord]
    schedule: dict[str, Any]


class RolloutList(BaseModel):
    """Rollouts, oldest first."""

    rollouts: list[RolloutRecord]


class SwitchBody(SignedBody):
    """Throws a kill switch."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"on": True, "why": "odd offers since this morning"}]},
    )

    on: Annotated[bool, Field(strict=True)]
    workflow: str | None = Field(None, description="Only this one; default: all.")


class SwitchRecord(BaseModel):
    """A kill switch, as it was left."""

    workflow: str | None = Field(description="Null: all.")
    on: bool
    at: datetime
    actor: str
    why: str


class SwitchList(BaseModel):
    """Every kill switch that was ever thrown."""

    switches: list[SwitchRecord]


class EventRecord(BaseModel):
    """Something that an operator did."""

    at: datetime
    actor: str
    action: str
    subject: str
    reason: str


class AuditTrail(BaseModel):
    """What operators did last, newest first."""

    events: list[EventRecord]
