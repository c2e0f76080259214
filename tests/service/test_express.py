"""The express way answers as FastAPI's own does, byte for byte."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from service.api import batch, schemas
from service.app import create_app
from tests.service.conftest import CONTEXT, Client
from tests.service.test_errors import CASES, DECISIONS, FEEDBACK, body

EXPRESS, FASTAPI = b"application/json", b"Application/JSON"
"""The same content type, once as the express way knows it."""


async def both(
    client: Client, path: str, sent: bytes, *headers: tuple[bytes, bytes]
) -> list[tuple[int, dict[str, str], bytes]]:
    """What either way answers."""
    answers = [
        await client.http.post(
            path,
            content=sent,
            headers=[(b"Content-Type", one), (b"X-Request-ID", b"one"), *headers],
        )
        for one in (EXPRESS, FASTAPI)
    ]
    return [(one.status_code, dict(one.headers), one.content) for one in answers]


@pytest.mark.parametrize(("path", "sent"), [case[:2] for case in CASES])
async def test_a_request_that_is_off_gets_the_same_answer_by_either_way(
    client: Client, path: str, sent: bytes
) -> None:
    await client.decide("a", decision_id="known")
    express, fastapi = await both(client, path, sent)
    assert express == fastapi
    assert express[0] >= 400


@pytest.mark.parametrize("tenant", ["", "UPPER", "a\u00e9", "one", "a" * 65])
async def test_tenants_are_read_the_same_by_either_way(client: Client, tenant: str) -> None:
    header = (b"X-Acclimate-Tenant", tenant.encode("latin-1"))
    for path, sent in (
        (DECISIONS, body(decision_id="d")),
        (FEEDBACK, b'{"reward": 1}'),
        ("/v1/decisions/a%20b/feedback", b'{"reward": 1}'),
        ("/v1/workflows/nope/decisions", body()),
    ):
        express, fastapi = await both(client, path, sent, header)
        assert express == fastapi


async def test_answers_are_what_the_documented_models_would_write(client: Client) -> None:
    items = [
        {"decision_id": f"d{i}", "account_id": "a", "context": CONTEXT | {"tenure": i}}
        for i in range(20)
    ]
    for one in items:
        express, fastapi = await both(client, DECISIONS, json.dumps(one).encode())
        assert express == fastapi
        read = schemas.DecisionAnswer.model_validate_json(express[2])
        assert read.model_dump_json().encode() == express[2]
    for i, reward in enumerate((1e-7, 0.1, -1, 2.5e-05, 3)):
        given = json.dumps({"reward": reward, "feedback_id": "f" if i % 2 else None}).encode()
        answer = await client.http.post(
            f"/v1/decisions/d{i}/feedback", content=given, headers=[(b"Content-Type", EXPRESS)]
        )
        learned = schemas.FeedbackAnswer.model_validate_json(answer.content)
        assert learned.model_dump_json().encode() == answer.content
    many = json.dumps({"decisions": [*items, {}]}).encode()
    express, fastapi = await both(client, DECISIONS + "/batch", many)
    assert express == fastapi
    results = batch.DecisionResults.model_validate_json(express[2])
    assert results.model_dump_json(exclude_unset=True).encode() == express[2]


async def test_a_body_in_pieces_is_read_whole(client: Client) -> None:
    async def pieces() -> Any:
        for byte in body(decision_id="d"):
            yield bytes([byte])

    answer = await client.http.post(
        DECISIONS, content=pieces(), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 200


async def test_a_mistake_of_ours_is_answered_and_raised_on_for_the_log(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise KeyError("a mistake")

    monkeypatch.setattr(client.service.decider, "decide", fail)
    express, fastapi = await both(client, DECISIONS, body())
    assert express == fastapi
    assert express[0] == 500
    transport = httpx.ASGITransport(create_app(client.service), raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        with pytest.raises(KeyError):
            await http.post(DECISIONS, content=body(), headers=[(b"Content-Type", EXPRESS)])
