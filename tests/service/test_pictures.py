"""Decisions on a picture, as base64 in JSON or as its bytes alone: the same decision either way."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator

import httpx
import pytest

from service.settings import Settings
from tests.service.conftest import Client, Open

SEEING = """
schema: 1
workflow: seeing
policy: counting/1
actions: [{id: left}, {id: right}]
context:
  view: {type: image, height: 1, width: 3, channels: 1}
fallback: {action: left}
adaptation: {target: 0.5}
"""
ROUTE = "/v1/workflows/seeing/decisions/picture"
OCTETS = {"Content-Type": "application/octet-stream"}
VIEW = bytes([0, 255, 255])


@pytest.fixture
async def client(settings: Settings, open_client: Open) -> AsyncIterator[Client]:
    """A service that also has a workflow which sees."""
    (settings.workflows / "seeing.yaml").write_text(SEEING)
    async with open_client() as opened:
        yield opened


async def ask(
    client: Client, body: bytes = VIEW, route: str = ROUTE, **sent: str
) -> httpx.Response:
    headers = {"Content-Type": sent.pop("content_type", OCTETS["Content-Type"])}
    return await client.http.post(
        route, content=body, headers=headers, params={"account_id": "maze-1"} | sent
    )


async def test_bytes_and_base64_are_the_same_request(client: Client) -> None:
    first = await ask(client, decision_id="d", episode_id="e")
    assert first.status_code == 200, first.text
    again = await client.decide(
        "maze-1",
        workflow="seeing",
        decision_id="d",
        episode_id="e",
        context={"view": base64.b64encode(VIEW).decode()},
    )
    assert again.content == first.content
    record = (await client.http.get("/v1/decisions/d")).json()
    assert base64.b64decode(record["context"]["view"]) == VIEW


async def test_what_is_seen_reaches_the_memory(client: Client) -> None:
    """Slots of −1, 1 and 1 add up to 1 in the counting policy's memory."""
    answer = (await ask(client)).json()
    learned = await client.learn(answer["decision_id"], reward=1.0)
    assert learned.json()["status"] == "folded"
    second = await ask(client, decision_id="d2")
    assert second.json()["memory_position"] == 1
    told = (await client.http.get("/v1/decisions/d2", params={"rederive": True})).json()
    assert told["rederived"] is not None


@pytest.mark.parametrize(
    ("body", "sent", "status", "field"),
    [
        (b"", {}, 422, "context.view"),
        (VIEW[:2], {}, 422, "context.view"),
        (VIEW * 2, {}, 422, "context.view"),
        (VIEW, {"content_type": "image/png"}, 422, "Content-Type"),
        (VIEW, {"content_type": "application/json"}, 422, "Content-Type"),
        (VIEW, {"account_id": "not an id"}, 422, "account_id"),
        (VIEW, {"route": "/v1/workflows/help/decisions/picture"}, 422, "workflow"),
        (VIEW, {"route": "/v1/workflows/none/decisions/picture"}, 404, "workflow"),
    ],
)
async def test_what_is_no_such_picture_is_refused_and_changes_nothing(
    client: Client, body: bytes, sent: dict[str, str], status: int, field: str
) -> None:
    refused = await ask(client, body, **sent)
    assert refused.status_code == status, refused.text
    assert field in refused.json()["errors"][0]["field"]
    unknown = await client.http.get("/v1/workflows/seeing/accounts/maze-1")
    assert unknown.status_code == 404


@pytest.mark.parametrize("view", [7, None, "!", base64.b64encode(VIEW + b"1").decode(), [0, 1, 2]])
async def test_a_picture_in_json_is_refused_alike(client: Client, view: object) -> None:
    refused = await client.decide("maze-1", workflow="seeing", context={"view": view})
    assert refused.status_code == 422
    (error,) = refused.json()["errors"]
    assert error["field"] == "context.view"
    assert "1×3×1 picture" in error["expected"]


async def test_the_route_is_described_with_its_bytes(client: Client) -> None:
    schema = json.loads((await client.http.get("/openapi.json")).text)
    described = schema["paths"]["/v1/workflows/{workflow}/decisions/picture"]["post"]
    assert "application/octet-stream" in described["requestBody"]["content"]
