"""Limits and rules that can mean nothing are errors, those that are most likely mistakes warnings,
each with its place; conditions that are fine are left in peace."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.source import Problem
from contract.spec import load_workflow, parse_workflow
from guardrails.conditions import Condition
from guardrails.probes import MOST, probes
from guardrails.review import review
from tests.guardrails.workflow import SPEC, workflow
from tests.house.tree import ROOT

FINE = [
    "context.tenure > 3",
    "context.tenure + 1.0 > 3.0",
    "context.tenure == 12",
    "context.tenure in [12, 24]",
    "context.tenure > 50 ? context.dispute : action.id == 'small'",
    "action.discount > 0.2 && context.plan != 'premium'",
    "action.discount * 100.0 > context.tenure",
    "size(context.plan) > 5",
    "int(context.tenure) % 12 == 0",
    "[12.0, 24.0].exists(month, month == context.tenure)",
]


def limit(expression: str) -> tuple[Sequence[Problem], Sequence[Problem]]:
    """Errors and warnings of a workflow with one limit."""
    return review(workflow(limits={"one": expression}))


@pytest.mark.parametrize("expression", FINE)
def test_a_limit_that_sometimes_forbids_is_fine(expression: str) -> None:
    assert limit(expression) == ([], [])


@pytest.mark.parametrize("path", sorted((ROOT / "workflows").glob("*.yaml")), ids=lambda p: p.stem)
def test_nothing_is_wrong_with_the_shipped_workflows(path: object) -> None:
    assert review(load_workflow(path)) == ([], [])  # type: ignore[arg-type]


MIXED = {
    "context.tenure + 1 > 2": ("+", 16),
    "1 - context.tenure > 2": ("-", 3),
    "context.tenure * 2 > 2": ("*", 16),
    "context.tenure / 2 > 2": ("/", 16),
    "context.dispute && context.tenure + 1u > 2u": ("+", 35),
    "context.tenure > action.discount + 1": ("+", 34),
    "size(context.plan) + context.tenure > 3": ("+", 20),
    "context.tenure == 3 || context.tenure - 1 > 3": ("-", 39),
}


@pytest.mark.parametrize("expression", MIXED)
def test_calculating_with_a_double_and_an_integer_is_an_error_though_it_compiles(
    expression: str,
) -> None:
    operator, character = MIXED[expression]
    condition = Condition(workflow(), "f", expression, of_action=True)  # it compiles, alas
    variables = {"context.tenure": 60.0, "context.plan": "basic", "context.dispute": True}
    assert condition.holds(variables | {"action.discount": 0.1}) is None
    (problem,), warnings = limit(expression)
    assert (problem.field, problem.line) == ("guardrails.limits.0.forbid", 14)
    assert f"expected a double on either side of `{operator}` at character {character}," in (
        problem.message
    )
    assert "write 1.0 for 1" in problem.message
    assert "forbids every action" in problem.message
    assert warnings == []


def test_a_rule_with_the_same_mistake_does_not_hold() -> None:
    (problem,), _ = review(workflow(rules=[("true", "call"), ("context.tenure + 1 > 2", "call")]))
    assert (problem.field, problem.line) == ("fallback.rules.1.when", 15)
    assert "As it is, it does not hold" in problem.message


def test_an_integer_where_the_checker_wants_a_double_is_told_how_to_write_one() -> None:
    (problem,), _ = limit("double(1) + context.tenure > 2")
    assert "expected a CEL condition over context.tenure" in problem.message
    assert "write 1.0 for 1" in problem.message


ERRORS = {
    "true": "forbids every action whatever the context",
    "action.discount >= 0.0": "forbids every action whatever the context",
    "1 / 0 == 1": "got one that cannot, whatever the context, and so it forbids every action",
    "context.plan.matches('(')": "got one that cannot, in each of 2 contexts tried",
    "context.tenure > 'x'": "got one that cannot, in each of 10 contexts tried",
    "context.tenur > 3": "undeclared reference to 'context.tenur'",
    "context.plan": "true or false, got STRING",
}


@pytest.mark.parametrize("expression", ERRORS)
def test_a_limit_that_can_mean_nothing_is_an_error(expression: str) -> None:
    (problem,), warnings = limit(expression)
    assert ERRORS[expression] in problem.message
    assert problem.line == 14
    assert warnings == []


WARNINGS = {
    "context.tenure >= 0": "forbids every action in each of",
    "context.plan == 'premum'": "forbids nothing in each of 2 contexts tried",
    "context.tenure > 100": "forbids nothing in each of",
    "100 / int(context.tenure) > 1": "cannot be evaluated where tenure = 0.0, and so it forbids",
    "action.discount > 0.2": "large is forbidden whatever the context, by one",
}


@pytest.mark.parametrize("expression", WARNINGS)
def test_a_limit_that_is_most_likely_a_mistake_is_a_warning(expression: str) -> None:
    errors, (problem,) = limit(expression)
    assert errors == []
    assert WARNINGS[expression] in problem.message
    assert problem.line == (9 if "discount" in expression else 14)


def test_a_rule_that_never_holds_is_a_warning() -> None:
    _, (problem,) = review(workflow(rules=[("context.plan == 'premum'", "call")]))
    assert "does not hold in each of 2 contexts tried" in problem.message


def test_limits_that_together_leave_nothing_are_a_warning() -> None:
    halves = {"one": "context.tenure < 50", "other": "context.tenure >= 50"}
    errors, (problem,) = review(workflow(limits=halves))
    assert errors == []
    assert problem.field == "guardrails.limits"
    assert "together forbid every action in each of" in problem.message


def test_every_mistake_is_told_at_once() -> None:
    found = review(
        workflow(
            limits={"one": "nothing", "other": "context.tenure + 1 > 2"},
            rules=[("(", "call")],
        )
    )
    assert [problem.field for problem in found.errors] == [
        "guardrails.limits.0.forbid",
        "guardrails.limits.1.forbid",
        "fallback.rules.0.when",
    ]


def test_a_condition_of_several_lines_is_told_by_its_own_line_and_character() -> None:
    text = SPEC.format(limits="[]", rules="[]", safe="null", action="call")
    text = text.replace(
        "guardrails: {limits: [], safe_action: null}",
        "guardrails:\n  limits:\n    - name: one\n      forbid: |\n        context.dispute &&\n"
        "        context.tenure + 1 > 2\n  safe_action: call",
    )
    (problem,), _ = review(parse_workflow(text, "offer.yaml"))
    assert re.match(r"offer.yaml:17: .* at character 16 of line 2,", str(problem))


@given(st.lists(st.floats(0, 100).map(str), max_size=8))
def test_contexts_that_are_tried_are_lawful_and_not_too_many(numbers: list[str]) -> None:
    expressions = [f"context.tenure > {number}" for number in numbers]
    tried = probes(workflow(), [*expressions, "context.dispute", "context.plan == ''"])
    assert 0 < len(tried) <= MOST
    for context in tried:
        assert 0 <= context.get("tenure", 0) <= 100
        assert context["plan"] in ("basic", "premium")


DUE = """
  required:
    - {{name: due, actions: [call], when: {when}}}
"""


def required(when: str) -> tuple[Sequence[Problem], Sequence[Problem]]:
    """Errors and warnings of a workflow in which a call is required."""
    text = SPEC.format(limits="[]", safe="nothing", rules="[]", action="nothing")
    block = f"guardrails:{DUE.format(when=when)}  safe_action: nothing\n"
    return review(
        parse_workflow(text.replace("guardrails: {limits: [], safe_action: nothing}\n", block))
    )


@pytest.mark.parametrize(
    "when", ["context.dispute", "account.interactions < 3", "context.tenure > 3"]
)
def test_what_is_sometimes_required_is_fine(when: str) -> None:
    assert required(when) == ([], [])


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("context.tenur > 3", "undeclared reference to 'context.tenur'"),
        ("account.age > 3", "undeclared reference to 'account.age'"),
        ("action.discount > 3", "undeclared reference to 'action.discount'"),
        ("context.tenure", "true or false"),
        ("context.tenure + 1 > 2", "expected a double on either side of `+`"),
        ("account.age_days + 1 > 2", "expected a double on either side of `+`"),
    ],
)
def test_what_is_required_when_nobody_can_say_is_an_error_in_its_place(
    when: str, expected: str
) -> None:
    (error,), _ = required(when)
    assert (error.field, error.line) == ("guardrails.required.0.when", 16)
    assert expected in error.message


def test_a_limit_may_ask_of_the_account_and_is_not_judged_by_contexts() -> None:
    assert limit("account.interactions < 3 && action.id == 'large'") == ([], [])
    assert limit("account.phase == 'adapted' && account.recent_reward > 0.5") == ([], [])
    (error,), _ = limit("account.phase == 3")
    assert "no matching overload" in error.message
