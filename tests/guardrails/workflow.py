"""A workflow with a context of every type, to hang limits and rules on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from contract.spec import WorkflowSpec, parse_workflow

SPEC = """
schema: 1
workflow: offer
policy: counting/1
actions:
  - {{id: nothing, features: {{discount: 0}}}}
  - {{id: call, features: {{discount: 0}}}}
  - {{id: small, features: {{discount: 0.1}}}}
  - {{id: large, features: {{discount: 0.3}}}}
context:
  tenure: {{type: number, min: 0, max: 100}}
  plan: {{type: category, values: [basic, premium]}}
  dispute: {{type: boolean, feeds: rules}}
guardrails: {{limits: {limits}, safe_action: {safe}}}
fallback: {{rules: {rules}, action: {action}}}
adaptation: {{target: 0.5}}
"""

ACTIONS = ("nothing", "call", "small", "large")
CONTEXT = {"tenure": 12.0, "plan": "premium", "dispute": False}


def workflow(
    limits: Mapping[str, str] | None = None,
    rules: Sequence[tuple[str, str]] = (),
    safe: str | None = "nothing",
    action: str = "nothing",
) -> WorkflowSpec:
    """The workflow with limits {name: forbid}, rules (when, action) and what they fall back on."""
    return parse_workflow(
        SPEC.format(
            limits=json.dumps([{"name": k, "forbid": v} for k, v in (limits or {}).items()]),
            rules=json.dumps([{"when": when, "action": one} for when, one in rules]),
            safe=json.dumps(safe),
            action=action,
        )
    )
