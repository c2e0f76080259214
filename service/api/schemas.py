"""What the API takes and gives."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import Header, Path
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from contract.spec import WorkflowSpec

ID = r"^[A-Za-z0-9._~:@|+=,-]{1,128}$"
Id = Annotated[str, StringConstraints(pattern=ID, strict=True)]
PathId = Annotated[str, Path(pattern=ID)]
Tenant = Annotated[
    str,
    Header(
        alias="X-Acclimate-Tenant",
        pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$",
        description="Whose accounts these are. Tenants see nothing of one another.",
    ),
]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class DecisionBody(_Body):
    """Asks for one decision."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"account_id": "household-17", "context": {}}]},
    )

    decision_id: Id | None = Field(
        None, description="Yours, for safe retries: the same id and body get the same answer."
    )
    account_id: Id = Field(description="Whom the decision adapts to.")
    episode_id: Id | None = Field(None, description="The journey this decision belongs to.")
    context: dict[str, Any] = Field(
        default_factory=dict, description="What is known now, as the workflow declares it."
    )
    actions: list[str] | None = Field(
        None, min_length=1, description="The subset of actions on offer; default: all."
    )


class DecisionAnswer(BaseModel):
    """One decision."""

    decision_id: str
    workflow: str
    account_id: str
    episode_id: str | None
    action: str = Field(examples=["brand_2"])
    probability: float = Field(description="Of this action, after every guardrail.")
    reason: str = Field(
        description="`policy`, or why something else chose: `safe_action` (the limits left "
        "nothing), `memory_unavailable`, `policy_failed`, `policy_unsound` (the fallback chose).",
        examples=["policy"],
    )
    policy: str = Field(examples=["bandits/1"])
    memory_position: int = Field(description="Interactions in the memory it was made from.")
    memory_generation: int
    limits: list[str] = Field(description="Hard limits that removed an action.")
    created_at: datetime
    expires_at: datetime = Field(description="Feedback after this is late.")


class FeedbackBody(_Body):
    """Tells what came of a decision: a reward, or one of the workflow's named outcomes."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"reward": 1.0}, {"outcome": "bought"}]}
    )

    feedback_id: Id | None = Field(
        None, description="Tells several pieces of feedback for one decision apart."
    )
    reward: Annotated[float, Field(strict=True, allow_inf_nan=False)] | None = None
    outcome: str | None = None
    episode_end: bool = Field(False, strict=True, description="The journey ends here.")
    occurred_at: AwareDatetime | None = Field(None, description="RFC 3339, with an offset.")


class FeedbackAnswer(BaseModel):
    """What became of one piece of feedback."""

    decision_id: str
    feedback_id: str | None
    status: str = Field(
        description="`folded`: the account's next decision knows it. `recorded`: kept, not "
        "folded, as the workflow says. `duplicate`: had it already.",
        examples=["folded"],
    )
    reward: float
    late: bool
    memory_position: int | None = Field(description="Its place in the account's past.")


class FeedbackRecord(BaseModel):
    """One piece of feedback as the ledger has it."""

    feedback_id: str | None
    kind: str = Field(description="`received`, or the workflow's `default`.")
    reward: float
    outcome: str | None
    episode_end: bool
    late: bool
    memory_position: int | None
    occurred_at: datetime | None
    received_at: datetime


class DecisionRecord(DecisionAnswer):
    """One decision as the ledger has it."""

    spec_version: int
    context: dict[str, Any]
    asked_for: list[str] | None
    draw: float = Field(description="The uniform number that picked the action.")
    feedback: list[FeedbackRecord]


class AccountRecord(BaseModel):
    """One account as of its head."""

    account_id: str
    workflow: str
    policy: str
    decisions: int
    interactions: int = Field(description="Decisions whose feedback is folded: the position.")
    generation: int
    phase: str = Field(description="`adapting`, `adapted` or `regressed`.")
    adapted_at: int | None = Field(description="The interaction at which it first adapted.")
    recent_reward: float | None = Field(description="Mean of the adaptation window, raw units.")
    target_reward: float
    created_at: datetime
    updated_at: datetime


class WorkflowRecord(BaseModel):
    """One workflow being served."""

    workflow: str
    description: str
    version: int = Field(description="Of the spec, in the ledger.")
    sha256: str
    policy: str
    actions: list[str]
    spec: WorkflowSpec


class WorkflowList(BaseModel):
    """Every workflow being served."""

    workflows: list[WorkflowRecord]
