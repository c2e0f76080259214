"""What a workflow's file declares of guardrails and fallback, in words."""

from __future__ import annotations

from typing import NamedTuple

from contract.spec import WorkflowSpec

_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))


class Rule(NamedTuple):
    """One thing that is declared."""

    kind: str
    name: str
    said: str
    code: str
    """The expression it rests on; empty where there is none."""


def rules(spec: WorkflowSpec) -> list[Rule]:
    """All that bounds what may be done, in the order in which it is asked."""
    declared = spec.guardrails
    found = [Rule("limit", one.name, "never where", one.forbid) for one in declared.limits]
    for need in declared.required:
        said = f"{_any(need.actions)} is due"
        if need.every_seconds is not None:
            said += f" every {duration(need.every_seconds)}"
        said += " where" if need.when else ""
        found.append(Rule("required", need.name, said, need.when or ""))
    for cap in declared.caps:
        said = f"{_any(cap.actions)} at most {cap.at_most}× in {duration(cap.window_seconds)}"
        found.append(Rule("cap", cap.name, said, ""))
    for pause in declared.cooldowns:
        said = f"{_any(pause.actions)} at most once in {duration(pause.seconds)}"
        found.append(Rule("cool-down", pause.name, said, ""))
    if (exploration := declared.exploration) is not None:
        for budget in exploration.budgets:
            said = f"{budget.at_most:,} deviations from the fallback in "
            said += duration(budget.window_seconds)
            found.append(Rule("budget", f"per {budget.per}", said, ""))
        if (bound := exploration.conservative) is not None:
            said = f"at most {bound.alpha:.0%} below the fallback, and {bound.credit:g} rewards"
            found.append(Rule("budget", "conservative", said, ""))
    if declared.safe_action is not None:
        found.append(Rule("safe action", declared.safe_action, "when nothing else is left", ""))
    return found


def fallback(spec: WorkflowSpec) -> list[tuple[str, str]]:
    """What the fallback chooses: (condition, action), the first that holds; no condition: else."""
    found = [(rule.when, rule.action) for rule in spec.fallback.rules]
    if spec.fallback.model is not None:
        found.append(("", f"what {spec.fallback.model} expects most of"))
    return [*found, ("", spec.fallback.action)]


def duration(seconds: float) -> str:
    """In the largest unit that it is a whole number of."""
    for size, unit in _UNITS:
        if seconds >= size and seconds % size == 0:
            count = int(seconds // size)
            return f"a {unit}" if count == 1 else f"{count} {unit}s"
    return f"{seconds:g} seconds"


def _any(actions: list[str]) -> str:
    return " or ".join(actions)
