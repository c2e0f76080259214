"""The load generator: every request is answered once, and nothing but a 200 counts."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from benchmarks.serving_load import LoadError, Window, closed_loop, encode_request
from benchmarks.serving_payload import (
    DECISION_BATCH,
    FEEDBACK_BATCH,
    REWARDS,
    DecisionBatches,
    Decisions,
    FeedbackBatches,
    FeedbackOf,
    account_id,
    all_served,
)
from benchmarks.serving_rounds import Turn, compared

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
Answer = Callable[[bytes], list[bytes]]
"""The pieces in which a request is answered, each sent by itself."""


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server's port, and the bodies it was sent."""
    bodies: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(int(head.split(b"content-length: ")[1].split()[0]))
                bodies.append(body)
                pieces = answer(body)
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.001 if len(pieces) > 1 else 0)
                if not pieces:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], bodies


def numbered(count: int) -> Callable[[], bytes | None]:
    requests = iter([encode_request(b"/", b"%d" % number) for number in range(count)])
    return lambda: next(requests, None)


async def test_every_request_is_sent_once_and_its_answer_counted() -> None:
    async with serving(lambda _: [OK]) as (port, bodies):
        window = await closed_loop(port, numbered(500), connections=8)
    assert sorted(map(int, bodies)) == list(range(500))
    assert len(window.latencies_ms) == 500
    assert window.rps == pytest.approx(500 / window.seconds)


async def test_an_answer_in_pieces_is_one_answer() -> None:
    async with serving(lambda _: [OK[:9], OK[9:-3], OK[-3:-1], OK[-1:]]) as (port, _):
        window = await closed_loop(port, numbered(10), connections=2)
    assert len(window.latencies_ms) == 10
    assert min(window.latencies_ms) > 2


async def test_the_warm_up_is_sent_and_not_counted() -> None:
    endless = itertools.repeat(encode_request(b"/", b"{}"))
    async with serving(lambda _: [OK]) as (port, bodies):
        window = await closed_loop(
            port, lambda: next(endless), connections=2, warm_up_seconds=0.2, seconds=0.2
        )
    assert 0 < len(window.latencies_ms) < len(bodies)


@pytest.mark.parametrize(
    "pieces",
    [
        [b'HTTP/1.1 422 Unprocessable\r\ncontent-length: 15\r\n\r\n{"field": "me"}'],
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"],
        [OK + OK],
        [],
    ],
    ids=["another status", "no length", "two answers", "no answer"],
)
async def test_a_single_bad_answer_fails_the_run(pieces: list[bytes]) -> None:
    def answer(body: bytes) -> list[bytes]:
        return pieces if body == b"37" else [OK]

    async with serving(answer) as (port, _):
        with pytest.raises(LoadError, match=r"expected|closed a connection"):
            await closed_loop(port, numbered(100), connections=4)


async def test_nobody_listening_is_a_load_error() -> None:
    async with serving(lambda _: [OK]) as (port, _):
        pass
    with pytest.raises(LoadError, match=str(port)):
        await closed_loop(port, numbered(1), connections=1)


def body_of(request: bytes) -> dict[str, object]:
    """The body, which is as long as the head says."""
    head, _, body = request.partition(b"\r\n\r\n")
    assert int(head.split(b"content-length: ")[1].split(b"\r\n")[0]) == len(body)
    parsed: dict[str, object] = json.loads(body)
    return parsed


def test_decisions_carry_an_id_of_their_own_and_are_remembered() -> None:
    requests = Decisions([7, 123_456_789])
    bodies = []
    while (request := requests()) is not None:
        assert request.startswith(b"POST /v1/workflows/retention-offer/decisions HTTP/1.1\r\n")
        bodies.append(body_of(request))
    assert [body["account_id"] for body in bodies] == [account_id(7), account_id(123_456_789)]
    assert [body["decision_id"] for body in bodies] == [one.decode() for one in requests.asked]
    assert len({len(str(body["account_id"])) for body in bodies}) == 1


def test_feedback_goes_to_each_decision_once() -> None:
    requests = FeedbackOf([b"a" * 32, b"b" * 32])
    for decision in ("a", "b"):
        request = requests()
        assert request is not None
        assert request.startswith(f"POST /v1/decisions/{decision * 32}/feedback ".encode())
        assert body_of(request)["reward"] in REWARDS
    assert requests() is None


def test_batches_hold_what_single_requests_would() -> None:
    asking = DecisionBatches(range(5), 2)
    batches = []
    while (request := asking()) is not None:
        assert request.startswith(b"POST " + DECISION_BATCH)
        batches.append(body_of(request)["decisions"])
    assert [len(batch) for batch in batches if isinstance(batch, list)] == [2, 2, 1]
    telling = FeedbackBatches(asking.asked, 4)
    request = telling()
    assert request is not None
    assert request.startswith(b"POST " + FEEDBACK_BATCH)
    feedback = body_of(request)["feedback"]
    assert isinstance(feedback, list)
    assert [one["decision_id"] for one in feedback] == [one.decode() for one in asking.asked[:4]]


def test_a_batch_with_one_item_refused_is_not_served() -> None:
    served = b'{"status":200,"feedback":{"status":"folded"}}'
    assert all_served(b'{"results":[%b,%b]}' % (served, served)) is None
    assert "1 of 2" in str(all_served(b'{"results":[%b,{"status":422}]}' % served))
    assert all_served(b'{"results":[]}') is not None


def test_ratios_are_medians_of_the_ratios_within_a_round() -> None:
    def window(rps: int) -> Window:
        return Window([1_000 / rps] * rps, 1.0)

    echo, service = (1_000, 500, 800), (100, 200, 400)  # ratios of 0.1, 0.4 and 0.5
    turns = {
        name: [Turn(window(rps), window(rps)) for rps in speeds]
        for name, speeds in (("echo", echo), ("embedded", service))
    }
    result = compared(turns)
    assert result["echo"]["rps"] == 800
    assert result["embedded"]["ratio"] == pytest.approx(0.4)
    assert result["embedded"]["p99_ratio"] == pytest.approx(2.5)
    assert result["embedded"]["feedback"]["ratio_min"] == pytest.approx(0.1)
    assert (result["embedded"]["rps_min"], result["embedded"]["rps_max"]) == (100, 400)
