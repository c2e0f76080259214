"""What a loaded workflow file says, by its names, defaults and places."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from contract.spec import (
    DEFAULT_POLICY,
    SpecError,
    WorkflowSpec,
    load_workflow,
    parse_workflow,
)
from tests.contract.help_workflow import FILE, SPEC
from tests.house.tree import ROOT


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
