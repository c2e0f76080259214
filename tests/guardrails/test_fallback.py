"""The fallback always has an answer, and it is one of those that the limits left."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrails.fallback import Fallback
from tests.guardrails.workflow import ACTIONS, CONTEXT, workflow

RULES = [
    ("context.dispute", "call"),
    ("context.tenure >= 24.0", "large"),
    ("context.tenure >= 6.0", "small"),
]
ALL = ACTIONS


def chosen(fallback: Fallback, context: dict[str, Any], allowed: tuple[str, ...] = ALL) -> str:
    mask = np.array([action in allowed for action in ACTIONS])
    return ACTIONS[fallback.choose(context, mask)]


@pytest.mark.parametrize(
    ("changes", "allowed", "action"),
    [
        # The first rule that holds, in the order of the file.
        ({"dispute": True, "tenure": 50.0}, ALL, "call"),
        ({"tenure": 50.0}, ALL, "large"),
        ({"tenure": 12.0}, ALL, "small"),
        # A rule whose action is not allowed is passed over for the next.
        ({"dispute": True, "tenure": 50.0}, ("nothing", "small", "large"), "large"),
        ({"tenure": 50.0}, ("nothing", "small"), "small"),
        # None holds, or none is allowed: the fixed action.
        ({"tenure": 0.0}, ALL, "call"),
        ({"tenure": 50.0}, ("call", "nothing"), "call"),
        # The fixed action is not allowed: the safe action.
        ({"tenure": 0.0}, ("nothing", "small", "large"), "large"),
        # Nor is that: the first that is.
        ({"tenure": 0.0}, ("small", "nothing"), "nothing"),
        ({"tenure": 0.0}, ("small",), "small"),
    ],
)
def test_the_fallback_takes_the_first_of_rules_fixed_action_and_safe_action_that_is_allowed(
    changes: dict[str, Any], allowed: tuple[str, ...], action: str
) -> None:
    fallback = Fallback(workflow(rules=RULES, action="call", safe="large"))
    assert chosen(fallback, CONTEXT | changes, allowed) == action


def test_a_fallback_may_be_a_fixed_action_alone() -> None:
    fallback = Fallback(workflow(action="small", safe=None))
    assert chosen(fallback, {}) == "small"
    assert chosen(fallback, {}, ("large", "call")) == "call"


def test_a_rule_that_cannot_be_evaluated_does_not_hold() -> None:
    rules = [("1 / 0 == 1", "large"), ("context.tenure > 3.0", "small")]
    assert chosen(Fallback(workflow(rules=rules)), CONTEXT) == "small"


FALLBACKS = [
    Fallback(workflow(rules=rules, action=action, safe=safe))
    for rules in ([], RULES, [("1 / 0 == 1", "large"), ("true", "small")])
    for action in ("nothing", "large")
    for safe in (None, "call")
]


@given(
    st.sampled_from(FALLBACKS),
    st.fixed_dictionaries(
        {
            "tenure": st.floats(0, 100),
            "plan": st.sampled_from(["basic", "premium"]),
            "dispute": st.booleans(),
        }
    ),
    st.sets(st.sampled_from(ACTIONS), min_size=1),
)
def test_the_fallback_never_chooses_what_is_not_allowed(
    fallback: Fallback, context: dict[str, Any], allowed: set[str]
) -> None:
    assert chosen(fallback, context, tuple(allowed)) in allowed
