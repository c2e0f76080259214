"""How often a key may ask: a second's worth at once, then as it comes in; each key for itself."""

from __future__ import annotations

import pytest

from service.access.rates import Rates
from service.access.roles import Role
from tests.service.conftest import CONTEXT, Open
from tests.service.test_keys import add, bearer, key_row


class Seconds:
    """A clock that stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def taken(rates: Rates, name: str, times: int) -> int:
    return sum(rates.take(name) == 0.0 for _ in range(times))


@pytest.mark.parametrize(("per_second", "at_once"), [(1, 1), (10, 10), (1_000, 1_000), (0.5, 1)])
def test_a_silent_key_may_ask_a_seconds_worth_at_once(per_second: float, at_once: int) -> None:
    assert taken(Rates(per_second, Seconds()), "a", 5_000) == at_once


def test_after_that_it_may_ask_as_often_as_is_said_whatever_it_tries_in_between() -> None:
    time = Seconds()
    rates = Rates(10, time)
    taken(rates, "a", 10)
    through = 0
    for _ in range(1_000):
        time.now += 0.01
        through += taken(rates, "a", 3)
    assert through == pytest.approx(100, abs=1)


def test_the_wait_that_is_told_is_enough() -> None:
    time = Seconds()
    rates = Rates(3, time)
    taken(rates, "a", 3)
    wait = rates.take("a")
    assert 0 < wait < 1
    time.now += wait
    assert rates.take("a") == 0.0


def test_each_key_counts_for_itself_and_without_a_limit_nothing_does() -> None:
    rates = Rates(1, Seconds())
    assert [rates.take(name) == 0 for name in ("a", "a", "b")] == [True, False, True]
    free = Rates(None, Seconds())
    free.charge("a", 1_000_000)
    assert taken(free, "a", 100) == 100


def test_what_a_request_turned_out_to_be_is_paid_for_by_the_next() -> None:
    time = Seconds()
    rates = Rates(10, time)
    assert rates.take("a") == 0.0
    rates.charge("a", 29)  # three seconds' worth in all
    assert taken(rates, "a", 5) == 0
    time.now += 2.2
    assert taken(rates, "a", 5) == 2


async def test_more_gets_429_and_when_to_come_back(open_client: Open) -> None:
    async with open_client(access="keys", requests_per_second=0.01) as client:
        keys = []
        for name in ("one", "two"):
            row, key = key_row(name, Role.caller)
            await add(client.service, row)
            keys.append(bearer(key))
        path = "/v1/workflows/help/decisions"
        body = {"account_id": "a", "context": CONTEXT}
        assert (await client.http.post(path, json=body, headers=keys[0])).status_code == 200
        refused = await client.http.post(path, json=body, headers=keys[0])
        assert refused.status_code == 429
        assert refused.json()["type"] == "urn:acclimate:problem:rate-limited"
        assert 95 <= int(refused.headers["retry-after"]) <= 200
        assert (await client.http.post(path, json=body, headers=keys[1])).status_code == 200
        assert (await client.http.get("/livez")).status_code == 200
        assert await client.metric("acclimate_requests_refused_total") == 1


async def test_an_item_of_a_batch_counts_as_a_request(open_client: Open) -> None:
    async with open_client(requests_per_second=5) as client:
        items = [{"account_id": f"a{i}", "context": CONTEXT} for i in range(500)]
        many = await client.http.post(
            "/v1/workflows/help/decisions/batch", json={"decisions": items}
        )
        assert many.status_code == 200
        refused = await client.decide()
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 90
