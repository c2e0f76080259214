"""A workflow file that says what cannot be is refused with the line and field of every mistake."""

from __future__ import annotations

import pytest

from contract.spec import SpecError, parse_workflow
from tests.contract.help_workflow import ADAPTATION, FILE, SPEC, Mistake, assert_told

AGE = "age: {type: number, min: 0, max: 10}"
REWARD = "  min: -1\n  max: 3\n"

MISTAKES: dict[str, Mistake] = {
    # Unknown, missing, twice
    "unknown key": ("schema: 1", "schema: 1\nshema: 1 # HERE", "shema", "unknown field"),
    "unknown nested key": (
        "feedback: {",
        "feedback:\n  {windows: 1, # HERE\n   ",
        "feedback.windows",
        "unknown field",
    ),
    "unknown key of an action": (
        "  - id: mail\n",
        "  - id: mail\n    name: x # HERE\n",
        "actions.1.name",
        "unknown field",
    ),
    "missing field": ("workflow: help\n", "", "workflow", "required"),
    "missing nested field": (
        ADAPTATION,
        "adaptation: {window: 3} # HERE",
        "adaptation.target",
        "required",
    ),
    "missing field of a list's item": (
        "  - id: mail\n    features:",
        "  - features: # HERE\n     ",
        "actions.1.id",
        "required",
    ),
    "key declared twice": (
        "workflow: help",
        "workflow: help\nworkflow: other # HERE",
        "workflow",
        "declared twice",
    ),
    "nested key declared twice": (
        "  action: wait\n",
        "  action: wait\n  action: mail # HERE\n",
        "action",
        "declared twice",
    ),
    "key declared twice in a list": (
        "      action: mail\n",
        "      action: mail\n      action: wait # HERE\n",
        "action",
        "declared twice",
    ),
    "action declared twice": (
        "actions:\n",
        "actions: # HERE\n  - id: mail\n    features: {cost: 2}\n",
        "actions",
        "must be distinct, got ['mail']",
    ),
    "limit declared twice": (
        "  limits:\n",
        "  limits: # HERE\n    - {name: cheap_only, forbid: 'true'}\n",
        "guardrails.limits",
        "must be distinct, got ['cheap_only']",
    ),
    "category value declared twice": (
        "plan: {type: category, values: [basic, premium]}",
        "plan: {type: category, values: [basic, basic]} # HERE",
        "context.plan",
        "values must be distinct, got ['basic']",
    ),
    # Ranges
    "empty context range": (
        AGE,
        "age: {type: number, min: 10, max: 10} # HERE",
        "context.age",
        "min must be below max, got min=10, max=10",
    ),
    "inverted context range": (
        AGE,
        "age: {type: number, min: 10, max: 0} # HERE",
        "context.age",
        "min must be below max",
    ),
    "inverted range of a feature that is called like a type": (
        AGE,
        "number: {type: number, min: 10, max: 0} # HERE",
        "context.number",
        "min must be below max",
    ),
    "context range without a finite width": (
        AGE,
        "age: {type: number, min: -1.0e+308, max: 1.0e+308} # HERE",
        "context.age",
        "must be finite",
    ),
    "empty reward range": (
        "reward:\n" + REWARD,
        "reward: # HERE\n  min: 3\n  max: 3\n",
        "reward",
        "min must be below max",
    ),
    "outcome outside the reward range": (
        "reward:\n",
        "reward: # HERE\n",
        "reward",
        "outcomes.solved must be in [-1, 2], got 3",
    ),
    "default reward outside the reward range": (
        "feedback: {window_seconds: 100, default_reward: -1}",
        "feedback:\n  default_reward: -1.5 # HERE",
        "feedback.default_reward",
        "must be in [-1, 3], got -1.5",
    ),
    "target outside the reward range": (
        ADAPTATION,
        "adaptation:\n  target: 3.5 # HERE",
        "adaptation.target",
        "must be in [-1, 3], got 3.5",
    ),
    "target that no window of rewards can prove": (
        ADAPTATION,
        "adaptation:\n  target: 2.9 # HERE\n  window: 3\n  level: 0.8",
        "adaptation.target",
        "must be at most 2.236, the lower bound of 3 rewards of 3 at level 0.8, got 2.9",
    ),
    "reward beyond what adds up": (
        "  max: 3\n",
        "  max: 1.0e+13 # HERE\n",
        "reward.max",
        "less than or equal to 1000000000000",
    ),
    "window of more than ten years": (
        "feedback: {window_seconds: 100, default_reward: -1}",
        "feedback: {window_seconds: 1.0e+9, default_reward: -1} # HERE",
        "feedback.window_seconds",
        "less than or equal to 315360000",
    ),
    # Names of nothing
    "fallback that names no action": (
        "  action: wait\n",
        "  action: email # HERE\n",
        "fallback.action",
        "must be one of ['wait', 'mail'], got 'email'",
    ),
    "rule that names no action": (
        "      action: mail\n",
        "      action: email # HERE\n",
        "fallback.rules.0.action",
        "must be one of ['wait', 'mail'], got 'email'",
    ),
    "safe action that is no action": (
        "  safe_action: wait\n",
        "  safe_action: email # HERE\n",
        "guardrails.safe_action",
        "must be one of ['wait', 'mail'], got 'email'",
    ),
    "an aggregation nobody knows": (
        "default_reward: -1}",
        "default_reward: -1, aggregation: median}  # HERE",
        "feedback.aggregation",
        "'earliest', 'latest', 'sum', 'mean', 'min' or 'max'",
    ),
    "a late policy nobody knows": (
        "default_reward: -1}",
        "default_reward: -1, late: replace}  # HERE",
        "feedback.late",
        "'ignore', 'apply' or 'rebuild'",
    ),
    "limits without a safe action": (
        "guardrails:\n",
        "guardrails: # HERE\n",
        "guardrails.safe_action",
        "must be declared when there are limits",
    ),
    "action features that differ": (
        "actions:\n",
        "actions: # HERE\n",
        "actions",
        "mail.features must be ['cost'] as on wait, got ['price']",
    ),
    "action feature that would hide the id": (
        "actions:\n",
        "actions: # HERE\n",
        "actions",
        "wait.features must not be named 'id'",
    ),
    # Not numbers
    "NaN": ("  max: 3\n", "  max: .nan # HERE\n", "reward.max", "finite number"),
    "infinity": ("  max: 3\n", "  max: .inf # HERE\n", "reward.max", "finite number"),
    "infinite context range": (
        AGE,
        "age: {type: number, min: -.inf, max: 0} # HERE",
        "context.age.min",
        "finite number",
    ),
    "NaN in an action feature": (
        "    features: {cost: 1.5}",
        "    features: {cost: .nan} # HERE",
        "actions.1.features.cost",
        "finite number",
    ),
    "NaN target": (ADAPTATION, "adaptation: {target: .nan} # HERE", "adaptation.target", "finite"),
    "infinite hysteresis": (
        ADAPTATION,
        "adaptation: {target: 2, hysteresis: .inf} # HERE",
        "adaptation.hysteresis",
        "finite number",
    ),
    "infinite window": (
        "{window_seconds: 100, default_reward: -1}",
        "{window_seconds: .inf} # HERE",
        "feedback.window_seconds",
        "finite number",
    ),
    "number too large for a float": (
        "  max: 3\n",
        f"  max: {10**400} # HERE\n",
        "reward.max",
        "valid number",
    ),
    # Mistyped
    "number as text": ("  max: 3\n", "  max: '3' # HERE\n", "reward.max", "valid number (got '3')"),
    "boolean as number": ("  max: 3\n", "  max: yes # HERE\n", "reward.max", "valid number"),
    "fraction as count": (
        ADAPTATION,
        "adaptation: {target: 2, window: 3.5} # HERE",
        "adaptation.window",
        "valid integer",
    ),
    "YAML's yes as a category": (
        "values: [basic, premium]}",
        "values: [yes, basic]} # HERE",
        "context.plan.values.0",
        "valid string (got True)",
    ),
    "list instead of a mapping": (
        "horizon: {interactions: 20, floor: 0.1}",
        "horizon: [20] # HERE",
        "horizon",
        "valid dictionary",
    ),
    "nothing instead of a mapping": (
        "horizon: {interactions: 20, floor: 0.1}",
        "horizon: # HERE",
        "horizon",
        "valid dictionary",
    ),
    "feature of no known type": (
        AGE,
        "age: {type: text} # HERE",
        "context.age",
        "does not match any of the expected tags: 'number', 'category', 'boolean'",
    ),
    "feature without a type": (AGE, "age: {min: 0, max: 1} # HERE", "context.age", "'type'"),
    "key that is no text": ("schema: 1", "schema: 1\n7: x # HERE", "7", "strings"),
    # Out of bounds
    "other schema": ("schema: 1", "schema: 2", "schema", "should be 1 (got 2)"),
    "name in capitals": ("workflow: help", "workflow: Help # HERE", "workflow", "pattern"),
    "policy without a version": (
        "policy: counting/1",
        "policy: counting # HERE",
        "policy",
        "pattern",
    ),
    "action's name in capitals": ("  - id: mail", "  - id: Mail # HERE", "actions.1.id", "pattern"),
    "feature's name in capitals": (
        AGE,
        "Age: {type: boolean} # HERE",
        "context.Age",
        "match pattern",
    ),
    "one category": (
        "values: [basic, premium]}",
        "values: [basic]} # HERE",
        "context.plan.values",
        "at least 2",
    ),
    "empty condition": (
        "    - when: context.angry",
        "    - when: '' # HERE",
        "fallback.rules.0.when",
        "at least 1 character",
    ),
    "window of one interaction": (
        ADAPTATION,
        "adaptation: {target: 2, window: 1} # HERE",
        "adaptation.window",
        "greater than or equal to 2",
    ),
    "level of a coin": (
        ADAPTATION,
        "adaptation: {target: 2, level: 0.5} # HERE",
        "adaptation.level",
        "greater than 0.5",
    ),
    "certainty": (
        ADAPTATION,
        "adaptation: {target: 2, level: 1} # HERE",
        "adaptation.level",
        "less than 1",
    ),
    "negative hysteresis": (
        ADAPTATION,
        "adaptation: {target: 2, hysteresis: -0.1} # HERE",
        "adaptation.hysteresis",
        "greater than or equal to 0",
    ),
    "no horizon": (
        "horizon: {interactions: 20, floor: 0.1}",
        "horizon: {interactions: 0} # HERE",
        "horizon.interactions",
        "greater than or equal to 1",
    ),
    "no window": (
        "{window_seconds: 100, default_reward: -1}",
        "{window_seconds: 0} # HERE",
        "feedback.window_seconds",
        "greater than 0",
    ),
}

# What a mistake takes beside its own edit.
BESIDE = {
    "outcome outside the reward range": ("  max: 3\n", "  max: 2\n"),
    "limits without a safe action": ("  safe_action: wait\n", ""),
    "action features that differ": ("{cost: 1.5}", "{price: 1.5}"),
    "action feature that would hide the id": ("{cost: 0}", "{id: 0}"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused_with_its_file_line_and_field(mistake: str) -> None:
    assert_told(MISTAKES[mistake], BESIDE.get(mistake, ("", "")))


def test_every_mistake_is_told_at_once() -> None:
    text = SPEC.replace("  max: 3\n", "  max: high\n").replace("workflow: help\n", "")
    with pytest.raises(SpecError) as caught:
        parse_workflow(text, FILE)
    told = [line.split(": ")[1] for line in str(caught.value).splitlines()]
    assert sorted(told) == ["reward.max", "workflow"]
    assert [str(one) for one in caught.value.problems] == str(caught.value).splitlines()
    assert {one.field: one.line for one in caught.value.problems} == {
        "workflow": 1,
        "reward.max": 16,
    }
