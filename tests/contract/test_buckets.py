"""Buckets: which of the few groups that a workflow declares a context is in."""

from __future__ import annotations

import pytest

from contract.buckets import buckets_of
from contract.spec import SpecError, parse_workflow
from tests.service.conftest import WORKFLOW

DECLARED = "buckets: {plan: values, tenure: [10, 50.5]}\n"


@pytest.mark.parametrize(
    ("tenure", "label"),
    [(0, "..10"), (9.99, "..10"), (10, "10..50.5"), (50.5, "50.5.."), (100, "50.5..")],
)
def test_a_number_is_in_the_bucket_from_its_lower_end_on(tenure: float, label: str) -> None:
    spec = parse_workflow(WORKFLOW + DECLARED)
    found = buckets_of(spec, {"plan": "basic", "tenure": tenure, "note": "calm"})
    assert found == ["plan=basic", f"tenure={label}"]


def test_a_workflow_that_declares_none_is_the_version_it_was() -> None:
    spec = parse_workflow(WORKFLOW)
    assert buckets_of(spec, {"plan": "basic"}) == []
    assert "buckets" not in spec.canonical
    assert "alarms" not in spec.canonical
    assert parse_workflow(WORKFLOW + DECLARED).sha256 != spec.sha256


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ("buckets: {colour: values}", "buckets.colour"),
        ("buckets: {plan: [1]}", "buckets.plan"),
        ("buckets: {tenure: values}", "buckets.tenure"),
        ("buckets: {tenure: [5, 5]}", "buckets.tenure"),
        ("buckets: {tenure: [100]}", "buckets.tenure"),
        ("buckets: {tenure: []}", "buckets.tenure"),
        ("alarms: {reward_shift: {workflow: reset_memory}}", "alarms.reward_shift.workflow"),
        ("alarms: {memory_health: {bucket: alert}}", "alarms.memory_health.bucket"),
        ("alarms: {noise: {}}", "alarms.noise"),
    ],
)
def test_what_cannot_be_watched_is_refused_by_field(said: str, field: str) -> None:
    with pytest.raises(SpecError) as refused:
        parse_workflow(WORKFLOW + said + "\n")
    assert str(refused.value.problems[0].field).startswith(field)
