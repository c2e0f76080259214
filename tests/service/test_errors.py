"""Bad input gets a problem that names the field and what was expected, and changes nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import func, select

from service.ledger import tables
from tests.service.conftest import CONTEXT, Client

DECISIONS = "/v1/workflows/help/decisions"
FEEDBACK = "/v1/decisions/known/feedback"


def body(**changes: Any) -> bytes:
    """A decision's body with some fields changed; None takes a field away."""
    whole = {"account_id": "b", "context": CONTEXT} | changes
    return json.dumps({key: value for key, value in whole.items() if value is not None}).encode()


def context(**changes: Any) -> bytes:
    """A decision's body with some of its context changed; ... takes a feature away."""
    whole = {key: value for key, value in (CONTEXT | changes).items() if value is not ...}
    return body(context=whole)


CASES = [
    ("/v1/workflows/nope/decisions", body(), 404, "workflow", "help"),
    ("/v1/workflows/help/decision", body(), 404, None, None),
    (DECISIONS, b'{"account_id": "b"', 400, "body", "JSON"),
    (DECISIONS, b"", 422, "body", "value"),
    (DECISIONS, b"[]", 422, "body", "object"),
    (DECISIONS, b"\xff\xfe", 400, "body", "JSON"),
    (DECISIONS, body(account_id=None), 422, "account_id", "a value, got nothing"),
    (DECISIONS, body(account_id=7), 422, "account_id", "string"),
    (DECISIONS, body(account_id=""), 422, "account_id", "1 to 128 characters"),
    (DECISIONS, body(account_id="a/b"), 422, "account_id", "1 to 128 characters"),
    (DECISIONS, body(account_id="a\n"), 422, "account_id", "1 to 128 characters"),
    (DECISIONS, body(account_id="a" * 129), 422, "account_id", "1 to 128 characters"),
    (DECISIONS, body(decision_id="ä"), 422, "decision_id", "1 to 128 characters"),
    (DECISIONS, body(extra=1), 422, "extra", "no field of this name"),
    (DECISIONS, body(actions=[]), 422, "actions", "at least 1"),
    (DECISIONS, body(actions=["fly"]), 422, "actions", "'wait', 'mail', 'call'"),
    (DECISIONS, body(actions=["mail", "mail"]), 422, "actions", "each once"),
    (DECISIONS, body(context=[]), 422, "context", "dictionary"),
    (DECISIONS, context(tenure=...), 422, "context.tenure", "a number in [0, 100], got nothing"),
    (DECISIONS, context(tenure="long"), 422, "context.tenure", "a number in [0, 100], got 'long'"),
    (DECISIONS, context(tenure=True), 422, "context.tenure", "a number in [0, 100]"),
    (DECISIONS, context(tenure=None), 422, "context.tenure", "a number in [0, 100]"),
    (DECISIONS, context(tenure=101), 422, "context.tenure", "a number in [0, 100], got 101"),
    (DECISIONS, context(tenure=float("nan")), 422, "context.tenure", "not finite"),
    (DECISIONS, context(tenure=float("inf")), 422, "context.tenure", "not finite"),
    (DECISIONS, context(tenure=10**400), 422, "context.tenure", "a number in [0, 100]"),
    (DECISIONS, context(plan="gold"), 422, "context.plan", "['basic', 'premium'], got 'gold'"),
    (DECISIONS, context(plan=["basic"]), 422, "context.plan", "['basic', 'premium']"),
    (DECISIONS, context(plan="\ud800"), 422, "context.plan", "['basic', 'premium']"),
    (DECISIONS, context(mood="good"), 422, "context.mood", "a declared feature (tenure"),
    ("/v1/decisions/unknown/feedback", b'{"reward": 1}', 404, "decision_id", "got unknown"),
    (FEEDBACK, b"{}", 422, "reward", "either a reward or an outcome"),
    (FEEDBACK, b'{"reward": 1, "outcome": "solved"}', 422, "reward", "not both"),
    (FEEDBACK, b'{"reward": 3.5}', 422, "reward", "a number in [-1, 3], got 3.5"),
    (FEEDBACK, b'{"reward": NaN}', 422, "reward", "finite"),
    (FEEDBACK, b'{"reward": "1"}', 422, "reward", "number"),
    (FEEDBACK, b'{"reward": true}', 422, "reward", "number"),
    (FEEDBACK, b'{"outcome": "lost"}', 422, "outcome", "['solved', 'unsolved']"),
    (FEEDBACK, b'{"reward": 1, "episode_end": 1}', 422, "episode_end", "boolean"),
    (FEEDBACK, b'{"reward": 1, "occurred_at": "yesterday"}', 422, "occurred_at", "datetime"),
    (FEEDBACK, b'{"reward": 1, "occurred_at": "2027-01-01T00:00:00"}', 422, "occurred_at", "timez"),
    (FEEDBACK, b'{"reward": 1, "feedback_id": "a b"}', 422, "feedback_id", "characters"),
    (FEEDBACK, b'{"reward": 1', 400, "body", "JSON"),
]


async def rows(client: Client) -> dict[str, int]:
    """How many rows each of the ledger's tables has."""
    names = ("accounts", "decisions", "feedback")
    return await client.service.ledger.read(
        lambda connection: {
            name: connection.scalar(select(func.count()).select_from(tables.metadata.tables[name]))
            or 0
            for name in names
        }
    )


@pytest.mark.parametrize(("path", "sent", "status", "field", "expected"), CASES)
async def test_bad_input_is_a_problem_that_names_the_field_and_changes_nothing(
    client: Client, path: str, sent: bytes, status: int, field: str | None, expected: str | None
) -> None:
    await client.decide("a", decision_id="known")
    before = await rows(client)
    answer = await client.http.post(
        path, content=sent, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["type"].startswith("urn:acclimate:problem:")
    if field is not None and expected is not None:
        assert [one["field"] for one in problem["errors"]] == [field]
        assert expected in problem["errors"][0]["expected"]
        assert field in problem["detail"]
    assert len(answer.content) < 2_000  # input is not echoed at length
    assert await rows(client) == before


async def test_a_body_of_ten_megabytes_is_refused_before_it_is_parsed(client: Client) -> None:
    huge = b'{"account_id": "' + b"a" * 10_000_000 + b'"}'

    async def chunks() -> Any:
        for start in range(0, len(huge), 100_000):
            yield huge[start : start + 100_000]

    for content in (huge, chunks()):
        answer = await client.http.post(DECISIONS, content=content)
        assert answer.status_code == 413
        assert answer.json()["errors"] == [{"field": "body", "expected": "at most 1000000 bytes"}]
    assert (await rows(client))["decisions"] == 0


@pytest.mark.parametrize("tenant", ["", "UPPER", "a b", "-x", "a" * 65])
async def test_a_tenant_that_is_no_name_is_refused(client: Client, tenant: str) -> None:
    answer = await client.decide("a", tenant=tenant)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "X-Acclimate-Tenant"


async def test_other_methods_and_paths_are_problems_too(client: Client) -> None:
    for method, path, status in (("PUT", DECISIONS, 405), ("GET", "/v2", 404)):
        answer = await client.http.request(method, path)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"


async def test_a_ledger_that_cannot_commit_is_503_and_nothing_half_done(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = await client.decide("a", decision_id="d")
    monkeypatch.setattr(client.service.ledger._commits._engine, "begin", _disk_full)
    for refused in (await client.decide("a"), await client.learn("d", reward=3)):
        assert refused.status_code == 503
        assert refused.json()["type"] == "urn:acclimate:problem:ledger-unavailable"
    monkeypatch.undo()
    after = await client.decide("a", decision_id="d")
    assert after.content == answer.content
    assert (await client.decide("a")).json()["memory_position"] == 0
    assert (await rows(client)) == {"accounts": 1, "decisions": 2, "feedback": 0}


def _disk_full(*_: object) -> Any:
    raise OSError(28, "No space left on device")


async def test_every_route_documents_its_problems(client: Client) -> None:
    paths = (await client.http.get("/openapi.json")).json()["paths"]
    for path, operations in paths.items():
        for operation in operations.values():
            if path.startswith("/v1/") and path != "/v1/workflows":
                problems = [code for code in operation["responses"] if code.startswith(("4", "5"))]
                assert "404" in problems, path
                for code in problems:
                    content = operation["responses"][code]["content"]
                    assert list(content) == ["application/problem+json"], (path, code)
