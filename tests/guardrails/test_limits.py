"""What a hard limit forbids is not on offer, whatever the policy or the fallback would like."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.spec import load_workflow
from guardrails.conditions import TOGETHER
from guardrails.fallback import Fallback
from guardrails.limits import Allowed, Limits
from tests.guardrails.workflow import ACTIONS, CONTEXT, workflow
from tests.house.tree import ROOT

FORBID = {
    "ceiling": 'action.discount > 0.2 && context.plan != "premium"',
    "newcomers": "action.discount > 0 && context.tenure < 3",
    "disputes": 'context.dispute && action.id != "call"',
}
BROKEN = {"broken": "1 / 0 == 1"}
FOR_SMALL = 'action.id == "small" && 1 / 0 == 1'


def left(allowed: Allowed) -> list[str]:
    """Names of the actions that may be served."""
    return [one for one, kept in zip(ACTIONS, allowed.mask, strict=True) if kept]


@pytest.mark.parametrize(
    ("changes", "actions", "limits"),
    [
        ({}, ["nothing", "call", "small", "large"], ()),
        ({"plan": "basic"}, ["nothing", "call", "small"], ("ceiling",)),
        ({"tenure": 2.9}, ["nothing", "call"], ("newcomers",)),
        ({"tenure": 3.0}, ["nothing", "call", "small", "large"], ()),
        # `large` is gone already, but `small` was the newcomers' own to take.
        ({"tenure": 0.0, "plan": "basic"}, ["nothing", "call"], ("ceiling", "newcomers")),
        ({"dispute": True}, ["call"], ("disputes",)),
        (
            {"dispute": True, "tenure": 0.0, "plan": "basic"},
            ["call"],
            ("ceiling", "newcomers", "disputes"),
        ),
    ],
)
def test_limits_leave_what_none_of_them_forbids_and_those_that_took_something_are_named(
    changes: dict[str, Any], actions: list[str], limits: tuple[str, ...]
) -> None:
    allowed = Limits(workflow(FORBID)).allow(CONTEXT | changes, None)
    assert left(allowed) == actions
    assert allowed.limits == limits
    assert not allowed.exhausted


@pytest.mark.parametrize(
    ("asked_for", "plan", "actions", "limits"),
    [
        (["small", "call"], "premium", ["call", "small"], ()),
        (["large", "call"], "basic", ["call"], ("ceiling",)),
        # The limit took nothing of what was asked for, so it did not apply.
        (["small", "call"], "basic", ["call", "small"], ()),
    ],
)
def test_only_what_was_asked_for_is_on_offer(
    asked_for: list[str], plan: str, actions: list[str], limits: tuple[str, ...]
) -> None:
    allowed = Limits(workflow(FORBID)).allow(CONTEXT | {"plan": plan}, asked_for)
    assert (left(allowed), allowed.limits) == (actions, limits)


@pytest.mark.parametrize(
    ("limits", "asked_for"),
    [
        ({"all": "true"}, None),
        ({"all": "true"}, ["large", "call"]),
        ({"free": "action.discount == 0.0", "rest": "action.discount > 0.0"}, None),
        ({"large": 'action.id == "large"'}, ["large"]),
    ],
)
@pytest.mark.parametrize("safe", ["nothing", "call"])
def test_when_nothing_is_left_the_safe_action_is_also_where_it_was_not_asked_for(
    limits: dict[str, str], asked_for: list[str] | None, safe: str
) -> None:
    allowed = Limits(workflow(limits, safe=safe)).allow(CONTEXT, asked_for)
    assert allowed.exhausted
    assert left(allowed) == [safe]
    assert allowed.limits == tuple(limits)


def test_a_limit_that_cannot_be_evaluated_forbids() -> None:
    allowed = Limits(workflow(BROKEN)).allow(CONTEXT, None)
    assert (left(allowed), allowed.limits, allowed.exhausted) == (["nothing"], ("broken",), True)
    allowed = Limits(workflow({"partly": FOR_SMALL})).allow(CONTEXT, None)
    assert (left(allowed), allowed.limits) == (["nothing", "call", "large"], ("partly",))


def test_without_limits_all_that_was_asked_for_is_on_offer() -> None:
    limits = Limits(workflow(safe=None))
    assert left(limits.allow(CONTEXT, None)) == list(ACTIONS)
    assert left(limits.allow(CONTEXT, ["large"])) == ["large"]
    assert limits.allow(CONTEXT, ["large"]).limits == ()


def test_limits_keep_nothing_from_one_decision_to_the_next() -> None:
    limits = Limits(workflow(FORBID))
    limits.allow(CONTEXT | {"dispute": True}, ["large"])
    assert left(limits.allow(CONTEXT, None)) == list(ACTIONS)


EXPRESSIONS = {
    "action.discount > 0.2": lambda context, action, discount: discount > 0.2,
    'action.id == "call"': lambda context, action, discount: action == "call",
    "context.dispute": lambda context, action, discount: context["dispute"],
    "action.discount * 100.0 > context.tenure": lambda context, action, discount: (
        discount * 100 > context["tenure"]
    ),
    'context.plan == "basic" && action.id.startsWith("s")': lambda context, action, discount: (
        context["plan"] == "basic" and action.startswith("s")
    ),
}
DISCOUNTS = dict(zip(ACTIONS, (0.0, 0.0, 0.1, 0.3), strict=True))
CONTEXTS = st.fixed_dictionaries(
    {
        "tenure": st.floats(0, 100),
        "plan": st.sampled_from(["basic", "premium"]),
        "dispute": st.booleans(),
    }
)
SUBSETS = st.none() | st.sets(st.sampled_from(ACTIONS), min_size=1)
COMPILED = {
    expressions: Limits(workflow({f"limit_{i}": e for i, e in enumerate(expressions)}))
    for expressions in [(), *((e,) for e in EXPRESSIONS), tuple(EXPRESSIONS)]
}


@given(st.sampled_from(list(COMPILED)), CONTEXTS, SUBSETS)
def test_what_is_on_offer_was_asked_for_and_is_forbidden_by_no_limit(
    expressions: tuple[str, ...], context: dict[str, Any], asked_for: set[str] | None
) -> None:
    allowed = COMPILED[expressions].allow(context, asked_for)
    expected = [
        action
        for action in ACTIONS
        if (asked_for is None or action in asked_for)
        and not any(EXPRESSIONS[e](context, action, DISCOUNTS[action]) for e in expressions)
    ]
    assert allowed.exhausted is (not expected)
    assert left(allowed) == (expected or ["nothing"])


DIVIDED = Limits(
    workflow({"large": "action.discount > 0.2", "steady": "100 / int(context.tenure) > 50"})
)


@given(st.lists(st.tuples(CONTEXTS, SUBSETS), min_size=1, max_size=2 * TOGETHER + 1))
def test_many_at_once_are_left_what_each_is_left_alone(
    asked: list[tuple[dict[str, Any], set[str] | None]],
) -> None:
    """Also beside contexts that a limit cannot be evaluated in: 100 / 0 forbids there alone."""
    for limits in (COMPILED[tuple(EXPRESSIONS)], DIVIDED):
        together = limits.allow_each([one for one, _ in asked], [some for _, some in asked])
        alone = [limits.allow(*one) for one in asked]
        assert [left(one) for one in together] == [left(one) for one in alone]
        assert [one[1:] for one in together] == [one[1:] for one in alone]


def test_a_context_that_cannot_be_evaluated_forbids_nothing_to_its_neighbours() -> None:
    contexts = [CONTEXT | {"tenure": tenure} for tenure in (1.0, 0.5, 10.0)]
    together = DIVIDED.allow_each(contexts, [None] * 3)
    assert [one.limits for one in together] == [
        ("large", "steady"),
        ("large", "steady"),
        ("large",),
    ]
    assert [one.exhausted for one in together] == [True, True, False]


# The workflows that are shipped


@pytest.mark.parametrize("path", sorted((ROOT / "workflows").glob("*.yaml")), ids=lambda p: p.stem)
def test_limits_and_fallback_of_every_shipped_workflow_compile(path: Any) -> None:
    spec = load_workflow(path)
    Limits(spec)
    Fallback(spec)


@pytest.mark.parametrize(
    ("context", "actions", "chosen"),
    [
        (
            {"tenure_months": 30.0, "plan": "premium", "in_dispute": False},
            {
                "nothing",
                "call_back",
                "discount_10",
                "discount_20",
                "discount_30",
                "pause_month",
            },
            "discount_20",
        ),
        (
            {"tenure_months": 30.0, "plan": "basic", "in_dispute": False},
            {"nothing", "call_back", "discount_10", "discount_20", "pause_month"},
            "discount_10",
        ),
        (
            {"tenure_months": 2.0, "plan": "basic", "in_dispute": False},
            {"nothing", "call_back"},
            "nothing",
        ),
        (
            {"tenure_months": 30.0, "plan": "premium", "in_dispute": True},
            {"call_back"},
            "call_back",
        ),
    ],
)
def test_retention_offers_are_limited_as_their_file_says(
    context: dict[str, Any], actions: set[str], chosen: str
) -> None:
    spec = load_workflow(ROOT / "workflows" / "retention-offer.yaml")
    mask = Limits(spec).allow(context, None).mask
    assert {one for one, kept in zip(spec.action_ids, mask, strict=True) if kept} == actions
    assert spec.action_ids[Fallback(spec).choose(context, mask)] == chosen
