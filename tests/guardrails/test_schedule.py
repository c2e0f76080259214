"""A schedule that cannot be followed is refused, naming the field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from guardrails.rollouts.schedule import DEFAULT_SCHEDULE, ScheduleError, parse_schedule


def stages(*percents: float, **last: Any) -> dict[str, Any]:
    listed: list[dict[str, Any]] = [{"percent": one} for one in percents]
    listed[-1] |= last
    return {"stages": listed}


@pytest.mark.parametrize(
    ("data", "field", "expected"),
    [
        (stages(5, 1, 100), "stages.1.percent", "stages only go up"),
        (stages(0, 0, 100), "stages.1.percent", "only the first may be shadow"),
        (stages(1, 50), "stages.1.percent", "100 of all accounts at the end"),
        (stages(1, 100, segment="true"), "stages.1.percent", "got 100 of a segment"),
        ({"stages": []}, "stages", "at least 1"),
        ({}, "stages", "a value, got nothing"),
        (stages(1, 101), "stages.1.percent", "less than or equal to 100"),
        (stages(1, 100) | {"speed": 1}, "speed", "no field of this name"),
        (stages(1, 100) | {"alpha_worse": 0}, "alpha_worse", "greater than 0"),
        (stages(1, 100, requires="luck"), "stages.1.requires", "'nothing_bad' or 'not_worse'"),
    ],
)
def test_what_cannot_be_followed_is_refused(
    data: dict[str, Any], field: str, expected: str
) -> None:
    with pytest.raises(ScheduleError) as refused:
        parse_schedule(data)
    assert refused.value.field == field
    assert expected in refused.value.expected


def test_a_schedule_is_what_its_text_says() -> None:
    assert parse_schedule(json.loads(DEFAULT_SCHEDULE.canonical)) == DEFAULT_SCHEDULE


def test_the_default_schedule_exposes_few_before_it_knows() -> None:
    """What the promise of 25 % rests on: no stage of more without proof at the one before."""
    pairs = zip(DEFAULT_SCHEDULE.stages, DEFAULT_SCHEDULE.stages[1:], strict=False)
    assert all(before.requires == "not_worse" for before, after in pairs if after.percent > 10)
