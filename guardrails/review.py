"""What is wrong with a workflow's limits and rules, told before anything is decided by them.

An error is certain, and a workflow with one is not served. A warning comes of trying the conditions
on examples (`guardrails.probes`): most likely a mistake, but it may be meant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from contract.source import Problem
from contract.spec import SpecError, WorkflowSpec
from guardrails.conditions import (
    WRITE_DOUBLES,
    Condition,
    ConditionTable,
    context_variables,
    mixed_numbers,
    names_account,
)
from guardrails.limits import stated_limits
from guardrails.probes import features_named, probes

Context = Mapping[str, Any]
Verdicts = list[list[bool | None]]
"""Whether a condition holds in each context `[B]` of each action `[K]`; None: it cannot be
evaluated."""


class Review(NamedTuple):
    """What was found, each in its place."""

    errors: list[Problem]
    warnings: list[Problem]


class _Stated(NamedTuple):
    """A condition as the spec states it."""

    field: str
    expression: str
    of_action: bool
    if_unknown: str
    """What follows where it cannot be evaluated."""
    of_account: bool = False
    """Whether it may ask something of the account."""


def review(spec: WorkflowSpec) -> Review:
    """What is wrong with the conditions of a spec. Raises nothing."""
    limits = [
        _Stated(f"guardrails.limits.{i}.forbid", limit.forbid, True, "forbids every action", True)
        for i, limit in enumerate(spec.guardrails.limits)
    ]
    required = [
        _Stated(f"guardrails.required.{i}.when", rule.when, False, "counts as due", True)
        for i, rule in enumerate(spec.guardrails.required)
        if rule.when is not None
    ]
    rules = [
        _Stated(f"fallback.rules.{i}.when", rule.when, False, "does not hold")
        for i, rule in enumerate(spec.fallback.rules)
    ]
    found = Review([], [])
    for stated in (*limits, *required, *rules):
        errors = _refusals(spec, stated)
        found.errors.extend(errors)
        if not errors and not _asks(spec, stated):
            _try(spec, stated, found)
    if not found.errors:
        found.warnings.extend(_never_served(spec))
    return found


def _refusals(spec: WorkflowSpec, stated: _Stated) -> list[Problem]:
    """Why a condition can mean nothing, by its text alone."""
    try:
        _compiled(spec, stated)
    except SpecError as error:
        return list(error.problems)
    mixed = mixed_numbers(spec, stated.expression, of_action=stated.of_action)
    return [
        spec.problem(
            stated.field,
            f"expected a double on either side of {operator}, got a double and an integer, which "
            f"CEL cannot calculate with; {WRITE_DOUBLES}. As it is, it {stated.if_unknown}: "
            f"{stated.expression!r}",
        )
        for operator in mixed
    ]


def _try(spec: WorkflowSpec, stated: _Stated, found: Review) -> None:
    """Adds what trying a condition shows."""
    contexts = probes(spec, [stated.expression])
    verdicts = _verdicts(spec, stated, contexts)
    everything = [one for row in verdicts for one in row]
    is_constant = not features_named(spec, [stated.expression])
    tried = _tried(contexts)

    def told(message: str) -> Problem:
        return spec.problem(stated.field, f"{message}: {stated.expression!r}")

    if all(one is None for one in everything):
        found.errors.append(
            told(
                "expected a condition that can be evaluated, got one that cannot, "
                f"{tried}, and so it {stated.if_unknown}"
            )
        )
    elif any(one is None for one in everything):
        example = next(
            context for context, row in zip(contexts, verdicts, strict=True) if None in row
        )
        shown = ", ".join(f"{name} = {value!r}" for name, value in example.items())
        found.warnings.append(
            told(f"cannot be evaluated {f'where {shown}' if shown else 'for some actions'}, and so "
                 f"it {stated.if_unknown} there")
        )  # fmt: skip
    elif stated.of_action and all(everything):
        problem = told(
            f"expected a limit that leaves something, got one that forbids every action {tried}: "
            "nothing but the safe action would ever be served"
        )
        (found.errors if is_constant else found.warnings).append(problem)
    elif not any(everything) and not (stated.of_action and is_constant):
        what = "forbids nothing" if stated.of_action else "does not hold"
        found.warnings.append(told(f"{what} {tried}"))


def _tried(contexts: Sequence[Context]) -> str:
    if contexts == [{}]:
        return "whatever the context"
    return f"in each of {len(contexts)} contexts tried"


def _verdicts(spec: WorkflowSpec, stated: _Stated, contexts: Sequence[Context]) -> Verdicts:
    condition = _compiled(spec, stated)
    if not stated.of_action:
        return [[condition.holds(context_variables(context))] for context in contexts]
    table = ConditionTable(spec, [condition], [stated.expression])
    return [[one for (one,) in row] for row in table.holds(contexts)]


def _compiled(spec: WorkflowSpec, stated: _Stated) -> Condition:
    return Condition(
        spec,
        stated.field,
        stated.expression,
        of_action=stated.of_action,
        of_account=stated.of_account,
    )


def _asks(spec: WorkflowSpec, stated: _Stated) -> bool:
    """Whether a condition that compiles asks something of the account: then trying it on contexts
    says nothing."""
    return stated.of_account and names_account(spec, stated.expression, of_action=stated.of_action)


def _never_served(spec: WorkflowSpec) -> list[Problem]:
    """The actions that limits and what is required together forbid in every context tried, whoever
    the account is."""
    limits = [limit for limit in stated_limits(spec) if not limit.of_account]
    if not limits:
        return []
    expressions = [limit.forbid for limit in limits]
    contexts = probes(spec, expressions)
    conditions = [limit.condition(spec) for limit in limits]
    table = ConditionTable(spec, conditions, expressions).holds(contexts)
    by_action = {
        row: {
            limit.name
            for i, limit in enumerate(limits)
            if any(context[row][i] is not False for context in table)
        }
        for row in range(len(spec.actions))
        if all(any(one is not False for one in context[row]) for context in table)
    }
    if len(by_action) == len(spec.actions):
        everything = [verdict for context in table for verdict in context]
        if any(all(limit) for limit in zip(*everything, strict=True)):
            return []  # said of that limit alone
        message = (
            f"expected to leave something, got limits that together forbid every action "
            f"{_tried(contexts)}: nothing but the safe action would ever be served"
        )
        return [spec.problem("guardrails.limits", message)]
    return [
        spec.problem(
            f"actions.{row}",
            f"{spec.action_ids[row]} is forbidden {_tried(contexts)}, by {', '.join(sorted(by))}",
        )
        for row, by in by_action.items()
    ]
