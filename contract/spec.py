"""The workflow spec: one YAML file that declares one kind of decision. It never decides anything.

A spec is immutable once loaded; its canonical JSON and the SHA-256 of that JSON identify the
version that every event in the ledger names.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from functools import cached_property
from pathlib import Path
from statistics import NormalDist
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from contract.parts import (
    TEN_YEARS,
    Expression,
    Finite,
    Name,
    Part,
    PolicyName,
    RewardValue,
    Sha256,
    WorkflowName,
    refuse_duplicates,
)
from contract.safety import Guardrails
from contract.source import Problem, Source, read_mapping
from contract.source import SpecError as SpecError
from contract.watching import MOST_BUCKETS, Alarms, CutPoints

Aggregation = Literal["earliest", "latest", "sum", "mean", "min", "max"]
DEFAULT_POLICY = "universal/1"
"""The policy of every workflow that names none."""


def _refuse_empty_range(low: float, high: float) -> None:
    if not low < high:
        raise ValueError(f"min must be below max, got min={low:g}, max={high:g}")
    if math.isinf(high - low):
        raise ValueError(f"max - min must be finite, got min={low:g}, max={high:g}")


class Action(Part):
    """One thing that may be done."""

    id: Name
    features: dict[Name, Finite] = Field(default_factory=dict)
    """What is known of the action beforehand, e.g. a discount; the same names on every action."""


class NumberFeature(Part):
    """A number in [min, max]; encoded to one slot in [−1, 1]."""

    type: Literal["number"]
    min: Finite
    max: Finite
    out_of_range: Literal["refuse", "clip"] = "refuse"
    feeds: Literal["policy", "rules"] = "policy"
    """`rules`: seen by limits and fallback rules and kept in the ledger, never by the policy."""

    @model_validator(mode="after")
    def _range(self) -> NumberFeature:
        _refuse_empty_range(self.min, self.max)
        return self


class CategoryFeature(Part):
    """One of the declared values; encoded to one slot a value (one-hot)."""

    type: Literal["category"]
    values: list[str] = Field(min_length=2)
    feeds: Literal["policy", "rules"] = "policy"

    @model_validator(mode="after")
    def _distinct(self) -> CategoryFeature:
        refuse_duplicates("values", self.values)
        return self


class BooleanFeature(Part):
    """True or false; encoded to one slot, +1 or −1."""

    type: Literal["boolean"]
    feeds: Literal["policy", "rules"] = "policy"


class ImageFeature(Part):
    """A picture: base64 (RFC 4648) of height · width · channels bytes, row by row, the channels of
    a pixel together; encoded to one slot a byte, 0 to −1 and 255 to 1. No limit or rule sees it."""

    type: Literal["image"]
    height: Annotated[int, Field(ge=1, le=256)]
    width: Annotated[int, Field(ge=1, le=256)]
    channels: Literal[1, 3] = 3
    feeds: Literal["policy"] = "policy"

    @property
    def bytes(self) -> int:
        """How many bytes a picture has."""
        return self.height * self.width * self.channels


ContextFeature = Annotated[
    NumberFeature | CategoryFeature | BooleanFeature | ImageFeature, Field(discriminator="type")
]


class Reward(Part):
    """The range of the reward, and the rewards of named outcomes."""

    min: RewardValue = 0.0
    max: RewardValue = 1.0
    outcomes: dict[Name, RewardValue] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _range(self) -> Reward:
        _refuse_empty_range(self.min, self.max)
        for name, reward in self.outcomes.items():
            if not self.min <= reward <= self.max:
                raise ValueError(
                    f"outcomes.{name} must be in [{self.min:g}, {self.max:g}], got {reward:g}"
                )
        return self


class Feedback(Part):
    """How long a decision waits for its feedback, and what happens then."""

    window_seconds: Annotated[float, Field(gt=0, le=TEN_YEARS, allow_inf_nan=False)] = 86_400.0
    default_reward: Finite | None = None
    """Folded when the window closes without feedback; null: the decision is never folded."""
    aggregation: Aggregation = "earliest"
    """What several pieces of feedback for one decision come to. `earliest`: the first counts and
    the others are recorded only. Otherwise each later one revises the interaction at its own place
    in the account's past; a sum is clipped to the reward's range."""
    late: Literal["ignore", "apply", "rebuild"] = "ignore"
    """Feedback after the window: `ignore` records it only, `apply` folds one interaction more,
    `rebuild` revises the interaction, so that the past is as if it had come in time."""


class Horizon(Part):
    """The length H of a trial as the policy is told, and the floor of the share that is left."""

    interactions: Annotated[int, Field(ge=1, le=100_000)] = 100
    floor: Annotated[float, Field(ge=0, le=1)] = 0.05


class Rule(Part):
    """Serve `action` when the CEL expression `when` over `context.<feature>` is true."""

    when: Expression
    action: Name


class Fallback(Part):
    """The safe policy under the workflow: the first rule that holds; else what the supervised model
    expects most of; else the fixed action."""

    rules: list[Rule] = Field(default_factory=list)
    model: PolicyName | None = None
    """Name and version of a baseline, a folder beside the policies: see `contract.baseline`."""
    action: Name


class AdaptationTarget(Part):
    """When an account counts as adapted: see `contract.adaptation`."""

    target: Finite
    """Mean reward an adapted account reaches, in the reward's own units."""
    window: Annotated[int, Field(ge=2, le=1_000)] = 10
    """w, in interactions."""
    level: Annotated[float, Field(gt=0.5, lt=1)] = 0.8
    """One-sided confidence level of the bounds."""
    hysteresis: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.05
    """How far below the target the upper bound must fall for an account to have regressed."""
    within: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """The interaction by which accounts are to have adapted, for metrics and alerts; none: the
    horizon's."""


class WorkflowSpec(Part):
    """One workflow. Build one with `load_workflow` or `parse_workflow`."""

    schema_version: Literal[1] = Field(alias="schema")
    workflow: WorkflowName
    description: str = ""
    policy: PolicyName = DEFAULT_POLICY
    policy_sha256: Sha256 | None = None
    """Of the bundle's manifest: no other of that name is served."""
    episodes: Literal["single_step", "multi_step"] = "single_step"
    """`single_step`: every interaction ends its episode. `multi_step`: `episode_end` says so."""
    horizon: Horizon = Horizon()
    actions: list[Action] = Field(min_length=2, max_length=1_000)
    context: dict[Name, ContextFeature] = Field(default_factory=dict)
    reward: Reward = Reward()
    feedback: Feedback = Feedback()
    guardrails: Guardrails = Guardrails()
    fallback: Fallback
    adaptation: AdaptationTarget
    buckets: dict[Name, Literal["values"] | CutPoints] = Field(default_factory=dict)
    """Features of the context by which rewards, exploration and alarms are looked at: `values` of a
    category or a boolean, or points that cut a number's range."""
    alarms: Alarms = Alarms()

    _source: Source = PrivateAttr(default_factory=Source)

    @model_validator(mode="after")
    def _consistent(self) -> WorkflowSpec:
        ids = [action.id for action in self.actions]
        refuse_duplicates("actions", ids)
        features = sorted(self.actions[0].features)
        for action in self.actions:
            if "id" in action.features:
                raise ValueError(f"actions: {action.id}.features must not be named 'id'")
            if sorted(action.features) != features:
                raise ValueError(
                    f"actions: {action.id}.features must be {features} as on {ids[0]}, "
                    f"got {sorted(action.features)}"
                )
        named = {"fallback.action": self.fallback.action}
        named |= {f"fallback.rules.{i}.action": r.action for i, r in enumerate(self.fallback.rules)}
        named |= self.guardrails.actions_named()
        for where, action_id in named.items():
            if action_id not in ids:
                raise ValueError(f"{where} must be one of {ids}, got {action_id!r}")
        self.guardrails.refuse_dead_ends()
        self._refuse_impossible_buckets()
        low, high = self.reward.min, self.reward.max
        bounded = {"adaptation.target": self.adaptation.target}
        if self.guardrails.exploration is not None:
            mean = self.guardrails.exploration.fallback_reward
            bounded["guardrails.exploration.fallback_reward"] = mean
        if self.feedback.default_reward is not None:
            bounded["feedback.default_reward"] = self.feedback.default_reward
        for where, value in bounded.items():
            if not low <= value <= high:
                raise ValueError(f"{where} must be in [{low:g}, {high:g}], got {value:g}")
        # The score interval's lower bound of a window in which every reward is the highest.
        wanted = self.adaptation
        z = NormalDist().inv_cdf(wanted.level)
        reachable = low + (high - low) * wanted.window / (wanted.window + z * z)
        if wanted.target > reachable:
            raise ValueError(
                f"adaptation.target must be at most {reachable:.4g}, the lower bound of "
                f"{wanted.window} rewards of {high:g} at level {wanted.level:g}, got "
                f"{wanted.target:g}: no account could ever count as adapted"
            )
        return self

    def _refuse_impossible_buckets(self) -> None:
        count = 0
        for name, cuts in self.buckets.items():
            feature, where = self.context.get(name), f"buckets.{name}"
            if feature is None:
                raise ValueError(f"{where} must be one of {sorted(self.context)}, got {name!r}")
            if isinstance(feature, NumberFeature):
                if cuts == "values":
                    raise ValueError(f"{where} must be points that cut [{feature.min:g}, "
                                     f"{feature.max:g}], as {name} is a number")  # fmt: skip
                inside = all(feature.min < one < feature.max for one in cuts)
                if not inside or sorted(set(cuts)) != cuts:
                    raise ValueError(
                        f"{where} must be ascending and within ({feature.min:g}, {feature.max:g}), "
                        f"got {cuts}"
                    )
                count += len(cuts) + 1
            elif isinstance(feature, ImageFeature):
                raise ValueError(f"{where} must be a number, a category or a boolean")
            elif cuts != "values":
                raise ValueError(f"{where} must be `values`, as {name} is a {feature.type}")
            else:
                count += len(feature.values) if isinstance(feature, CategoryFeature) else 2
        if count > MOST_BUCKETS:
            raise ValueError(f"buckets must be at most {MOST_BUCKETS} in all, got {count}")

    @property
    def source(self) -> Source:
        """What this was read from, with the lines of its parts."""
        return self._source

    @property
    def names_policy(self) -> bool:
        """Whether it says itself which policy serves it."""
        return "policy" in self.model_fields_set

    def problem(self, field: str, message: str) -> Problem:
        """What is wrong with the dotted `field` of this spec, in its place where that is known."""
        if not self._source.name:
            return Problem(f"workflow {self.workflow}", 0, field, f"{field}: {message}")
        return self._source.problem(field, message)

    @cached_property
    def action_ids(self) -> tuple[str, ...]:
        """Action ids in order; an action's place in it is its row in every memory."""
        return tuple(action.id for action in self.actions)

    @cached_property
    def canonical(self) -> str:
        """The one JSON text of this spec.

        What a later release let files say is left out where a file does not say it: an upgrade must
        not make another version of an unchanged file.
        """
        body = self.model_dump(mode="json", by_alias=True)
        if self.policy_sha256 is None:
            del body["policy_sha256"]
        if self.feedback.aggregation == "earliest":
            del body["feedback"]["aggregation"]
        for name in ("required", "caps", "cooldowns", "exploration"):
            if not body["guardrails"][name]:
                del body["guardrails"][name]
        if self.fallback.model is None:
            del body["fallback"]["model"]
        if self.adaptation.within is None:
            del body["adaptation"]["within"]
        if not self.buckets:
            del body["buckets"]
        if self.alarms == Alarms():
            del body["alarms"]
        return json.dumps(body, sort_keys=True, separators=(",", ":"))

    @cached_property
    def sha256(self) -> str:
        """The identity of this spec version, hex."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()


def parse_workflow(text: str, source: str = "<text>") -> WorkflowSpec:
    """The spec in the YAML `text`; `source` names it in errors. Raises SpecError."""
    data, read = read_mapping(text, source)
    try:
        spec = WorkflowSpec.model_validate(data)
    except ValidationError as error:
        raise SpecError.of([_problem(one, read) for one in error.errors()]) from error
    spec._source = read
    return spec


def load_workflow(path: Path) -> WorkflowSpec:
    """The spec in the file `path`. Raises SpecError naming file, line and field."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = f"expected a readable UTF-8 file, but {error}"
        raise SpecError(f"{path}: {message}", [Problem(str(path), 1, "", message)]) from error
    return parse_workflow(text, str(path))


def _problem(error: Any, source: Source) -> Problem:
    """One validation error, in its place."""
    location = list(error["loc"])
    if location[:1] == ["context"]:  # the third part is the feature's type, not a field
        del location[2:3]
    message = re.sub(r"^Value error, ", "", error["msg"])
    if error["type"] == "extra_forbidden":
        message = "unknown field"
    if not location:  # a check across fields: its message starts with the field it names
        named = re.match(r"[a-z_.0-9]+", message)
        location = list(named.group().split(".")) if named else []
        named_by = ""
    else:
        named_by = ".".join(str(part) for part in location) + ": "
    got = error.get("input")
    shown = f" (got {got!r})" if isinstance(got, str | int | float | bool) else ""
    field = ".".join(str(part) for part in location)
    return Problem(source.name, source.line(location), field, f"{named_by}{message}{shown}")
