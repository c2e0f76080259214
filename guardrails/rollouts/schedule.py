"""The schedule of a rollout: its stages, what each asks for, and what ends it early."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from contract.parts import Name

Expression = Annotated[str, StringConstraints(min_length=1, max_length=2_000)]
DAY = 86_400.0
LEAST_ACCOUNTS = 100
"""Of each cohort, before a difference is believed: the bounds lean on the central limit theorem."""


class ScheduleError(ValueError):
    """The schedule cannot be followed. `field` names what is off."""

    def __init__(self, field: str, expected: str) -> None:
        super().__init__(f"{field}: expected {expected}")
        self.field = field
        self.expected = expected


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Stage(_Part):
    """One step: who is exposed, and what is asked for before the next."""

    percent: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
    """Of the accounts that are not held out; 0 is shadow: nobody is served by the candidate."""
    segment: Expression | None = None
    """Only decisions for which this CEL condition over `context.<feature>` holds; null: all."""
    min_accounts: Annotated[int, Field(ge=0)] = LEAST_ACCOUNTS
    """With an interaction in this stage, of the candidate's and of the control's accounts each."""
    bake_interactions: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2.0
    """In this stage, per account of the candidate's that had any; in shadow: decisions made again,
    in all."""
    requires: Literal["nothing_bad", "not_worse"] = "nothing_bad"
    """`nothing_bad`: no bound was broken. `not_worse`: the lower bound of the difference is above
    −`margin`."""
    approval: bool = False
    """Whether somebody has to approve the next stage, last of all."""
    pause_after_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 14 * DAY
    """A stage that has not ended by then is paused: too little traffic, or no conclusion."""


class GuardrailMetric(_Part):
    """A share of interactions that must not rise above the control's."""

    name: Name
    outcome: Name
    """The interactions that ended in this named outcome of the workflow."""
    margin: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    """How far above the control's share it may be."""


class Schedule(_Part):
    """What a rollout goes through. Differences and margins are in shares of the reward's range."""

    stages: Annotated[tuple[Stage, ...], Field(min_length=1, max_length=20)]
    holdout_percent: Annotated[float, Field(ge=0, le=50, allow_inf_nan=False)] = 5.0
    """Accounts that stay on the fallback for good, from the first stage that exposes anybody."""
    margin: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.02
    """How much less than the control's reward still counts as not worse."""
    scale: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.03
    """The size of a difference that is to be found soonest."""
    alpha_worse: Annotated[float, Field(gt=0, lt=0.5)] = 0.02
    """Chance that a policy as good as the control is ever rolled back for its reward."""
    alpha_not_worse: Annotated[float, Field(gt=0, lt=0.5)] = 0.02
    """Chance that one worse by `margin` or more ever passes as not worse."""
    alpha_fallback: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    """Chance that one as good as the fallback is ever rolled back for being below the hold-out."""
    alpha_guardrails: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    """Chance of a false rollback for failures or any guardrail metric, shared among them."""
    alpha_sample_ratio: Annotated[float, Field(gt=0, lt=0.5)] = 0.001
    """Chance, in each stage, of a false alarm about who is in which cohort."""
    most_failures: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of the candidate's decisions at which it may fail; in shadow it may not fail at all."""
    least_served: Annotated[float, Field(ge=0, le=1)] = 0.9
    """Share of the candidate's accounts' decisions in a stage, after each account's first, that it
    has to decide itself: what others decide for it says nothing of it."""
    most_alarmed: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of either cohort's decisions in a stage that alarms may have the fallback decide."""
    guardrails: Annotated[tuple[GuardrailMetric, ...], Field(max_length=20)] = ()

    @model_validator(mode="after")
    def _climbs(self) -> Schedule:
        percents = [stage.percent for stage in self.stages]
        for i, (before, after) in enumerate(itertools.pairwise(percents), start=1):
            if after < before:
                raise ScheduleError(
                    f"stages.{i}.percent", f"at least the {before:g} of the stage before, "
                    f"got {after:g}: stages only go up",
                )  # fmt: skip
            if after == 0:
                raise ScheduleError(f"stages.{i}.percent", "above 0: only the first may be shadow")
        last = self.stages[-1]
        if last.percent != 100 or last.segment is not None:
            got = f"{last.percent:g}" + (" of a segment" if last.segment is not None else "")
            raise ScheduleError(
                f"stages.{len(percents) - 1}.percent", f"100 of all accounts at the end, got {got}"
            )
        names = [one.name for one in self.guardrails]
        if len(set(names)) < len(names):
            raise ScheduleError("guardrails", f"distinct names, got {names}")
        return self

    @property
    def canonical(self) -> str:
        """The one JSON text of this schedule."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))


def parse_schedule(data: Mapping[str, Any]) -> Schedule:
    """The schedule in plain data. Raises ScheduleError for the first thing that is wrong."""
    try:
        return Schedule.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, ScheduleError):
            raise cause from None
        field = ".".join(map(str, first["loc"])) or "schedule"
        expected = {
            "extra_forbidden": "no field of this name",
            "missing": "a value, got nothing",
        }.get(first["type"], first["msg"].removeprefix("Input should be "))
        raise ScheduleError(field, expected) from None


DEFAULT_SCHEDULE = Schedule(
    stages=(
        Stage(percent=0, min_accounts=0, bake_interactions=200),
        Stage(percent=1),
        Stage(percent=5),
        Stage(percent=10, requires="not_worse"),
        Stage(percent=20, requires="not_worse"),
        Stage(percent=50, requires="not_worse", approval=True),
        Stage(percent=100),
    )
)
"""What is followed when nothing else is asked for."""
