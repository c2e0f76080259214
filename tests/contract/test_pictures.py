"""Pictures in a context: their bytes, in a text that JSON can carry, and what is refused."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from contract.encode import ContextError, check_context, context_size, encode_context
from contract.spec import SpecError, WorkflowSpec, parse_workflow
from guardrails.conditions import Condition

SPEC = """
schema: 1
workflow: seeing
actions: [{id: a}, {id: b}]
context:
  view: {type: image, height: 2, width: 3, channels: 1}
  after: {type: boolean}
fallback: {action: a}
adaptation: {target: 0.5}
"""


SHAPE = {"height": 2, "channels": 1}


def spec(changed: str = SPEC) -> WorkflowSpec:
    return parse_workflow(changed)


def sent(data: bytes) -> dict[str, object]:
    return {"view": base64.b64encode(data).decode(), "after": True}


def test_a_byte_takes_a_slot_and_runs_from_minus_one_to_one() -> None:
    context, clipped = check_context(spec(), sent(bytes([0, 51, 102, 153, 204, 255])))
    assert context_size(spec()) == 7
    encoded = encode_context(spec(), context, 8)
    np.testing.assert_allclose(encoded, [1, -1, -0.6, -0.2, 0.2, 0.6, 1, 0], atol=1e-6)
    assert clipped == ()


@pytest.mark.parametrize(
    ("view", "cause", "said"),
    [
        (None, "missing", "got nothing"),
        (7, "mistyped", "got 7"),
        ("not base64!", "mistyped", "other text"),
        ("ÿ", "mistyped", "other text"),
        (base64.b64encode(bytes(5)).decode(), "out_of_range", "got 5 bytes"),
        (base64.b64encode(bytes(18)).decode(), "out_of_range", "got 18 bytes"),
    ],
)
def test_what_is_no_picture_of_that_shape_is_refused(view: object, cause: str, said: str) -> None:
    with pytest.raises(ContextError) as refused:
        check_context(spec(), {"view": view, "after": True})
    assert refused.value.field == "context.view"
    assert refused.value.cause == cause
    assert "base64 of the 6 bytes of a 2×3×1 picture" in refused.value.expected
    assert said in refused.value.expected


@pytest.mark.parametrize(
    ("wrong", "field"),
    [("height: 0", "height"), ("height: 257", "height"), ("channels: 2", "channels")],
)
def test_a_picture_has_a_shape_that_can_be_served(wrong: str, field: str) -> None:
    right = f"{field}: {SHAPE[field]}"
    with pytest.raises(SpecError, match=field):
        spec(SPEC.replace(right, wrong))


def test_no_limit_or_rule_can_name_a_picture() -> None:
    with pytest.raises(SpecError, match=r"expected a CEL condition over context\.after"):
        Condition(spec(), "fallback.rules.0.when", 'context.view == ""', of_action=False)
    condition = Condition(spec(), "fallback.rules.0.when", "context.after", of_action=False)
    assert condition.holds({"context.view": "AAAA", "context.after": True}) is True
