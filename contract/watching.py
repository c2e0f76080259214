"""What a workflow says of being watched: what follows from alarms, and the buckets they go by."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from contract.parts import Finite, Part

Consequence = Literal["off", "alert", "fall_back", "reset_memory"]
"""What follows from an alarm: `off` looks for none, `alert` tells, `fall_back` has the fallback
decide until the alarm is cleared, `reset_memory` starts the account anew."""
WideConsequence = Literal["off", "alert", "fall_back"]
"""What may follow where many accounts are concerned: nobody resets them all."""
CutPoints = Annotated[list[Finite], Field(min_length=1, max_length=10)]
MOST_BUCKETS = 50
"""Over all features: each is a time series wherever it is counted."""


class ScopedAlarm(Part):
    """What follows from one kind of alarm, by whom it is about."""

    account: Consequence = "alert"
    workflow: WideConsequence = "alert"
    bucket: WideConsequence = "alert"
    """About the decisions of one of the workflow's `buckets`."""


class AccountAlarm(Part):
    """What follows from a kind of alarm that only an account can raise."""

    account: Consequence = "alert"


class Alarms(Part):
    """What follows from alarms."""

    reward_shift: ScopedAlarm = ScopedAlarm()
    """Rewards fell and stay down."""
    exploration_collapse: ScopedAlarm = ScopedAlarm()
    """Decisions became certain too early, or an account holds on to what does not pay."""
    memory_health: AccountAlarm = AccountAlarm()
    """A memory is not like those of training."""
