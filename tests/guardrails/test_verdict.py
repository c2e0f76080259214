"""The evaluator's verdicts are those of the cases, whatever the order they are asked in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from guardrails.rollouts.cohorts import Comparison
from guardrails.rollouts.schedule import DEFAULT_SCHEDULE, parse_schedule
from guardrails.rollouts.verdict import Evidence, evaluate

CASES = sorted((Path(__file__).parent / "cases").glob("*.json"))


def microseconds(moment: str) -> int:
    return round(datetime.fromisoformat(moment).timestamp() * 1e6)


def comparison(told: Mapping[str, Any]) -> Comparison:
    return Comparison(difference=told["candidate_mean"] - told["control_mean"], **told)


def evidence_of(told: Mapping[str, Any]) -> Evidence:
    fields = dict(told)
    since = microseconds(fields.pop("stage_since"))
    unwatched = round(fields.pop("unwatched_hours", 0) * 3_600e6)
    for name in ("reward", "fallback"):
        if name in fields:
            fields[name] = comparison(fields[name])
    metrics = fields.pop("guardrails", {})
    return Evidence(
        stage_since_us=since,
        unwatched_us=unwatched,
        guardrails={name: comparison(one) for name, one in metrics.items()},
        **fields,
    )


@pytest.mark.parametrize("path", CASES, ids=[path.stem for path in CASES])
def test_the_verdict_is_the_cases(path: Path) -> None:
    case = json.loads(path.read_text())
    assert set(case) <= {"says", "schedule", "now", "evidence", "expected"}
    assert case["says"]
    schedule = parse_schedule(DEFAULT_SCHEDULE.model_dump() | case.get("schedule", {}))
    evidence = evidence_of(case["evidence"])
    verdict = evaluate(schedule, evidence, microseconds(case["now"]))
    expected = case["expected"]
    assert (verdict.kind, verdict.reason) == (expected["verdict"], expected["reason"]), verdict
    assert verdict.detail
    # Nothing is remembered between two calls.
    assert evaluate(schedule, evidence, microseconds(case["now"])) == verdict


def test_there_is_a_case_of_every_verdict() -> None:
    kinds = {json.loads(path.read_text())["expected"]["verdict"] for path in CASES}
    assert kinds == {"advance", "hold", "pause", "rollback"}
