"""A spec's canonical text and the identity it gives: of meaning, never of style."""

from __future__ import annotations

import hashlib
import json
import random
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.spec import DEFAULT_POLICY, Aggregation, WorkflowSpec, parse_workflow
from tests.contract.help_workflow import SPEC

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
NUMBERS = st.floats(-1e12, 1e12)
RANGES = st.tuples(NUMBERS, NUMBERS).filter(lambda pair: pair[0] < pair[1])
FEEDS = st.sampled_from(["policy", "rules"])
FEATURES = st.one_of(
    st.builds(
        lambda pair, clip, feeds: {
            "type": "number",
            "min": pair[0],
            "max": pair[1],
            "out_of_range": clip,
            "feeds": feeds,
        },
        RANGES,
        st.sampled_from(["refuse", "clip"]),
        FEEDS,
    ),
    st.builds(
        lambda values, feeds: {"type": "category", "values": values, "feeds": feeds},
        st.lists(st.text(max_size=5), min_size=2, max_size=4, unique=True),
        FEEDS,
    ),
    st.builds(lambda feeds: {"type": "boolean", "feeds": feeds}, FEEDS),
)


@st.composite
def workflows(draw: st.DrawFn) -> dict[str, Any]:
    """The fields of a workflow that is right."""
    ids = draw(st.lists(NAMES, min_size=2, max_size=5, unique=True))
    features = draw(st.lists(NAMES.filter(lambda name: name != "id"), max_size=3, unique=True))
    low, high = draw(RANGES)
    rewards = st.floats(low, high)
    return {
        "schema": 1,
        "workflow": draw(st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)),
        "description": draw(st.text(max_size=20)),
        "policy": "counting/1",
        "actions": [
            {"id": one, "features": {name: draw(NUMBERS) for name in features}} for one in ids
        ],
        "context": draw(st.dictionaries(NAMES, FEATURES, max_size=4)),
        "reward": {
            "min": low,
            "max": high,
            "outcomes": draw(st.dictionaries(NAMES, rewards, max_size=3)),
        },
        "feedback": {
            "default_reward": draw(st.none() | rewards),
            "late": draw(st.sampled_from(["ignore", "apply", "rebuild"])),
            "aggregation": draw(st.sampled_from(get_args(Aggregation))),
        },
        "guardrails": {
            "limits": [
                {"name": name, "forbid": draw(st.text(min_size=1, max_size=20))}
                for name in draw(st.lists(NAMES, max_size=2, unique=True))
            ],
            "safe_action": draw(st.sampled_from(ids)),
        },
        "fallback": {"action": draw(st.sampled_from(ids))},
        "adaptation": {"target": draw(st.floats(low, max(low, low + 0.9 * (high - low))))},
    }


def shuffled(value: Any, chance: random.Random) -> Any:
    """The same value with the keys of every mapping in another order."""
    if isinstance(value, dict):
        keys = list(value)
        chance.shuffle(keys)
        return {key: shuffled(value[key], chance) for key in keys}
    return [shuffled(one, chance) for one in value] if isinstance(value, list) else value


@settings(max_examples=40)
@given(workflows())
def test_the_canonical_text_parses_to_the_same_spec_and_is_its_own_canonical_text(
    fields: dict[str, Any],
) -> None:
    spec = parse_workflow(yaml.safe_dump(fields))
    again = WorkflowSpec.model_validate_json(spec.canonical)
    assert again == spec
    assert (again.canonical, again.sha256) == (spec.canonical, spec.sha256)


@settings(max_examples=40)
@given(workflows(), st.randoms(use_true_random=False))
def test_the_order_of_keys_and_the_style_of_the_file_do_not_change_the_identity(
    fields: dict[str, Any], chance: random.Random
) -> None:
    spec = parse_workflow(yaml.safe_dump(fields))
    other = yaml.safe_dump(shuffled(fields, chance), default_flow_style=True, sort_keys=False)
    assert parse_workflow("# a remark\n" + other).sha256 == spec.sha256


def test_the_identity_is_the_hash_of_the_canonical_text() -> None:
    spec = parse_workflow(SPEC)
    assert spec.sha256 == hashlib.sha256(spec.canonical.encode()).hexdigest()
    fields = json.loads(spec.canonical)
    assert fields["schema"] == 1
    assert fields["actions"][1] == {"id": "mail", "features": {"cost": 1.5}}


def test_the_canonical_text_is_the_one_that_ledgers_already_hold() -> None:
    spec = parse_workflow(
        "{schema: 1, workflow: w, policy: p/1, actions: [{id: a}, {id: b}], "
        "fallback: {action: a}, adaptation: {target: 0.5}}"
    )
    assert spec.canonical == (
        '{"actions":[{"features":{},"id":"a"},{"features":{},"id":"b"}],'
        '"adaptation":{"hysteresis":0.05,"level":0.8,"target":0.5,"window":10},"context":{},'
        '"description":"","episodes":"single_step","fallback":{"action":"a","rules":[]},'
        '"feedback":{"default_reward":null,"late":"ignore","window_seconds":86400.0},'
        '"guardrails":{"limits":[],"safe_action":null},'
        '"horizon":{"floor":0.05,"interactions":100},"policy":"p/1",'
        '"reward":{"max":1.0,"min":0.0,"outcomes":{}},"schema":1,"workflow":"w"}'
    )


FEEDBACK = "feedback: {window_seconds: 100, default_reward: -1}"


def with_feedback(more: str) -> WorkflowSpec:
    """The spec whose feedback says more."""
    assert FEEDBACK in SPEC
    return parse_workflow(SPEC.replace(FEEDBACK, FEEDBACK[:-1] + more + "}"))


def test_a_file_that_does_not_say_how_feedback_adds_up_keeps_its_identity() -> None:
    """Ledgers of before files could say it hold these hashes."""
    pinned = "c3b931e3572f73e4a9601b53c56a4f8bea399ffde6c64b4fdc7aef54fab588d6"
    assert parse_workflow(SPEC).sha256 == pinned
    assert with_feedback(", aggregation: earliest").sha256 == pinned
    assert parse_workflow(SPEC).feedback.aggregation == "earliest"


def test_naming_the_default_policy_or_none_is_the_same_and_another_is_not() -> None:
    named = "policy: counting/1\n"
    none = parse_workflow(SPEC.replace(named, ""))
    default = parse_workflow(SPEC.replace(named, f"policy: {DEFAULT_POLICY}\n"))
    assert none.sha256 == default.sha256 != parse_workflow(SPEC).sha256
    assert json.loads(none.canonical)["policy"] == DEFAULT_POLICY


@pytest.mark.parametrize("aggregation", get_args(Aggregation)[1:])
def test_another_aggregation_is_another_identity_and_comes_back_from_the_ledger(
    aggregation: str,
) -> None:
    spec = with_feedback(f", aggregation: {aggregation}")
    assert spec.sha256 != parse_workflow(SPEC).sha256
    assert json.loads(spec.canonical)["feedback"]["aggregation"] == aggregation
    again = WorkflowSpec.model_validate_json(spec.canonical)
    assert again == spec
    assert again.feedback.aggregation == aggregation
    assert again.sha256 == spec.sha256


def test_what_rebuilds_is_another_identity_than_what_ignores_or_applies() -> None:
    hashes = {with_feedback(f", late: {late}").sha256 for late in ("ignore", "apply", "rebuild")}
    assert len(hashes) == 3
    assert with_feedback(", late: rebuild").feedback.late == "rebuild"


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("max: 10}", "max: 10.0}", True),
        ("What to do next.", "'What to do next.'", True),
        ("What to do next.", "What to do.", False),
        ("max: 10}", "max: 11}", False),
        ("cost: 1.5", "cost: 1.25", False),
        ("[basic, premium]", "[premium, basic]", False),
        ("action.cost > 1", "action.cost > 2", False),
        ("angry: {type: boolean}", "angry: {type: boolean, feeds: rules}", False),
        ("default_reward: -1", "default_reward: null", False),
        ("hysteresis: 0.1", "hysteresis: 0.2", False),
    ],
)
def test_another_meaning_is_another_identity(old: str, new: str, same: bool) -> None:
    assert old in SPEC
    other = parse_workflow(SPEC.replace(old, new))
    assert (other.sha256 == parse_workflow(SPEC).sha256) is same
