"""What the API says of an alarm."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from service.clock import to_moment, to_moment_or_none
from service.ledger.alarms import Alarm

Kind = Literal["reward_shift", "exploration_collapse", "memory_health"]


class AlarmRecord(BaseModel):
    """One alarm: what is alarming, why that may be, what to do, and what was done."""

    alarm_id: str
    kind: Kind
    scope: Literal["account", "workflow", "bucket"]
    workflow: str
    account_id: str | None = Field(description="Of the scope `account`.")
    bucket: str | None = Field(description="Of the scope `bucket`.", examples=["plan=basic"])
    policy: str = Field(examples=["universal/1"])
    cause: str = Field(description="What is likely behind it.")
    suggestion: str = Field(description="What to do about it.")
    numbers: dict[str, float] = Field(examples=[{"before": 0.81, "after": 0.33}])
    position: int = Field(description="The account's interaction at which it was found; of a crowd "
                          "the batch.")  # fmt: skip
    consequence: Literal["alert", "fall_back", "reset_memory"]
    state: Literal["open", "acknowledged", "cleared"]
    raised_at: datetime
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    acted_at: datetime | None = Field(description="When the memory was reset.")
    cleared_at: datetime | None
    cleared_by: str | None = Field(description="Who ended it, or what did.")
    note: str | None


def alarm_record(alarm: Alarm) -> AlarmRecord:
    """An alarm, as the API says it."""
    state = "acknowledged" if alarm.acknowledged_at_us is not None else "open"
    return AlarmRecord.model_validate(
        {
            "alarm_id": alarm.alarm_id,
            "kind": alarm.kind,
            "scope": alarm.scope,
            "workflow": alarm.workflow,
            "account_id": alarm.account_id or None,
            "bucket": alarm.bucket or None,
            "policy": alarm.policy,
            "cause": alarm.cause,
            "suggestion": alarm.suggestion,
            "numbers": alarm.numbers,
            "position": alarm.position,
            "consequence": alarm.consequence,
            "state": state if alarm.cleared_at_us is None else "cleared",
            "raised_at": to_moment(alarm.raised_at_us),
            "acknowledged_at": to_moment_or_none(alarm.acknowledged_at_us),
            "acknowledged_by": alarm.acknowledged_by,
            "acted_at": to_moment_or_none(alarm.acted_at_us),
            "cleared_at": to_moment_or_none(alarm.cleared_at_us),
            "cleared_by": alarm.cleared_by,
            "note": alarm.note,
        }
    )
