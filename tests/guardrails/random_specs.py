"""Random workflows whose rules are known twice: as CEL in the spec, and as Python here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from hypothesis import strategies as st

from contract.spec import WorkflowSpec, parse_workflow
from guardrails.conditions import Facts

Rule = tuple[str, Callable[[Mapping[str, Any], Facts, str, float], bool]]
"""A condition in CEL, and the same of (context, facts, action id, the action's cost)."""

OF_CONTEXT: list[Rule] = [
    ("context.tenure < 30", lambda c, f, a, x: c["tenure"] < 30),
    ('context.plan == "premium"', lambda c, f, a, x: c["plan"] == "premium"),
    ("context.dispute", lambda c, f, a, x: c["dispute"]),
    ("account.interactions >= 3", lambda c, f, a, x: f.interactions >= 3),
    ('account.phase == "adapted"', lambda c, f, a, x: f.phase == "adapted"),
    ("account.recent_reward > 0.5", lambda c, f, a, x: f.recent_reward > 0.5),
    ("account.age_days < 1", lambda c, f, a, x: f.age_days < 1),
    ("true", lambda c, f, a, x: True),
    ("1 / 0 == 1", lambda c, f, a, x: True),  # cannot be evaluated: it forbids
]
OF_ACTION: list[Rule] = [
    ("action.cost > 2", lambda c, f, a, x: x > 2),
    ('action.id == "a1"', lambda c, f, a, x: a == "a1"),
    ('action.id != "a0"', lambda c, f, a, x: a != "a0"),
    ("action.cost * 10.0 > context.tenure", lambda c, f, a, x: x * 10.0 > c["tenure"]),
]

CONTEXTS = st.fixed_dictionaries(
    {
        "tenure": st.floats(0, 100),
        "plan": st.sampled_from(["basic", "premium"]),
        "dispute": st.booleans(),
    }
)
FACTS = st.builds(
    Facts,
    interactions=st.integers(0, 6).map(float),
    age_days=st.floats(0, 3),
    phase=st.sampled_from(["adapting", "adapted", "regressed"]),
    recent_reward=st.floats(0, 1),
)


@dataclass(frozen=True)
class Drawn:
    """A workflow, and what it means."""

    spec: WorkflowSpec
    forbidden: dict[str, Callable[[Mapping[str, Any], Facts, str], bool]]
    """By name of the limit, or of what is required whenever something holds."""
    due: dict[str, tuple[frozenset[str], float, Callable[[Mapping[str, Any], Facts], bool]]]
    caps: dict[str, tuple[frozenset[str], int, float]]
    """Cool-downs too: (actions, at most, seconds)."""


@st.composite
def workflows(draw: st.DrawFn) -> Drawn:
    """Any workflow of up to six actions, of which the first is safe."""
    ids = [f"a{i}" for i in range(draw(st.integers(2, 6)))]
    costs = {one: draw(st.sampled_from([0.0, 1.0, 2.5, 5.0])) for one in ids}
    some = st.sets(st.sampled_from(ids), min_size=1)
    rationed = st.sets(st.sampled_from(ids[1:]), min_size=1)
    forbidden: dict[str, Any] = {}
    limits, required, caps, cooldowns = [], [], [], []
    for i in range(draw(st.integers(0, 3))):
        of_action = draw(st.sampled_from(OF_ACTION))
        of_context = draw(st.sampled_from(OF_CONTEXT))
        forbid = f"({of_action[0]}) && ({of_context[0]})"
        limits.append({"name": f"limit{i}", "forbid": forbid})
        forbidden[f"limit{i}"] = _both(of_action, of_context, costs)
    meant_caps: dict[str, Any] = {}
    for i in range(draw(st.integers(0, 2))):
        actions, most = sorted(draw(rationed)), draw(st.integers(1, 3))
        seconds = draw(st.sampled_from([1.0, 5.0, 20.0]))
        caps.append(
            {"name": f"cap{i}", "actions": actions, "at_most": most, "window_seconds": seconds}
        )
        meant_caps[f"cap{i}"] = frozenset(actions), most, seconds
    for i in range(draw(st.integers(0, 2))):
        actions, seconds = sorted(draw(rationed)), draw(st.sampled_from([1.0, 5.0, 20.0]))
        cooldowns.append({"name": f"cool{i}", "actions": actions, "seconds": seconds})
        meant_caps[f"cool{i}"] = frozenset(actions), 1, seconds
    due: dict[str, Any] = {}
    for i in range(draw(st.integers(0, 2))):
        actions = sorted(draw(some) | {"a0"})
        when = draw(st.sampled_from(OF_CONTEXT))
        rule: dict[str, Any] = {"name": f"due{i}", "actions": actions, "when": when[0]}
        if draw(st.booleans()):
            rule["every_seconds"] = draw(st.sampled_from([1.0, 5.0]))
            due[f"due{i}"] = frozenset(actions), rule["every_seconds"], _when(when)
        else:
            forbidden[f"due{i}"] = _not_among(when, frozenset(actions))
        required.append(rule)
    body = {
        "schema": 1,
        "workflow": "any",
        "actions": [{"id": one, "features": {"cost": costs[one]}} for one in ids],
        "context": {
            "tenure": {"type": "number", "min": 0, "max": 100},
            "plan": {"type": "category", "values": ["basic", "premium"]},
            "dispute": {"type": "boolean"},
        },
        "guardrails": {
            "limits": limits,
            "required": required,
            "caps": caps,
            "cooldowns": cooldowns,
            "safe_action": "a0",
        },
        "fallback": {"action": draw(st.sampled_from(ids))},
        "adaptation": {"target": 0.5},
    }
    return Drawn(parse_workflow(yaml.safe_dump(body)), forbidden, due, meant_caps)


def _both(one: Rule, other: Rule, costs: Mapping[str, float]) -> Callable[..., bool]:
    return lambda c, f, a: one[1](c, f, a, costs[a]) and other[1](c, f, a, costs[a])


def _when(rule: Rule) -> Callable[..., bool]:
    return lambda c, f: rule[1](c, f, "", 0.0)


def _not_among(rule: Rule, actions: frozenset[str]) -> Callable[..., bool]:
    return lambda c, f, a: a not in actions and rule[1](c, f, a, 0.0)
