"""What a workflow file may say of what may be done: limits, required actions, caps, cool-downs and
the exploration budget. It only declares; `guardrails/` holds decisions to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from contract.parts import Expression, Finite, Name, Part, Seconds, refuse_duplicates

Scope = Literal["account", "tenant", "workflow"]
MOST_USES = 1_000
"""The highest cap: so many times of use are kept of an account and action at most."""


class Limit(Part):
    """A hard limit: an action for which the CEL expression `forbid` is true is never served.

    The expression sees `context.<feature>`, `action.id`, `action.<feature>` and `account.<fact>`.
    """

    name: Name
    forbid: Expression


class Required(Part):
    """What must not be skipped: while it is due, nothing but `actions` is served.

    It is due when the CEL expression `when`, over `context.<feature>` and `account.<fact>`, is
    true, and none of `actions` was served to the account within the last `every_seconds`. At least
    one of the two is declared; one that is left out is always so.
    """

    name: Name
    actions: list[Name] = Field(min_length=1)
    when: Expression | None = None
    every_seconds: Seconds | None = None

    @model_validator(mode="after")
    def _said_when(self) -> Required:
        refuse_duplicates("actions", self.actions)
        if self.when is None and self.every_seconds is None:
            raise ValueError("expected `when`, `every_seconds` or both: it is never due")
        return self


class Cap(Part):
    """An account is served `actions`, all of them together, `at_most` so often in any
    `window_seconds`."""

    name: Name
    actions: list[Name] = Field(min_length=1)
    at_most: Annotated[int, Field(ge=1, le=MOST_USES)]
    window_seconds: Seconds

    @model_validator(mode="after")
    def _distinct(self) -> Cap:
        refuse_duplicates("actions", self.actions)
        return self


class Cooldown(Part):
    """After any of `actions`, an account is served none of them for `seconds`."""

    name: Name
    actions: list[Name] = Field(min_length=1)
    seconds: Seconds

    @model_validator(mode="after")
    def _distinct(self) -> Cooldown:
        refuse_duplicates("actions", self.actions)
        return self


class Budget(Part):
    """How many decisions may deviate from the fallback in any `window_seconds`: of an account, of a
    tenant's accounts together, or of all accounts of the workflow."""

    per: Scope
    at_most: Annotated[int, Field(ge=0, le=1_000_000_000)]
    window_seconds: Seconds


class Conservative(Part):
    """The conservative rule (after Wu et al. 2016): see `guardrails.conservative`."""

    alpha: Annotated[float, Field(gt=0, lt=1)]
    """The share of the fallback's cumulative reward that may be given up."""
    credit: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
    """What may be lost beyond that, in whole rewards: 1 is the range from worst to best."""
    level: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """The probability with which an account is never below, over all its decisions."""


class Exploration(Part):
    """What deviating from the fallback may cost."""

    fallback_reward: Finite
    """The fallback's mean reward, in the reward's own units, as measured; too high is on the safe
    side."""
    budgets: list[Budget] = Field(default_factory=list)
    conservative: Conservative | None = None

    @model_validator(mode="after")
    def _something(self) -> Exploration:
        refuse_duplicates("budgets", [budget.per for budget in self.budgets])
        if not self.budgets and self.conservative is None:
            raise ValueError("expected `budgets`, `conservative` or both: nothing is bounded")
        return self


class Guardrails(Part):
    """What may be done. `safe_action` is served when nothing else is left."""

    limits: list[Limit] = Field(default_factory=list)
    required: list[Required] = Field(default_factory=list)
    caps: list[Cap] = Field(default_factory=list)
    cooldowns: list[Cooldown] = Field(default_factory=list)
    exploration: Exploration | None = None
    safe_action: Name | None = None

    def actions_named(self) -> dict[str, str]:
        """The actions that are named, by the dotted field that names them."""
        named = {
            f"guardrails.{kind}.{i}.actions.{j}": action
            for kind in ("required", "caps", "cooldowns")
            for i, rule in enumerate(getattr(self, kind))
            for j, action in enumerate(rule.actions)
        }
        if self.safe_action is not None:
            named["guardrails.safe_action"] = self.safe_action
        return named

    def refuse_dead_ends(self) -> None:
        """Raises ValueError when what may be done could come to nothing without a safe action that
        is always to be had, or when what is required could be capped away."""
        kinds = ("limits", "required", "caps", "cooldowns")
        names = [rule.name for kind in kinds for rule in getattr(self, kind)]
        first = next((kind for kind in kinds if getattr(self, kind)), None)
        if first is not None and self.safe_action is None:
            raise ValueError(
                f"guardrails.safe_action must be declared when there are {first}: it is served "
                "when they leave nothing else"
            )
        for kind in kinds:
            refuse_duplicates(f"guardrails.{kind}", [rule.name for rule in getattr(self, kind)])
        refuse_duplicates("guardrails", names)
        rationed: dict[str, str] = {}
        for where, action in self._rationed():
            if action == self.safe_action:
                raise ValueError(
                    f"{where} must not name the safe action, {action}: it is what is served when "
                    "nothing else is left, so it must always be to be had"
                )
            rationed.setdefault(action, where)
        for i, rule in enumerate(self.required):
            if all(action in rationed for action in rule.actions):
                raise ValueError(
                    f"guardrails.required.{i}.actions must name an action that no cap and no "
                    f"cool-down can take away, got {rule.actions}, of which "
                    f"{rationed[rule.actions[0]]} names {rule.actions[0]}"
                )

    def _rationed(self) -> Iterator[tuple[str, str]]:
        """The actions that caps and cool-downs name, each with its field."""
        for where, action in self.actions_named().items():
            if where.startswith(("guardrails.caps.", "guardrails.cooldowns.")):
                yield where, action
