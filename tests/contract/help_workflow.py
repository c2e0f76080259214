"""A workflow file with something of everything, and what is said of one that is wrong."""

from __future__ import annotations

import pytest

from contract.spec import SpecError, parse_workflow

SPEC = """\
schema: 1
workflow: help
description: What to do next.
policy: counting/1
horizon: {interactions: 20, floor: 0.1}
actions:
  - id: wait
    features: {cost: 0}
  - id: mail
    features: {cost: 1.5}
context:
  age: {type: number, min: 0, max: 10}
  plan: {type: category, values: [basic, premium]}
  angry: {type: boolean}
reward:
  min: -1
  max: 3
  outcomes: {solved: 3, unsolved: -1}
feedback: {window_seconds: 100, default_reward: -1}
guardrails:
  limits:
    - name: cheap_only
      forbid: action.cost > 1
  safe_action: wait
fallback:
  rules:
    - when: context.angry
      action: mail
  action: wait
adaptation: {target: 2, window: 3, level: 0.6, hysteresis: 0.1}
"""

FILE = "help.yaml"
ADAPTATION = "adaptation: {target: 2, window: 3, level: 0.6, hysteresis: 0.1}"

Mistake = tuple[str, str, str, str]
"""Text of SPEC; what it becomes, with # HERE on the line to be named, without it line 1; the field
to be named; what was expected."""


def assert_told(mistake: Mistake, beside: tuple[str, str] = ("", "")) -> None:
    """The file is refused with the line and the field. `beside` is edited as well."""
    old, new, field, expected = mistake
    text = SPEC
    for one, other in ((old, new), beside):
        assert one in text
        text = text.replace(one, other, 1)
    line = text[: text.index("# HERE")].count("\n") + 1 if "# HERE" in text else 1
    with pytest.raises(SpecError) as caught:
        parse_workflow(text, FILE)
    message = str(caught.value)
    assert message.startswith(f"{FILE}:{line}: {field}"), message
    assert expected in message
