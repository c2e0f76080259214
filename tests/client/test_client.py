"""The client against a live service: typed answers and errors, and retries that count once."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from acclimate_client import (
    Ask,
    AsyncClient,
    Client,
    Decision,
    IdConflictError,
    InvalidRequestError,
    Learned,
    NotFoundError,
    Retries,
    Tell,
    UnavailableError,
)
from tests.service_process import ServiceProcess

Start = Callable[..., ServiceProcess]
CONTEXT = {
    "tenure_months": 12,
    "plan": "basic",
    "trigger": "price",
    "usage": 0.5,
    "offers_lately": 0,
    "cancelled": False,
    "season_sin": 0,
    "season_cos": 1,
    "region": "north",
    "in_dispute": False,
}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a live service."""
    service = ServiceProcess(tmp_path_factory.mktemp("client"))
    service.start()
    yield service.base_url
    service.terminate()


def test_a_decision_and_its_feedback_are_typed(live: str) -> None:
    with Client(live) as client:
        decision = client.decide("retention-offer", "typed", CONTEXT, actions=["discount_10"])
        assert (decision.action, decision.reason, decision.probability) == (
            "discount_10",
            "policy",
            1.0,
        )
        assert decision.expires_at > datetime.now(UTC)
        learned = client.learn(
            decision.decision_id, outcome="stayed", occurred_at=datetime.now(UTC)
        )
        assert (learned.status, learned.reward, learned.memory_position) == ("folded", 1.0, 1)
        assert client.decide("retention-offer", "typed", CONTEXT).memory_position == 1


async def test_the_async_client_does_the_same(live: str) -> None:
    async with AsyncClient(live) as client:
        decision = await client.decide("brand-choice", "async")
        learned = await client.learn(decision.decision_id, reward=1)
        assert learned.status == "folded"
        assert (await client.decide("brand-choice", "async")).memory_position == 1
        with pytest.raises(NotFoundError):
            await client.learn("nobody-knows", reward=1)


def test_errors_are_typed_and_name_the_fields(live: str) -> None:
    with Client(live) as client:
        with pytest.raises(NotFoundError, match="workflow"):
            client.decide("nope", "a")
        with pytest.raises(InvalidRequestError) as refused:
            client.decide("retention-offer", "a", CONTEXT | {"plan": "gold"})
        assert refused.value.fields == ("context.plan",)
        assert refused.value.status == 422
        first = client.decide("brand-choice", "a", decision_id="mine")
        assert client.decide("brand-choice", "a", decision_id="mine") == first
        with pytest.raises(IdConflictError):
            client.decide("brand-choice", "b", decision_id="mine")


def test_many_decisions_and_their_feedback_come_back_typed_in_order(live: str) -> None:
    asks = [Ask(f"many-{i}") for i in range(300)]
    asks[7] = Ask("many-7", {"mood": "good"})
    with Client(live) as client:
        decisions = client.decide_many("brand-choice", asks)
        refused = decisions.pop(7)
        assert isinstance(refused, InvalidRequestError)
        assert refused.fields == ("decisions.7.context.mood",)
        made = [one for one in decisions if isinstance(one, Decision)]
        assert [one.account_id for one in made] == [f"many-{i}" for i in range(300) if i != 7]
        told = [Tell(one.decision_id, reward=1) for one in made]
        learned = client.learn_many([*told, Tell("nobody-knows", reward=1)])
        assert isinstance(learned.pop(), NotFoundError)
        assert {one.status for one in learned if isinstance(one, Learned)} == {"folded"}
        assert client.decide("brand-choice", "many-299").memory_position == 1
        assert client.decide_many("brand-choice", []) == client.learn_many([]) == []
        with pytest.raises(NotFoundError):
            client.decide_many("nope", asks)


async def test_the_async_client_sends_many_too(live: str) -> None:
    async with AsyncClient(live) as client:
        (decision,) = await client.decide_many("brand-choice", [Ask("async-many")])
        assert isinstance(decision, Decision)
        told = [Tell(decision.decision_id, reward=1)] * 2
        learned = await client.learn_many(told)
        statuses = [one.status for one in learned if isinstance(one, Learned)]
        assert statuses == ["folded", "duplicate"]


def test_a_batch_of_which_some_was_not_taken_is_sent_again_with_the_same_ids(live: str) -> None:
    sent: list[bytes] = []

    class TakesHalf(httpx.HTTPTransport):
        """Says once that the last item was not taken."""

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            sent.append(request.read())
            response = super().handle_request(request)
            if len(sent) > 1:
                return response
            answer = json.loads(response.read())
            answer["results"][-1] = {"status": 503, "problem": {"status": 503}}
            return httpx.Response(200, json=answer)

    with Client(live, transport=TakesHalf()) as client:
        decisions = client.decide_many("brand-choice", [Ask("half-a"), Ask("half-b")])
    assert len(sent) == 2
    assert sent[0] == sent[1]
    assert all(isinstance(one, Decision) for one in decisions)
    with Client(live, transport=TakesHalf(), retries=Retries(attempts=1)) as client:
        sent.clear()
        taken, not_taken = client.decide_many("brand-choice", [Ask("half-a"), Ask("half-b")])
    assert isinstance(taken, Decision)
    assert isinstance(not_taken, UnavailableError)


def test_tenants_are_kept_apart(live: str) -> None:
    with Client(live, tenant="one") as one, Client(live, tenant="two") as two:
        decision = one.decide("brand-choice", "a")
        with pytest.raises(NotFoundError):
            two.learn(decision.decision_id, reward=1)


def test_an_answer_that_got_lost_is_asked_for_again_and_counts_once(live: str) -> None:
    lost = {"decisions": 2, "feedback": 2}

    class LosesAnswers(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            response = super().handle_request(request)
            kind = request.url.path.rsplit("/", 1)[1]
            if lost[kind] > 0:
                lost[kind] -= 1
                response.read()
                raise httpx.ReadError("lost", request=request)
            return response

    with Client(live, transport=LosesAnswers()) as client:
        decision = client.decide("brand-choice", "lossy")
        learned = client.learn(decision.decision_id, reward=1)
        assert (learned.status, learned.memory_position) == ("duplicate", 1)
    assert lost == {"decisions": 0, "feedback": 0}
    account = httpx.get(f"{live}/v1/workflows/brand-choice/accounts/lossy").json()
    assert (account["decisions"], account["interactions"]) == (1, 1)


def test_nobody_there_is_said_after_the_last_attempt() -> None:
    retries = Retries(attempts=3, first_pause_seconds=0.01)
    started = time.monotonic()
    with Client("http://127.0.0.1:9", retries=retries) as client, pytest.raises(UnavailableError):
        client.decide("brand-choice", "a")
    assert time.monotonic() - started < 2


def test_pauses_double_up_to_the_longest_and_vary() -> None:
    retries = Retries(attempts=6, first_pause_seconds=1.0, longest_pause_seconds=4.0)
    assert len(list(retries.pauses())) == 5
    for pause, most in zip(retries.pauses(), (1, 2, 4, 4, 4), strict=True):
        assert most / 2 <= pause <= most
    assert list(Retries(attempts=1).pauses()) == []


def test_a_restart_under_load_is_not_noticed(service_process: Start, tmp_path: Path) -> None:
    service = service_process()
    with Client(service.base_url, retries=Retries(attempts=12)) as client:

        def account(number: int) -> list[int]:
            positions = []
            for _ in range(15):
                decision = client.decide("brand-choice", f"account-{number}")
                positions.append(decision.memory_position)
                client.learn(decision.decision_id, reward=number % 2)
            return positions

        restart = threading.Timer(0.2, service.restart)
        restart.start()
        with ThreadPoolExecutor(8) as pool:
            stories = list(pool.map(account, range(8)))
        restart.join()
    assert stories == [list(range(15))] * 8
