"""What the API takes and gives."""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, get_args

from fastapi import Path
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from contract.parts import Name
from contract.spec import WorkflowSpec

ID = r"^[A-Za-z0-9._~:@|+=,-]{1,128}$"
TENANT = r"^[a-z0-9][a-z0-9._-]{0,63}$"
KEY_NAME = r"^[A-Za-z0-9][A-Za-z0-9 ._@-]{0,63}$"
KEY_TENANT = r"^(\*|[a-z0-9][a-z0-9._-]{0,63})$"
PATTERNS = {
    ID: "1 to 128 characters out of A-Z a-z 0-9 . _ ~ : @ | + = , -",
    TENANT: "1 to 64 characters out of a-z 0-9 . _ -, a letter or digit first",
    KEY_NAME: "1 to 64 characters out of A-Z a-z 0-9 . _ @ - and space, a letter or digit first",
    KEY_TENANT: "a tenant, or * for every one",
    get_args(Name)[1].pattern: "1 to 64 characters out of a-z 0-9 _, a letter first",
}
"""What each pattern is in words, for whoever sent something else."""

Id = Annotated[str, StringConstraints(pattern=ID, strict=True)]
PathId = Annotated[str, Path(pattern=ID)]
TENANT_HEADER = "X-Acclimate-Tenant"

RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)


def _moment(value: object) -> datetime:
    """A time that every clock in the world can show, from nothing but RFC 3339's own words."""
    if isinstance(value, str) and RFC_3339.fullmatch(value):
        with contextlib.suppress(ValueError):
            moment = datetime.fromisoformat(value.upper())
            if EARLIEST <= moment < LATEST:
                return moment
    raise ValueError(
        "a time in RFC 3339 with an offset, of the years 1970 to 9998, e.g. "
        "2027-01-15T09:00:00+01:00"
    )


class Body(BaseModel):
    """What is sent: nothing but the fields that are declared."""

    model_config = ConfigDict(extra="forbid")


class DecisionBody(Body):
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
    actions: list[Name] | None = Field(
        None,
        min_length=1,
        max_length=1_000,
        description="The subset of actions on offer; default: all.",
    )
    mode: Literal["serve", "defer"] = Field(
        "serve",
        description="`defer`: it is not served yet. Its window opens, and feedback is taken, once "
        "it is activated; never activated, it counts for nothing.",
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
        "nothing), `exploration_budget` (it is spent), `memory_unavailable`, `policy_failed`, "
        "`policy_unsound`, `deadline` (the fallback chose).",
        examples=["policy"],
    )
    policy: str = Field(examples=["bandits/1"])
    memory_position: int = Field(description="Interactions in the memory it was made from.")
    memory_generation: int
    limits: list[str] = Field(
        description="Limits, caps and what is due that removed an action, and exploration budgets "
        "that are spent."
    )
    mode: str = Field(examples=["serve"])
    created_at: datetime
    expires_at: datetime | None = Field(
        description="Feedback after this is late. Null when deferred: its activation says."
    )


class FeedbackBody(Body):
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
    occurred_at: Annotated[datetime, BeforeValidator(_moment)] | None = Field(
        None, description="RFC 3339, with an offset.", examples=["2027-01-15T09:00:00+01:00"]
    )


class FeedbackAnswer(BaseModel):
    """What became of one piece of feedback."""

    decision_id: str
    feedback_id: str | None
    status: str = Field(
        description="`folded`: the account's next decision knows it. `revised`: it changed what "
        "had been folded for this decision, and the next one knows that. `recorded`: kept, not "
        "folded, as the workflow says. `duplicate`: had it already.",
        examples=["folded"],
    )
    reward: float
    late: bool
    memory_position: int | None = Field(description="Its place in the account's past.")
    memory_generation: int | None = Field(description="The past that it made or changed.")


class FeedbackRecord(BaseModel):
    """One piece of feedback as the ledger has it."""

    feedback_id: str | None
    kind: str = Field(description="`received`, or the workflow's `default`.")
    reward: float
    outcome: str | None
    episode_end: bool
    late: bool
    memory_position: int | None
    memory_generation: int | None
    folded_reward: float | None = Field(
        description="What this and all before it came to, as the workflow aggregates; null when "
        "it is recorded only."
    )
    occurred_at: datetime | None
    received_at: datetime


class DecisionRecord(DecisionAnswer):
    """One decision as the ledger has it."""

    spec_version: int
    context: dict[str, Any]
    asked_for: list[str] | None
    actions_left: list[str] | None = Field(
        description="What every guardrail left, where the account's own past took something away; "
        "null: it took nothing."
    )
    deviates: bool | None = Field(
        description="Whether the fallback would have chosen another action, where the workflow "
        "declares an exploration budget; null: it does not, or nothing asked for was left."
    )
    draw: float = Field(description="The uniform number that picked the action.")
    activated_at: datetime | None = Field(description="When it was, if it was deferred.")
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


class Liveness(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Startup(BaseModel):
    """The process has started."""

    status: Literal["started"] = "started"


class PolicyHealth(BaseModel):
    """How one bundle runs on this machine."""

    parity_difference: float = Field(description="The largest one to the bundle's own vectors.")
    kernel_fingerprint: str = Field(description="Equal ones fold memories bitwise equally.")


class Readiness(BaseModel):
    """Whether this process may be sent requests, and on what it stands."""

    status: Literal["ready", "degraded", "unready", "stopping"] = Field(
        description="`degraded`: the memory store is down and the fallback decides. `unready` and "
        "`stopping` come with 503."
    )
    onnxruntime: str
    ledger: Literal["ok", "unavailable"]
    memory: Literal["ok", "unavailable"]
    policies: dict[str, PolicyHealth]
