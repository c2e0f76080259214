"""A workflow file is loaded whole, or refused with the line and the field of every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from contract.spec import (
    DEFAULT_POLICY,
    SpecError,
    WorkflowSpec,
    load_workflow,
    parse_workflow,
)
from tests.house.tree import ROOT

SPEC = """\
schema: 1
workflow: help
description: What to do next.
policy: counting/1
horizon: {interactions: 20, floor: 0.1}
actions:
  - id: wait
    features: {cost: 0}
  - id: mail
    features: {cost: 1.5}
context:
  age: {type: number, min: 0, max: 10}
  plan: {type: category, values: [basic, premium]}
  angry: {type: boolean}
reward:
  min: -1
  max: 3
  outcomes: {solved: 3, unsolved: -1}
feedback: {window_seconds: 100, default_reward: -1}
guardrails:
  limits:
    - name: cheap_only
      forbid: action.cost > 1
  safe_action: wait
fallback:
  rules:
    - when: context.angry
      action: mail
  action: wait
adaptation: {target: 2, window: 3, level: 0.6, hysteresis: 0.1}
"""

FILE = "help.yaml"

# What is wrong: (text of SPEC, what it becomes, with # HERE on the line to be named; the field to
# be named; what was expected). Without # HERE it is line 1.
AGE = "age: {type: number, min: 0, max: 10}"
REWARD = "  min: -1\n  max: 3\n"
ADAPTATION = "adaptation: {target: 2, window: 3, level: 0.6, hysteresis: 0.1}"
MISTAKES: dict[str, tuple[str, str, str, str]] = {
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
    # Not YAML
    "bad indentation": (
        "  min: -1\n",
        "  min: -1\n    max: 2 # HERE\n",
        "",
        "expected YAML, but mapping values are not allowed here",
    ),
    "tab": ("  min: -1\n", "\tmin: -1 # HERE\n", "", "expected YAML, but found character '\\t'"),
    "second document": (
        ADAPTATION,
        ADAPTATION + "\n--- # HERE\na: 1",
        "",
        "expected YAML, but found another document",
    ),
    "tag that would run code": (
        "description: What to do next.",
        "description: !!python/object/apply:os.getcwd [] # HERE",
        "",
        "expected YAML, but could not determine a constructor",
    ),
    "date that no calendar has": (
        "description: What to do next.",
        "description: 2026-13-01 # HERE",
        "",
        "expected YAML, but month must be in 1..12",
    ),
    "number that is none": (
        "  max: 3\n",
        "  max: !!int three # HERE\n",
        "",
        "expected YAML, but invalid literal",
    ),
    "list as a key": (
        "schema: 1",
        "schema: 1\n[a, b]: 1 # HERE",
        "",
        "expected a field's name, got a collection",
    ),
    "alias of itself": (
        "description: What to do next.",
        "description: &loop [*loop]",
        "",
        "nested without end",
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
    old, new, field, expected = MISTAKES[mistake]
    text = SPEC
    for one, other in ((old, new), BESIDE.get(mistake, ("", ""))):
        assert one in text
        text = text.replace(one, other, 1)
    line = text[: text.index("# HERE")].count("\n") + 1 if "# HERE" in text else 1
    with pytest.raises(SpecError) as caught:
        parse_workflow(text, FILE)
    message = str(caught.value)
    assert message.startswith(f"{FILE}:{line}: {field}"), message
    assert expected in message


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


@pytest.mark.parametrize("text", ["", "# nothing", "workflow", "- schema: 1", "3", "null"])
def test_what_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"^help\.yaml:1: expected a mapping"):
        parse_workflow(text, FILE)


@pytest.mark.parametrize("nested", ["[" * 2_000, "{a: " * 2_000 + "}" * 2_000])
def test_nesting_without_end_is_refused(nested: str) -> None:
    with pytest.raises(SpecError, match=r"^help\.yaml:1: expected YAML"):
        parse_workflow(f"description: {nested}", FILE)


@given(st.text() | st.text(alphabet="{}[]:-#&*!|>'\"\n\t ,ab1.?<%@").map(lambda s: SPEC + s))
def test_no_text_is_refused_in_any_other_way(text: str) -> None:
    try:
        parse_workflow(text, FILE)
    except SpecError as error:
        assert str(error).startswith(FILE)


def test_a_file_is_named_in_its_errors(tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_text(SPEC.replace("schema: 1", "schema: 2"))
    with pytest.raises(SpecError) as caught:
        load_workflow(path)
    assert str(caught.value).startswith(f"{path}:1: schema:")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("description: señor".encode("latin-1"))
    for path in (tmp_path / "missing.yaml", tmp_path, latin):
        with pytest.raises(SpecError) as caught:
            load_workflow(path)
        assert str(caught.value).startswith(f"{path}: expected a readable UTF-8 file")


def test_a_file_and_its_text_are_the_same_spec(tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_text(SPEC, encoding="utf-8")
    assert load_workflow(path) == parse_workflow(SPEC)


def test_what_a_file_leaves_out_has_its_documented_default() -> None:
    spec = parse_workflow(
        "{schema: 1, workflow: w, policy: p/1, actions: [{id: a}, {id: b}], "
        "fallback: {action: a}, adaptation: {target: 0.5}}"
    )
    assert spec.episodes == "single_step"
    assert (spec.horizon.interactions, spec.horizon.floor) == (100, 0.05)
    assert (spec.reward.min, spec.reward.max, spec.reward.outcomes) == (0, 1, {})
    assert spec.feedback.window_seconds == 24 * 3600
    assert (spec.feedback.default_reward, spec.feedback.late) == (None, "ignore")
    assert spec.feedback.aggregation == "earliest"
    assert (spec.guardrails.limits, spec.guardrails.safe_action) == ([], None)
    assert (spec.adaptation.window, spec.adaptation.level) == (10, 0.8)
    assert spec.context == {}


def test_actions_keep_their_order_because_memories_are_stored_by_it() -> None:
    assert parse_workflow(SPEC).action_ids == ("wait", "mail")
    text = SPEC.replace("wait", "-").replace("mail", "wait").replace("id: -", "id: mail")
    text = text.replace(": -\n", ": mail\n")
    assert parse_workflow(text).action_ids == ("mail", "wait")


def test_a_workflow_that_names_no_policy_has_the_default_one() -> None:
    spec = parse_workflow(SPEC.replace("policy: counting/1\n", ""))
    assert spec.policy == DEFAULT_POLICY == "universal/1"
    assert not spec.names_policy
    assert parse_workflow(SPEC).names_policy


def test_a_part_of_a_spec_is_told_by_its_place_in_the_file_it_came_from() -> None:
    spec = parse_workflow(SPEC, FILE)
    assert str(spec.problem("context.plan", "wrong")) == "help.yaml:13: context.plan: wrong"
    assert str(spec.problem("actions.1.id", "wrong")).startswith("help.yaml:9: ")
    assert str(spec.problem("actions.7.id", "wrong")).startswith("help.yaml:6: ")
    from_no_file = WorkflowSpec.model_validate_json(spec.canonical)
    assert str(from_no_file.problem("context.plan", "wrong")) == (
        "workflow help: context.plan: wrong"
    )
    assert from_no_file == spec


def test_a_loaded_spec_cannot_be_changed() -> None:
    spec = parse_workflow(SPEC)
    for part, field in ((spec, "workflow"), (spec.reward, "max"), (spec.actions[0], "id")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(part, field, getattr(part, field))


@pytest.mark.parametrize("path", sorted((ROOT / "workflows").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_workflow_loads_under_the_name_of_its_file(path: Path) -> None:
    assert load_workflow(path).workflow == path.stem
