"""A condition is refused when it is loaded, or it is true, false or cannot be evaluated."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from contract.spec import SpecError, WorkflowSpec
from guardrails.conditions import Condition, context_variables
from guardrails.fallback import Fallback
from guardrails.limits import Limits
from tests.guardrails.workflow import CONTEXT, workflow

VARIABLES = context_variables(CONTEXT) | {"action.id": "small", "action.discount": 0.1}


def condition(expression: str, *, of_action: bool = True) -> Condition:
    return Condition(workflow(), "some.field", expression, of_action=of_action)


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        ("context.tenure > 3", True),
        ("context.tenure < 3", False),
        ("context.tenure == 12.0", True),
        ('context.plan == "premium"', True),
        ('context.plan in ["basic", "free"]', False),
        ("context.dispute", False),
        ("!context.dispute", True),
        ('action.id == "small"', True),
        ("action.discount > 0.2", False),
        ('action.discount > 0 && context.plan == "premium"', True),
        ('context.tenure > 50 ? context.dispute : action.id == "small"', True),
        ("true", True),
        # What cannot be evaluated is neither.
        ("1 / 0 == 1", None),
        ('context.tenure + "x" == "y"', None),
        ('context.plan.matches("(")', None),
        ("[1][5] == 1", None),
        # Unless it makes no difference.
        ("context.dispute && 1 / 0 == 1", False),
        ("1 / 0 == 1 || context.tenure > 3", True),
    ],
)
def test_a_condition_is_true_or_false_or_cannot_be_evaluated(
    expression: str, holds: bool | None
) -> None:
    assert condition(expression).holds(VARIABLES) is holds


def test_a_variable_that_is_missing_makes_a_condition_impossible_to_evaluate() -> None:
    assert condition("context.tenure > 3").holds({}) is None


WRONG = [
    ("context.tenur > 3", "undeclared reference to 'context.tenur'"),
    ("tenure > 3", "undeclared reference to 'tenure'"),
    ("context.dispute || context.nothing", "undeclared reference to 'context.nothing'"),
    ("context", "undeclared reference to 'context'"),
    ("now() > 3", "undeclared reference to 'now'"),
    ("context.tenure >", "Syntax error"),
    ("context.tenure = 3", "Syntax error"),
    ("context.tenure > 3 and context.dispute", "Syntax error"),
    ("(", "Syntax error"),
    (" ", "Syntax error"),
    ("(" * 200 + "true" + ")" * 200, "limit"),
    ("context.plan == 3", "no matching overload"),
    ('context.dispute == "yes"', "no matching overload"),
    ("context.plan", "true or false, got STRING: 'context.plan'"),
    ("context.tenure", "true or false, got DYN: 'context.tenure'"),
    ("1", "true or false, got INT: '1'"),
    ('"true"', "true or false, got STRING"),
    ("null", "true or false, got NULL"),
]


def _limit(expression: str) -> WorkflowSpec:
    return workflow(limits={"first": "true", "second": expression})


def _rule(expression: str) -> WorkflowSpec:
    return workflow(rules=[("true", "call"), (expression, "call")])


@pytest.mark.parametrize(("expression", "expected"), WRONG)
@pytest.mark.parametrize(
    ("declared", "compiled", "field"),
    [
        (_limit, Limits, "guardrails.limits.1.forbid"),
        (_rule, Fallback, "fallback.rules.1.when"),
    ],
)
def test_a_condition_that_can_mean_nothing_is_refused_by_its_field(
    declared: Callable[[str], WorkflowSpec],
    compiled: Callable[[WorkflowSpec], Any],
    field: str,
    expression: str,
    expected: str,
) -> None:
    with pytest.raises(SpecError) as caught:
        compiled(declared(expression))
    message = str(caught.value)
    assert re.match(rf"<text>:\d+: {re.escape(field)}: expected a CEL condition ", message)
    assert message.count("\n") == 0
    assert expected in message


def test_what_may_be_named_is_told() -> None:
    with pytest.raises(SpecError) as caught:
        condition("context.x")
    told = "over context.tenure, context.plan, context.dispute, action.id, action.discount; "
    assert told in str(caught.value)


def test_a_rule_is_not_about_an_action() -> None:
    assert condition("context.dispute", of_action=False).holds(VARIABLES) is False
    with pytest.raises(SpecError, match=r"undeclared reference to 'action\.id'"):
        condition('action.id == "call"', of_action=False)
    with pytest.raises(SpecError, match=r"undeclared reference to 'action\.id'"):
        Fallback(_rule('action.id == "call"'))


def test_a_workflow_without_context_has_nothing_to_name() -> None:
    bare = workflow().model_copy(update={"context": {}})
    with pytest.raises(SpecError, match="nothing: the workflow declares no context"):
        Condition(bare, "some.field", "context.x", of_action=False)
