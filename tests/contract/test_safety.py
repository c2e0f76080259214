"""What a file declares of its guardrails is taken whole, or refused by file, line and field."""

from __future__ import annotations

import pytest

from contract.spec import SpecError, parse_workflow

SPEC = """\
schema: 1
workflow: offers
actions:
  - id: nothing
  - id: call
  - id: mail
context:
  angry: {type: boolean}
guardrails:
  required:
    - name: checked
      actions: [nothing, call]
      every_seconds: 60
  caps:
    - name: few
      actions: [call, mail]
      at_most: 2
      window_seconds: 3600
  cooldowns:
    - name: rest
      actions: [call]
      seconds: 30
  exploration:
    fallback_reward: 0.5
    budgets:
      - {per: account, at_most: 3, window_seconds: 60}
    conservative: {alpha: 0.1, credit: 2}
  safe_action: nothing
fallback: {action: nothing}
adaptation: {target: 0.5}
"""

# What is wrong: (text of SPEC, what it becomes, with # HERE on the line to be named; the field to
# be named; what was expected).
MISTAKES = {
    "a cap on an action that is none": (
        "actions: [call, mail]\n",
        "actions: [call, post] # HERE\n",
        "guardrails.caps.0.actions.1",
        "must be one of ['nothing', 'call', 'mail'], got 'post'",
    ),
    "a cap of nothing": (
        "at_most: 2\n",
        "at_most: 0 # HERE\n",
        "guardrails.caps.0.at_most",
        "greater than or equal to 1",
    ),
    "a cap without a window": (
        "      at_most: 2\n      window_seconds: 3600\n",
        "      at_most: 2\n",
        "guardrails.caps.0.window_seconds",
        "Field required",
    ),
    "a window that never ends": (
        "window_seconds: 3600\n",
        "window_seconds: .inf # HERE\n",
        "guardrails.caps.0.window_seconds",
        "finite number",
    ),
    "an action twice": (
        "    - name: few\n      actions: [call, mail]\n",
        "    - name: few # HERE\n      actions: [call, call]\n",
        "guardrails.caps.0",
        "actions must be distinct, got ['call'] more than once",
    ),
    "a cool-down of no time": (
        "seconds: 30\n",
        "seconds: 0 # HERE\n",
        "guardrails.cooldowns.0.seconds",
        "greater than 0",
    ),
    "a safe action that may be capped": (
        "actions: [call, mail]\n",
        "actions: [call, nothing] # HERE\n",
        "guardrails.caps.0.actions.1",
        "must not name the safe action, nothing: it is what is served when nothing else is left",
    ),
    "a safe action that may rest": (
        "      actions: [call]\n",
        "      actions: [nothing] # HERE\n",
        "guardrails.cooldowns.0.actions.0",
        "must not name the safe action",
    ),
    "a cap without a safe action": (
        "  safe_action: nothing\n",
        "",
        "guardrails.safe_action",
        "must be declared when there are required: it is served when they leave nothing else",
    ),
    "what is required and can be capped away": (
        "actions: [nothing, call]\n",
        "actions: [call, mail] # HERE\n",
        "guardrails.required.0.actions",
        "must name an action that no cap and no cool-down can take away, got ['call', 'mail']",
    ),
    "what is required never": (
        "    - name: checked\n      actions: [nothing, call]\n      every_seconds: 60\n",
        "    - name: checked # HERE\n      actions: [nothing, call]\n",
        "guardrails.required.0",
        "expected `when`, `every_seconds` or both: it is never due",
    ),
    "one name for two rules": (
        "name: rest\n",
        "name: few\n",
        "guardrails",
        "must be distinct, got ['few'] more than once",
    ),
    "a mean that no reward has": (
        "fallback_reward: 0.5\n",
        "fallback_reward: 1.5 # HERE\n",
        "guardrails.exploration.fallback_reward",
        "must be in [0, 1], got 1.5",
    ),
    "a budget of nobody": (
        "{per: account,",
        "{per: customer, # HERE\n     ",
        "guardrails.exploration.budgets.0.per",
        "'account', 'tenant' or 'workflow'",
    ),
    "two budgets of one": (
        "      - {per: account, at_most: 3, window_seconds: 60}\n",
        "      - {per: account, at_most: 3, window_seconds: 60}\n" * 2,
        "guardrails.exploration",
        "budgets must be distinct, got ['account'] more than once",
    ),
    "a rule that gives all up": (
        "alpha: 0.1,",
        "alpha: 1, # HERE\n     ",
        "guardrails.exploration.conservative.alpha",
        "less than 1",
    ),
    "exploration without bounds": (
        "    budgets:\n      - {per: account, at_most: 3, window_seconds: 60}\n"
        "    conservative: {alpha: 0.1, credit: 2}\n",
        "",
        "guardrails.exploration",
        "expected `budgets`, `conservative` or both: nothing is bounded",
    ),
    "a field nobody knows": (
        "at_most: 2\n",
        "at_most: 2\n      per: day # HERE\n",
        "guardrails.caps.0.per",
        "unknown field",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused_with_its_file_line_and_field(mistake: str) -> None:
    old, new, field, expected = MISTAKES[mistake]
    assert old in SPEC
    text = SPEC.replace(old, new, 1)
    line = text[: text.index("# HERE")].count("\n") + 1 if "# HERE" in text else None
    with pytest.raises(SpecError) as caught:
        parse_workflow(text, "offers.yaml")
    message = str(caught.value)
    place, told = message.split(": ", 1)
    assert told.startswith(field), message
    assert expected in told
    if line is not None:
        assert place == f"offers.yaml:{line}"


def test_what_a_file_does_not_say_makes_no_other_version() -> None:
    bare = SPEC[: SPEC.index("  required:")] + SPEC[SPEC.index("  safe_action:") :]
    spec = parse_workflow(bare)
    assert '"guardrails":{"limits":[],"safe_action":"nothing"}' in spec.canonical
    whole = parse_workflow(SPEC)
    assert whole.sha256 != spec.sha256
    again = type(whole).model_validate_json(whole.canonical)
    assert again.sha256 == whole.sha256
