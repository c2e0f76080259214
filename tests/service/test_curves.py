"""Adaptation curves: sums that stay equal to what the ledger's events come to."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator

import numpy as np
import pytest

from service.curves import Curves
from service.ledger.curves import FALLBACK, LONGEST, Curve, count, read_changed, read_curves
from service.ledger.curves import write_page as write
from service.ledger.records import AccountKey
from tests.service.conftest import Client, Open, Time


@pytest.fixture
async def served(open_client: Open, database: str) -> AsyncIterator[Client]:
    """A service on each of the databases."""
    async with open_client(ledger_url=database) as client:
        yield client


async def counted(client: Client) -> int:
    return await Curves(client.service.ledger, client.service.clock).count({})


async def curves(client: Client, tenant: str = "default") -> dict[str, Curve]:
    return await client.service.ledger.read(read_curves(tenant, "help"))


def means(curve: Curve) -> list[float]:
    """Those that there are, from the first interaction on."""
    return [round(float(one), 6) for one in curve.mean[curve.n > 0]]


async def test_a_curve_is_the_mean_reward_of_each_interaction_number(served: Client) -> None:
    for reward in (-1.0, 1.0, 3.0):
        await served.interact("a", reward)
    for reward in (1.0, 3.0):
        await served.interact("b", reward)
    assert await counted(served) == 2
    found = await curves(served)
    assert set(found) == {"counting/1"}
    curve = found["counting/1"]
    assert curve.n[:4].tolist() == [2, 2, 1, 0]
    assert means(curve) == [0.0, 2.0, 3.0]
    assert curve.error[0] == pytest.approx(np.std([-1, 1], ddof=1) / math.sqrt(2))
    assert np.isnan(curve.error[2])
    assert np.isnan(curve.mean[3])
    assert await curves(served, "others") == {}


async def test_what_is_counted_is_counted_once_and_goes_on(served: Client) -> None:
    await served.interact("a", 1.0)
    assert [await counted(served), await counted(served)] == [1, 0]
    await served.interact("a", 3.0)
    assert await counted(served) == 1
    assert means((await curves(served))["counting/1"]) == [1.0, 3.0]


async def test_of_two_that_count_at_once_one_does(served: Client) -> None:
    await served.interact("a", 1.0)
    ledger = served.service.ledger
    changed = await ledger.read(read_changed((0, "", "", ""), 10))
    first, second = [await ledger.read(count(changed)) for _ in range(2)]
    assert await ledger.alone(lambda connection: write(connection, first))
    assert not await ledger.alone(lambda connection: write(connection, second))
    assert (await curves(served))["counting/1"].n[0] == 1


async def test_a_revised_reward_takes_the_place_of_what_was_counted(
    open_client: Open, database: str, time: Time, settings: object
) -> None:
    async with open_client(ledger_url=database) as client:
        path = client.service.settings.workflows / "help.yaml"
        path.write_text(path.read_text().replace("late: apply", "late: rebuild"))
    async with open_client(ledger_url=database) as client:
        await client.interact("a", 3.0)
        made = (await client.decide("a")).json()["decision_id"]
        time.pass_seconds(200)
        await client.service.jobs.fold_defaults()
        await counted(client)
        assert means((await curves(client))["counting/1"]) == [3.0, -1.0]
        await client.learn(made, reward=2.0)  # late: the past is revised
        assert await counted(client) == 1
        found = (await curves(client))["counting/1"]
        assert means(found) == [3.0, 2.0]
        assert found.n[:3].tolist() == [1, 1, 0]


async def test_an_account_that_was_reset_begins_again_and_keeps_what_it_did(
    served: Client,
) -> None:
    for reward in (1.0, 3.0):
        await served.interact("a", reward)
    await counted(served)
    await served.http.post("/v1/workflows/help/accounts/a/reset")
    await served.interact("a", -1.0)
    await counted(served)
    found = (await curves(served))["counting/1"]
    assert means(found) == [0.0, 3.0]
    assert found.n[:3].tolist() == [2, 1, 0]


async def test_who_is_on_the_fallback_whatever_they_do_is_a_curve_of_its_own(
    served: Client,
) -> None:
    await served.interact("a", 3.0)
    thrown = {"on": True, "why": "to see"}
    assert (await served.http.put("/v1/kill-switch", json=thrown)).status_code == 200
    await served.interact("b", 1.0)
    await counted(served)
    found = await curves(served)
    assert means(found["counting/1"]) == [3.0]
    assert means(found[FALLBACK]) == [1.0]


async def test_what_was_forced_counts_for_nobody(served: Client) -> None:
    forbidden = {"tenure": 50, "plan": "premium", "note": "calm", "age": 9}
    await served.interact("a", 3.0, context=forbidden)
    await counted(served)
    assert await curves(served) == {}


async def test_an_erased_account_leaves_no_mark(served: Client) -> None:
    await served.interact("a", 3.0)
    ledger = served.service.ledger
    changed = await ledger.read(read_changed((0, "", "", ""), 10))
    page = await ledger.read(count(changed))
    await served.http.delete("/v1/workflows/help/accounts/a")
    assert await ledger.alone(lambda connection: write(connection, page))
    again = await ledger.read(count(changed))
    assert again.marks[AccountKey("default", "help", "a")][0] is None


async def test_interactions_beyond_the_last_number_cost_and_change_nothing(
    served: Client,
) -> None:
    answers = await served.http.post(
        "/v1/workflows/help/decisions/batch",
        json={
            "decisions": [
                {"account_id": "a", "decision_id": f"d{n}", "context": CALM}
                for n in range(LONGEST + 5)
            ]
        },
    )
    assert answers.status_code == 200, answers.text
    pieces = [{"decision_id": f"d{n}", "reward": 1.0} for n in range(LONGEST + 5)]
    for start in range(0, len(pieces), 100):
        sent = {"feedback": pieces[start : start + 100]}
        assert (await served.http.post("/v1/feedback/batch", json=sent)).status_code == 200
    assert await counted(served) == 1
    assert (await curves(served))["counting/1"].n.sum() == LONGEST
    await served.interact("a", 3.0)
    assert await counted(served) == 0


CALM = {"tenure": 50, "plan": "premium", "note": "calm", "age": 1}
