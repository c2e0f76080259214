"""The player: strictly sequential accounts, safe retries, honest errors. No service is needed."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from benchmarks.player import Account, Journey, Player, PlayError, play_all

Answer = Callable[[str, dict[str, Any]], httpx.Response]


def always(action: str) -> Answer:
    def answer(path: str, body: dict[str, Any]) -> httpx.Response:
        if path.endswith("/feedback"):
            return httpx.Response(200, json={"status": "folded"})
        return httpx.Response(201, json={"action": action, "reason": "policy"})

    return answer


class Wire:
    """Answers requests in place of a service, and remembers them in order."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.open = 0
        self.most_open = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await asyncio.sleep(0.001)
            self.requests.append((request.url.path, json.loads(request.content)))
            return self.answer(*self.requests[-1])
        finally:
            self.open -= 1


async def play(wire: Wire, accounts: list[Account], **how: Any) -> list[Journey]:
    transport = httpx.MockTransport(wire)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await play_all(Player(client, "brand-choice", **how), accounts)


async def test_an_account_decides_and_feeds_back_in_turn_under_ids_of_its_own() -> None:
    wire = Wire(always("b"))
    (journey,) = await play(wire, [Account("h1", ("a", "b"))])
    assert wire.requests == [
        (
            "/v1/workflows/brand-choice/decisions",
            {"decision_id": "h1-0", "account_id": "h1", "context": {}},
        ),
        ("/v1/decisions/h1-0/feedback", {"feedback_id": "h1-0", "reward": 0.0}),
        (
            "/v1/workflows/brand-choice/decisions",
            {"decision_id": "h1-1", "account_id": "h1", "context": {}},
        ),
        ("/v1/decisions/h1-1/feedback", {"feedback_id": "h1-1", "reward": 1.0}),
    ]
    assert (journey.actions, journey.rewards) == (["b", "b"], [0.0, 1.0])
    assert journey.reasons == Counter(policy=2)
    assert len(journey.decide_seconds) == 2


async def test_all_accounts_take_turns_with_no_more_requests_in_flight_than_asked_for() -> None:
    wire = Wire(always("a"))
    accounts = [Account(f"h{i}", ("a",) * (1 + i % 5)) for i in range(20)]
    journeys = await play(wire, accounts, in_flight=6)
    assert wire.most_open == 6
    assert [len(journey.rewards) for journey in journeys] == [1 + i % 5 for i in range(20)]
    decided = [body["decision_id"] for _, body in wire.requests if "account_id" in body]
    assert {name.split("-")[1] for name in decided[:20]} == {"0"}, "each has one before any has two"


@pytest.mark.parametrize("trouble", ["refused", "hung up", "busy"])
async def test_a_service_that_is_away_is_asked_the_same_again(trouble: str) -> None:
    failures = iter([True, True])

    def answer(path: str, body: dict[str, Any]) -> httpx.Response:
        if next(failures, False):
            if trouble == "refused":
                raise httpx.ConnectError("refused")
            if trouble == "hung up":
                raise httpx.RemoteProtocolError("hung up")
            return httpx.Response(503, text="the ledger is away")
        return always("a")(path, body)

    wire = Wire(answer)
    (journey,) = await play(wire, [Account("h1", ("a",))])
    assert journey.rewards == [1.0]
    assert wire.requests[0] == wire.requests[1] == wire.requests[2]
    assert len(wire.requests) == 4


async def test_an_error_that_no_retry_mends_ends_the_play_and_is_shown() -> None:
    problem = {"title": "unknown workflow", "detail": "brand-choice is not served here"}
    wire = Wire(lambda path, body: httpx.Response(404, json=problem))
    with pytest.raises(PlayError, match=r"404: .*not served here"):
        await play(wire, [Account(f"h{i}", ("a",)) for i in range(10)])


async def test_patience_with_a_service_that_stays_away_ends() -> None:
    def answer(path: str, body: dict[str, Any]) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(PlayError, match="ConnectError: refused"):
        await play(Wire(answer), [Account("h1", ("a",))], patience_seconds=0.2)
