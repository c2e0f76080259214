"""What the API gives whoever looks after accounts: audits, rebuilds, verification, exports."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from contract.spec import WorkflowSpec
from service.api.alarm_schemas import AlarmRecord
from service.api.schemas import DecisionRecord, FeedbackRecord
from service.rederive import Rederived

DIGEST = "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"


class RederivedRecord(BaseModel):
    """A decision made again: its past replayed, its guardrails and draw evaluated anew."""

    from_generation: int
    from_position: int = Field(description="Of the memory it says it was made from.")
    action_probabilities: Mapping[str, float] | None = Field(
        description="The whole distribution; null when it cannot be re-derived, see `reason`."
    )
    action: str | None = Field(description="What the draw, made again, picks.")
    probability: float | None = Field(description="Of the action that was served.")
    difference: float | None = Field(description="To the logged probability.")
    equal: bool | None = Field(
        description="Action, draw and limits are the logged ones, and the probability is within "
        "1e-5, which is what two machines may differ by."
    )
    complete: bool = Field(description="Nothing of its past is missing.")
    reason: str | None = Field(description="What to know of this, in words.")


class AuditRecord(DecisionRecord):
    """One decision as the ledger has it, made again where that was asked for."""

    rederived: RederivedRecord | None = Field(description="With `?rederive=true`.")


class ActivationAnswer(BaseModel):
    """A decision that counts."""

    decision_id: str
    mode: Literal["serve", "defer"]
    activated_at: datetime | None = Field(description="Null: it has counted from the start.")
    expires_at: datetime = Field(description="Feedback after this is late.")


class RebuildAnswer(BaseModel):
    """One account's memory, folded afresh from the ledger and stored."""

    account_id: str
    policy: str = Field(examples=["bandits/1"])
    interactions: int = Field(description="How many were folded.")
    position: int
    generation: int
    digest: str = Field(description="SHA-256 over the memory, hex.", examples=[DIGEST])
    was_equal: bool | None = Field(
        description="Whether what was stored was this very memory, bit for bit; null: nothing was "
        "stored, or it was not at the head."
    )
    complete: bool = Field(
        description="False: events are deleted that no kept memory of this policy holds. A stored "
        "memory at the head is then left as it is."
    )
    seconds: float


class RebuildPage(BaseModel):
    """Some accounts' memories, folded afresh and stored."""

    accounts: int
    interactions: int = Field(description="How many were folded.")
    different: int = Field(description="Memories at their head that were not their past's fold.")
    seconds: float
    digest: str = Field(
        description="Of these accounts' memories, hex; the sum of those of all pages, modulo "
        "2^256, is the digest of the whole.",
        examples=[DIGEST],
    )
    next: str | None = Field(description="`after` for the next page; null: this is the last.")


class ErasureAnswer(BaseModel):
    """An account that is gone, and how much of it there was."""

    account_id: str
    decisions: int
    feedback: int


class DifferenceRecord(BaseModel):
    """Something that is not what the ledger's events come to."""

    account_id: str
    what: Literal["memory", "snapshot", "positions", "generations", "head", "adaptation", "past"]
    detail: str = Field(examples=["stored at 0:7 is not the replay of 7 interactions"])


class VerificationPage(BaseModel):
    """Some accounts, checked against their events."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "accounts": 100,
                    "interactions": 5210,
                    "memories": 97,
                    "snapshots": 12,
                    "incomplete": 0,
                    "differing": [],
                    "next": "household-99",
                    "digest": DIGEST,
                }
            ]
        }
    )

    accounts: int
    interactions: int = Field(description="How many were replayed.")
    memories: int = Field(description="Stored memories found; one that is missing is rebuilt.")
    snapshots: int = Field(description="Memories kept in the ledger, of the policy served.")
    incomplete: int = Field(description="Accounts whose early events retention has deleted.")
    differing: list[DifferenceRecord]
    next: str | None = Field(description="`after` for the next page; null: this is the last.")
    digest: str = Field(description="As a rebuild's.")


class ExportedAccount(BaseModel):
    """An account's row."""

    decisions: int
    interactions: int
    generation: int
    phase: str
    adapted_at: int | None
    recent_rewards: list[float]
    created_at: datetime
    updated_at: datetime


class ExportedGeneration(BaseModel):
    """One change of an account's past."""

    generation: int
    reason: Literal["revision", "reset"]
    position: int = Field(description="The interaction that was revised; 0: all.")
    head_position: int
    decision_id: str | None
    opened_at: datetime


class ExportedSnapshot(BaseModel):
    """A memory kept in the ledger: where it stands, not what is in it."""

    policy: str
    digest: str
    generation: int
    position: int
    bytes: int
    created_at: datetime


class ExportedFeedback(FeedbackRecord):
    """One piece of feedback, and the interaction it made or revised."""

    folded_episode_end: bool | None


class ExportedDecision(BaseModel):
    """One decision with all the ledger keeps of it."""

    decision_id: str
    episode_id: str | None
    spec_version: int
    policy: str
    context: dict[str, Any]
    asked_for: list[str] | None
    actions_left: list[str] | None
    deviates: bool | None
    action: str
    probability: float
    draw: float
    reason: str
    limits: list[str]
    mode: Literal["serve", "defer"]
    memory_generation: int
    memory_position: int
    created_at: datetime
    expires_at: datetime
    activated_at: datetime | None
    feedback: list[ExportedFeedback]


class AccountExport(BaseModel):
    """Everything that is known of an account."""

    tenant: str
    workflow: str
    account_id: str
    exported_at: datetime
    account: ExportedAccount
    generations: list[ExportedGeneration]
    alarms: list[AlarmRecord]
    snapshots: list[ExportedSnapshot]
    decisions: list[ExportedDecision] = Field(description="In order of time.")
    specs: dict[str, WorkflowSpec] = Field(description="Those that the decisions name, by version.")


def rederived_record(found: Rederived) -> RederivedRecord:
    """What a decision came to when it was made again, as the API says it."""
    return RederivedRecord(
        from_generation=found.from_head.generation,
        from_position=found.from_head.position,
        action_probabilities=found.action_probabilities,
        action=found.action,
        probability=found.probability,
        difference=found.difference,
        equal=found.equal,
        complete=found.complete,
        reason=found.reason,
    )
