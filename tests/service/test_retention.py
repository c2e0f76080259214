"""Retention: what is old and kept in a memory leaves the ledger; what is needed does not."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import func, select

from service.ledger.records import Head
from service.ledger.tables import decisions
from service.settings import Settings
from tests.service.conftest import Client, Open, Time
from tests.service.pasts import KEY, account_of, declare, forget, stored_of

DAY = 86_400


@pytest.fixture
async def brief(open_client: Open, settings: Settings, database: str) -> AsyncIterator[Client]:
    """A service that keeps a memory every three interactions, and events for two days."""
    declare(settings, "aggregation: latest, late: rebuild")
    async with open_client(ledger_url=database, snapshot_every=3, retention_days=2.0) as client:
        yield client


async def interact(client: Client, count: int, first: int = 1) -> None:
    for n in range(first, first + count):
        await client.decide("a", decision_id=f"d{n}")
        await client.learn(f"d{n}", reward=(n % 5) - 1, feedback_id="one")
        await client.service.recall.drain()


async def count(client: Client) -> int:
    """How many decisions the ledger has."""
    query = select(func.count()).select_from(decisions)
    found: int = await client.service.ledger.read(lambda it: it.scalars(query).one())
    return found


async def test_what_a_kept_memory_holds_and_is_old_is_deleted_and_the_memory_is_the_same(
    brief: Client, time: Time
) -> None:
    await interact(brief, 7)
    time.pass_seconds(3 * DAY)
    await interact(brief, 1, first=8)
    whole = await stored_of(brief)
    assert await brief.service.jobs.clear() == 6
    assert await count(brief) == 2
    assert (await account_of(brief)).kept_above == 6
    forget(brief)
    answer = (await brief.decide("a")).json()
    assert (answer["memory_position"], answer["reason"]) == (8, "policy")
    after = await stored_of(brief)
    assert whole is not None
    assert after is not None
    assert [part.tobytes() for part in after.memory] == [part.tobytes() for part in whole.memory]
    assert await brief.metric("acclimate_memory_incomplete_total") == 0


async def test_what_is_young_or_folded_by_no_kept_memory_stays(brief: Client, time: Time) -> None:
    await interact(brief, 3)
    time.pass_seconds(DAY)
    assert await brief.service.jobs.clear() == 0
    await interact(brief, 4, first=4)
    time.pass_seconds(1.5 * DAY)
    # The first three are old by now; the memory at the sixth holds young ones, the third's does.
    assert await brief.service.jobs.clear() in (0, 3)
    assert await count(brief) >= 4


async def test_what_is_left_can_still_be_revised_and_replayed(brief: Client, time: Time) -> None:
    await interact(brief, 7)
    time.pass_seconds(3 * DAY)
    await interact(brief, 1, first=8)
    await brief.service.jobs.clear()
    revised = (await brief.learn("d8", reward=3, feedback_id="two")).json()
    assert (revised["status"], revised["memory_position"]) == ("revised", 8)
    revised = (await brief.learn("d7", reward=3, feedback_id="two")).json()
    assert (revised["status"], revised["memory_position"]) == ("revised", 7)
    await brief.service.recall.drain()
    replayed = await brief.service.recall.fresh(
        brief.service.catalog.workflows["help"], KEY, from_snapshots=True
    )
    stored = await stored_of(brief)
    assert stored is not None
    assert replayed.complete
    assert replayed.memory.head == stored.head == Head(2, 8)
    assert [a.tobytes() for a in replayed.memory.memory] == [b.tobytes() for b in stored.memory]
    assert (await brief.learn("d2", reward=3, feedback_id="two")).status_code == 404


async def test_the_memory_that_holds_what_was_deleted_is_never_let_go(
    brief: Client, time: Time
) -> None:
    await interact(brief, 4)
    time.pass_seconds(3 * DAY)
    await interact(brief, 1, first=5)
    assert await brief.service.jobs.clear() == 3
    await interact(brief, 12, first=6)  # keeps four more memories, of which two stay
    for n in (5, 4):  # and these revisions make them untrue
        await brief.learn(f"d{n}", reward=3, feedback_id="two")
    forget(brief)
    answer = (await brief.decide("a")).json()
    assert answer["memory_position"] == 17
    assert await brief.metric("acclimate_memory_incomplete_total") == 0


async def test_decisions_that_nothing_came_of_go_when_they_are_old(
    brief: Client, time: Time
) -> None:
    await brief.decide("a", decision_id="never")
    time.pass_seconds(1.9 * DAY)
    await brief.decide("a", decision_id="young")
    time.pass_seconds(0.2 * DAY)
    assert await brief.service.jobs.clear() == 1
    assert (await brief.http.get("/v1/decisions/never")).status_code == 404
    assert (await brief.http.get("/v1/decisions/young")).status_code == 200


async def test_a_default_that_is_still_due_keeps_its_decision(
    open_client: Open, settings: Settings, time: Time
) -> None:
    declare(settings, "default_reward: -1")
    async with open_client(snapshot_every=3, retention_days=2.0) as client:
        await client.decide("a", decision_id="waits")
        time.pass_seconds(3 * DAY)
        assert await client.service.jobs.clear() == 0
        assert await client.service.jobs.fold_defaults() == 1
        assert (await account_of(client)).head == Head(0, 1)


async def test_a_memory_from_before_what_was_deleted_is_not_folded_on(
    brief: Client, time: Time
) -> None:
    """A store that comes back old may hold one that lacks what the ledger no longer has."""
    await interact(brief, 2)
    old = await stored_of(brief)
    await interact(brief, 5, first=3)
    time.pass_seconds(3 * DAY)
    await interact(brief, 1, first=8)
    whole = await stored_of(brief)
    assert await brief.service.jobs.clear() == 6
    assert old is not None
    assert whole is not None
    identity = brief.service.catalog.workflows["help"].policy.identity
    await brief.service.memories.put(KEY, identity, old)
    answer = (await brief.decide("a")).json()
    assert (answer["memory_position"], answer["reason"]) == (8, "policy")
    after = await stored_of(brief)
    assert after is not None
    assert [part.tobytes() for part in after.memory] == [part.tobytes() for part in whole.memory]


async def test_accounts_behind_others_that_cannot_be_cleared_are_cleared(
    brief: Client, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.ledger.retention.MOST", 2)
    monkeypatch.setattr("service.ledger.ledger.MOST", 2)
    for n in range(3):
        await brief.decide("z", decision_id=f"z{n}")
        await brief.learn(f"z{n}", reward=3, feedback_id="one")
        await brief.service.recall.drain()
    for n in range(5):
        await brief.decide("y", decision_id=f"never{n}")
    time.pass_seconds(3 * DAY)
    await interact(brief, 6)
    assert await brief.service.jobs.clear() == 3 + 5
