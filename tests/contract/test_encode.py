"""A context is checked against its spec, and encoded as training saw it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.encode import (
    ContextError,
    check_context,
    context_size,
    encode_action_features,
    encode_context,
    encode_reward,
    horizon_left,
)
from contract.spec import NumberFeature, WorkflowSpec, parse_workflow

SPEC = """
schema: 1
workflow: help
policy: counting/1
actions:
  - {id: wait, features: {minutes: 5, cost: 0, same: 7}}
  - {id: mail, features: {minutes: 5, cost: 1, same: 7}}
  - {id: call, features: {minutes: 15, cost: 4, same: 7}}
context:
  tenure: {type: number, min: -10, max: 30}
  plan: {type: category, values: [basic, premium, "3"]}
  angry: {type: boolean}
  score: {type: number, min: 0, max: 1, out_of_range: clip, feeds: rules}
  region: {type: category, values: [north, south], feeds: rules}
fallback: {action: wait}
adaptation: {target: 0.5}
"""

CONTEXT = {"tenure": 20, "plan": "premium", "angry": False, "score": 0.5, "region": "south"}


@pytest.fixture(scope="module")
def spec() -> WorkflowSpec:
    return parse_workflow(SPEC)


def feature_of(text: str) -> WorkflowSpec:
    """A workflow whose one feature is `x`."""
    context = SPEC[SPEC.index("context:") : SPEC.index("fallback:")]
    return parse_workflow(SPEC.replace(context, f"context:\n  x: {text}\n"))


# What fits


def test_a_context_that_fits_is_seen_as_it_is(spec: WorkflowSpec) -> None:
    checked, clipped = check_context(spec, CONTEXT)
    assert checked == CONTEXT
    assert clipped == ()
    assert isinstance(checked["tenure"], float)


@pytest.mark.parametrize(
    ("value", "seen", "clipped"),
    [(0, 0, ()), (1, 1, ()), (-0.1, 0, ("score",)), (7, 1, ("score",)), (10**30, 1, ("score",))],
)
def test_a_number_is_clipped_where_the_workflow_says_so(
    spec: WorkflowSpec, value: float, seen: float, clipped: tuple[str, ...]
) -> None:
    checked, names = check_context(spec, CONTEXT | {"score": value})
    assert (checked["score"], names) == (seen, clipped)


def test_the_ends_of_a_range_fit(spec: WorkflowSpec) -> None:
    for value in (-10, 30):
        assert check_context(spec, CONTEXT | {"tenure": value})[0]["tenure"] == value


# What does not

TENURE = "a number in [-10, 30], got "
PLAN = "one of ['basic', 'premium', '3'], got "
ANGRY = "true or false, got "


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("tenure", 30.5, TENURE + "30.5"),
        ("tenure", -11, TENURE + "-11"),
        ("tenure", "20", TENURE + "'20'"),
        ("tenure", None, TENURE + "nothing"),
        ("tenure", True, TENURE + "True"),
        ("tenure", [20], TENURE + "[20]"),
        ("tenure", math.nan, TENURE + "a number that is not finite"),
        ("tenure", math.inf, TENURE + "a number that is not finite"),
        ("tenure", 10**400, TENURE + "a number that is not finite"),
        ("tenure", 10**30, TENURE + "a huge number"),
        ("tenure", "long" * 99, TENURE + "'longlong"),
        ("score", math.nan, "a number in [0, 1], got a number that is not finite"),
        ("score", -math.inf, "a number in [0, 1], got a number that is not finite"),
        ("score", False, "a number in [0, 1], got False"),
        ("plan", "gold", PLAN + "'gold'"),
        ("plan", "", PLAN + "''"),
        ("plan", 3, PLAN + "3"),
        ("plan", None, PLAN + "nothing"),
        ("plan", ["basic"], PLAN + "['basic']"),
        ("angry", 1, ANGRY + "1"),
        ("angry", 0.0, ANGRY + "0.0"),
        ("angry", "true", ANGRY + "'true'"),
        ("angry", None, ANGRY + "nothing"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_name(
    spec: WorkflowSpec, name: str, value: Any, expected: str
) -> None:
    with pytest.raises(ContextError) as caught:
        check_context(spec, CONTEXT | {name: value})
    assert caught.value.field == f"context.{name}"
    assert caught.value.expected.startswith(expected)
    assert len(caught.value.expected) < 100
    assert str(caught.value).startswith(f"context.{name}: expected {expected}")


@pytest.mark.parametrize(
    ("name", "value", "cause"),
    [
        ("tenure", 30.5, "out_of_range"),
        ("tenure", math.inf, "out_of_range"),
        ("tenure", 10**400, "out_of_range"),
        ("tenure", "20", "mistyped"),
        ("tenure", True, "mistyped"),
        ("tenure", None, "missing"),
        ("plan", "gold", "out_of_range"),
        ("plan", 3, "mistyped"),
        ("plan", None, "missing"),
        ("angry", 1, "mistyped"),
        ("angry", None, "missing"),
        ("nobody_knows", 1, "undeclared"),
    ],
)
def test_what_is_off_with_a_value_is_one_of_four_things(
    spec: WorkflowSpec, name: str, value: Any, cause: str
) -> None:
    with pytest.raises(ContextError) as caught:
        check_context(spec, CONTEXT | {name: value})
    assert (caught.value.feature, caught.value.cause) == (name, cause)


@pytest.mark.parametrize("name", CONTEXT)
def test_a_missing_feature_is_refused_by_name(spec: WorkflowSpec, name: str) -> None:
    with pytest.raises(ContextError, match="got nothing") as caught:
        check_context(spec, {key: value for key, value in CONTEXT.items() if key != name})
    assert caught.value.field == f"context.{name}"


def test_an_unknown_feature_is_refused_by_name(spec: WorkflowSpec) -> None:
    with pytest.raises(ContextError) as caught:
        check_context(spec, CONTEXT | {"tenur": 3})
    assert caught.value.field == "context.tenur"
    assert caught.value.expected == "a declared feature (tenure, plan, angry, score, region)"


def test_a_workflow_without_context_refuses_every_feature(spec: WorkflowSpec) -> None:
    bare = spec.model_copy(update={"context": {}})
    assert check_context(bare, {}) == ({}, ())
    with pytest.raises(ContextError, match="declares no context"):
        check_context(bare, {"tenure": 3})


@pytest.mark.parametrize("name", ["\ud800", "x" * 10_000])
def test_an_unknown_name_is_told_short_and_in_characters_that_can_be_sent(
    spec: WorkflowSpec, name: str
) -> None:
    with pytest.raises(ContextError) as caught:
        check_context(spec, CONTEXT | {name: 1})
    assert len(caught.value.field.encode()) < 100


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from([*CONTEXT, "other"]), JSON))
def test_whatever_was_sent_either_encodes_within_its_slots_or_is_refused(
    changes: dict[str, Any],
) -> None:
    spec = parse_workflow(SPEC)
    try:
        checked, _ = check_context(spec, CONTEXT | changes)
    except ContextError as error:
        assert error.field.removeprefix("context.") in changes
        return
    assert list(checked) == list(spec.context)
    assert (np.abs(encode_context(spec, checked, 5)) <= 1).all()


# Slots


def test_a_context_takes_a_slot_a_number_and_one_a_category_and_rules_take_none(
    spec: WorkflowSpec,
) -> None:
    assert context_size(spec) == 1 + 3 + 1


def test_slots_stand_in_name_order_and_the_rest_is_zero(spec: WorkflowSpec) -> None:
    encoded = encode_context(spec, CONTEXT, 8)
    # angry; plan: basic, premium, 3; tenure
    np.testing.assert_array_equal(encoded, np.array([-1, 0, 1, 0, 0.5, 0, 0, 0], np.float32))
    assert encoded.dtype == np.float32


@pytest.mark.parametrize(
    ("text", "value", "slots"),
    [
        ("{type: number, min: -10, max: 30}", -10, [-1]),
        ("{type: number, min: -10, max: 30}", 10, [0]),
        ("{type: number, min: -10, max: 30}", 30, [1]),
        ("{type: number, min: 0, max: 1.7e+308}", 1.7e308, [1]),
        ("{type: boolean}", True, [1]),
        ("{type: boolean}", False, [-1]),
        ("{type: category, values: [a, b, c]}", "a", [1, 0, 0]),
        ("{type: category, values: [c, b, a]}", "a", [0, 0, 1]),
        ("{type: number, min: 0, max: 1, feeds: rules}", 1, []),
        ("{type: boolean, feeds: rules}", True, []),
        ("{type: category, values: [a, b], feeds: rules}", "a", []),
    ],
)
def test_a_feature_takes_these_slots(text: str, value: Any, slots: list[float]) -> None:
    spec = feature_of(text)
    assert context_size(spec) == len(slots)
    assert encode_context(spec, {"x": value}, 4).tolist() == slots + [0] * (4 - len(slots))


@settings(max_examples=30)
@given(st.permutations(list(CONTEXT)))
def test_the_order_in_which_features_are_declared_does_not_change_what_the_network_sees(
    order: list[str],
) -> None:
    spec = parse_workflow(SPEC)
    other = spec.model_copy(update={"context": {name: spec.context[name] for name in order}})
    assert other.sha256 == spec.sha256
    stored = WorkflowSpec.model_validate_json(spec.canonical)
    for same in (other, stored):
        np.testing.assert_array_equal(
            encode_context(same, CONTEXT, 5), encode_context(spec, CONTEXT, 5)
        )


@pytest.mark.parametrize("change", [{"score": 0.9}, {"region": "north"}])
def test_what_feeds_the_rules_never_reaches_the_network(
    spec: WorkflowSpec, change: dict[str, Any]
) -> None:
    np.testing.assert_array_equal(
        encode_context(spec, CONTEXT | change, 5), encode_context(spec, CONTEXT, 5)
    )


FINITE = st.floats(-8e307, 8e307)
ORDERED = (
    st.lists(FINITE, min_size=4, max_size=4).map(sorted).filter(lambda four: four[0] < four[3])
)


@given(ORDERED)
def test_numbers_keep_their_order_and_the_ends_of_a_range_are_exact(numbers: list[float]) -> None:
    spec = feature_of("{type: boolean}")
    feature = NumberFeature(type="number", min=numbers[0], max=numbers[3])
    spec = spec.model_copy(update={"context": {"x": feature}})
    slots = [float(encode_context(spec, {"x": number}, 1)[0]) for number in numbers]
    assert slots == sorted(slots)
    assert (slots[0], slots[3]) == (-1, 1)


# Rewards, action features, horizon


def test_a_reward_is_scaled_from_its_range_to_minus_one_and_one() -> None:
    encoded = encode_reward([[-1, 0], [1, 3]], -1, 3)
    np.testing.assert_array_equal(encoded, np.array([[-1, -0.5], [0, 1]], np.float32))
    assert encoded.dtype == np.float32


@given(ORDERED)
def test_rewards_keep_their_order_and_the_ends_of_the_range_are_exact(rewards: list[float]) -> None:
    encoded = encode_reward(rewards, rewards[0], rewards[3]).tolist()
    assert encoded == sorted(encoded)
    assert (encoded[0], encoded[3]) == (-1, 1)


def test_the_widest_range_of_rewards_does_not_overflow() -> None:
    assert encode_reward([0, 1.7e308], 0, 1.7e308).tolist() == [-1, 1]


def test_a_reward_alone_and_in_a_batch_encodes_to_the_same_bits() -> None:
    rewards = np.random.default_rng(0).uniform(-3, 7, 500)
    batch = encode_reward(rewards, -3, 7)
    alone = np.array([encode_reward([reward], -3, 7)[0] for reward in rewards])
    assert batch.tobytes() == alone.tobytes()


def test_action_features_are_scaled_over_the_actions_in_name_order(spec: WorkflowSpec) -> None:
    encoded = encode_action_features(spec, 4)
    # cost, minutes, same (which tells no action from another), nothing
    expected = [[-1, -1, 0, 0], [-0.5, -1, 0, 0], [1, 1, 0, 0]]
    np.testing.assert_array_equal(encoded, np.array(expected, np.float32))
    assert encoded.dtype == np.float32


def test_a_policy_that_takes_no_action_features_gets_none(spec: WorkflowSpec) -> None:
    assert encode_action_features(spec, 0).shape == (3, 0)


@pytest.mark.parametrize(
    ("position", "horizon", "floor", "share", "interactions"),
    [
        (0, 1000, 0.0, 1.0, 1000),
        (0, 20, 0.1, 1.0, 20),
        (5, 20, 0.1, 0.75, 15),
        (18, 20, 0.1, 0.1, 2),
        (19, 20, 0.1, 0.1, 2),
        (10_000, 20, 0.1, 0.1, 2),
        (20, 20, 0.0, 0.0, 0),
        (-3, 20, 0.0, 1.0, 20),
    ],
)
def test_the_horizon_left_is_a_share_and_a_count_and_never_below_the_floor(
    position: int, horizon: int, floor: float, share: float, interactions: int
) -> None:
    left = horizon_left(position, horizon, floor)
    assert left.dtype == np.float32
    assert left.tolist() == pytest.approx([share, math.log(1 + interactions) / math.log(1001)])


def test_the_horizon_left_of_many_accounts_is_that_of_each() -> None:
    positions, horizons = np.array([[0, 3, 50], [7, 99, 1000]]), np.array([10, 20, 100])
    left = horizon_left(positions, horizons, 0.05)
    assert left.shape == (2, 3, 2)
    for (i, k), position in np.ndenumerate(positions):
        np.testing.assert_array_equal(left[i, k], horizon_left(position, horizons[k], 0.05))
