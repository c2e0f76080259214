"""Memories kept in the ledger: a replay from one equals the replay from nothing, bit for bit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import delete, select, text, update

from service.ledger.records import AccountKey, Head, Past, Snapshot
from service.ledger.tables import accounts, feedback, snapshots
from service.settings import Settings
from tests.service.conftest import Client, Open, Time
from tests.service.pasts import KEY, account_of, agree, declare, forget, same, stored_of


@pytest.fixture
async def every_three(
    open_client: Open, settings: Settings, database: str
) -> AsyncIterator[Client]:
    """A service that keeps a memory every three interactions, on each of the databases."""
    declare(settings, "aggregation: latest")
    async with open_client(ledger_url=database, snapshot_every=3) as client:
        yield client


async def interact(client: Client, count: int, first: int = 1) -> None:
    """Interactions, the decision of the n-th being `d<n>`."""
    for n in range(first, first + count):
        await client.decide("a", decision_id=f"d{n}", actions=[("mail", "call")[n % 2]])
        await client.learn(f"d{n}", reward=(n % 5) - 1, feedback_id="first")
        await client.service.recall.drain()


async def kept(client: Client) -> list[tuple[int, int]]:
    """Position and generation of the account's snapshots."""
    await client.service.recall.drain()
    columns = snapshots.c
    query = select(columns.position, columns.generation).where(columns.account_id == "a")
    found = await client.service.ledger.read(lambda it: it.execute(query).all())
    return sorted((row.position, row.generation) for row in found)


async def folds(client: Client) -> int:
    """How many interactions a replay without the store folds; and that it ends where all do."""
    recall, workflow = client.service.recall, client.service.catalog.workflows["help"]
    await recall.drain()  # what was folded before may still be on its way to being kept
    from_snapshot = await recall.fresh(workflow, KEY, from_snapshots=True)
    from_nothing = await recall.fresh(workflow, KEY)
    await recall.drain()
    assert from_snapshot.complete
    assert from_snapshot.memory.head == from_nothing.memory.head
    assert same(from_snapshot.memory.memory, from_nothing.memory.memory)
    return from_snapshot.interactions


def execute(client: Client, *statements: Any) -> None:
    """Tampers with the ledger."""
    with client.service.ledger._engine.begin() as connection:
        for statement in statements:
            connection.execute(statement)


async def test_the_two_newest_of_every_so_many_interactions_are_kept(every_three: Client) -> None:
    client, found = every_three, {}
    for n in range(1, 12):
        await interact(client, 1, n)
        found[n] = [position for position, _ in await kept(client)]
    assert found[2] == []
    assert found[3] == found[5] == [3]
    assert found[6] == [3, 6]
    assert found[9] == found[11] == [6, 9]
    assert await folds(client) == 2
    await agree(client)


async def test_a_flushed_memory_is_back_from_the_newest(every_three: Client) -> None:
    client = every_three
    await interact(client, 11)
    whole = await stored_of(client)
    before = await client.metric("acclimate_memory_rebuilt_interactions_total")
    forget(client)
    assert (await client.decide("a")).json()["memory_position"] == 11
    healed = await stored_of(client)
    assert whole is not None
    assert healed is not None
    assert same(whole.memory, healed.memory)
    assert await client.metric("acclimate_memory_rebuilt_interactions_total") == before + 2


@pytest.mark.parametrize(
    ("revised", "left"), [(11, [6, 9]), (10, [6, 9]), (9, [6]), (7, [6]), (6, []), (2, [])]
)
async def test_a_revision_deletes_those_that_it_makes_untrue(
    every_three: Client, monkeypatch: pytest.MonkeyPatch, revised: int, left: list[int]
) -> None:
    client = every_three
    await interact(client, 11)
    with monkeypatch.context() as crash:
        crash.setattr("service.together.Together.advance", _crash)
        await client.learn(f"d{revised}", reward=2.5, feedback_id="second")
        assert [position for position, _ in await kept(client)] == left
    await client.service.jobs.reconcile()
    await agree(client)
    assert await folds(client) == 2  # and the replay has kept what was due on its way
    newest = (9, 0 if 9 in left else 1)
    assert (await kept(client))[-1] == newest


async def _crash(*_: object) -> None:
    raise RuntimeError("killed")


async def test_many_revisions_leave_replays_short(every_three: Client) -> None:
    """Each decision gets a second piece, so each interaction opens a generation."""
    client = every_three
    for n in range(1, 31):
        await interact(client, 1, n)
        await client.learn(f"d{n}", reward=2.5, feedback_id="second")
        assert await folds(client) <= 3
    await agree(client)
    assert len(await kept(client)) == 2


async def test_what_was_folded_before_a_change_of_the_past_is_refused(
    every_three: Client, time: Time
) -> None:
    client, ledger = every_three, every_three.service.ledger
    await interact(client, 4)
    identity = client.service.catalog.workflows["help"].policy.identity

    def at(head: Head, account: str = "a") -> Snapshot:
        key = AccountKey("default", "help", account)
        return Snapshot(key, "counting/1", identity.digest.hex(), head, b"x", time())

    assert await ledger.keep_snapshot(at(Head(0, 4)))
    assert not await ledger.keep_snapshot(at(Head(0, 5)))  # ahead
    assert not await ledger.keep_snapshot(at(Head(0, 0)))  # nothing to keep
    assert not await ledger.keep_snapshot(at(Head(0, 1), "nobody"))
    await client.learn("d4", reward=0.5, feedback_id="second")
    assert not await ledger.keep_snapshot(at(Head(0, 4)))  # on its way when the past was revised
    assert await kept(client) == [(3, 0)]
    await ledger.reset(KEY, time())
    assert await kept(client) == []
    assert not await ledger.keep_snapshot(at(Head(1, 4)))
    await ledger.erase(KEY, time())
    assert not await ledger.keep_snapshot(at(Head(2, 1)))
    assert await kept(client) == []


@pytest.mark.parametrize(("corrupt", "folded"), [([9], 5), ([6, 9], 11)])
async def test_a_corrupt_one_is_counted_passed_over_and_written_anew(
    every_three: Client, corrupt: list[int], folded: int
) -> None:
    client = every_three
    await interact(client, 11)
    broken = update(snapshots).values(memory=b"no memory of anything, and long enough to be one")
    execute(client, broken.where(snapshots.c.position.in_(corrupt)))
    assert await folds(client) == folded
    assert await client.metric("acclimate_memory_corrupt_total") == len(corrupt)
    assert await folds(client) == 2
    assert await client.metric("acclimate_memory_corrupt_total") == len(corrupt)


@pytest.mark.parametrize("size", [1, 4, 5, 11])
async def test_a_past_of_several_pages_folds_to_the_same_memory(
    every_three: Client, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    client = every_three
    await interact(client, 11)
    await client.learn("d5", reward=2.5, feedback_id="second")
    monkeypatch.setattr("service.ledger.past.PAGE", size)
    await agree(client)
    await client.service.recall.drain()  # what is still being kept would come after the deletion
    execute(client, delete(snapshots))
    assert await folds(client) == 11
    assert [position for position, _ in await kept(client)] == [6, 9] or size > 4
    assert await folds(client) == 2
    first = await client.service.ledger.past(KEY, None)
    assert (first.start, first.end, first.head) == (Head(1, 0), Head(1, size), Head(1, 11))


async def test_a_past_that_changes_between_two_pages_is_read_anew(
    every_three: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = every_three
    await interact(client, 11)
    execute(client, delete(snapshots))
    monkeypatch.setattr("service.ledger.past.PAGE", 4)
    past, pages = client.service.ledger.past, 0

    async def slowly(*arguments: Any) -> Past:
        nonlocal pages
        found: Past = await past(*arguments)
        pages += 1
        if pages == 2:
            with monkeypatch.context() as crash:
                crash.setattr("service.together.Together.advance", _crash)
                await client.learn("d1", reward=2.5, feedback_id="second")
        return found

    workflow = client.service.catalog.workflows["help"]
    with monkeypatch.context() as slow:
        slow.setattr(client.service.ledger, "past", slowly)
        fold = await client.service.recall.fresh(workflow, KEY, from_snapshots=True)
    assert fold.memory.head == Head(1, 11)
    assert same(
        fold.memory.memory, (await client.service.recall.fresh(workflow, KEY)).memory.memory
    )
    assert {generation for _, generation in await kept(client)} == {1}
    assert await folds(client) == 2


async def test_below_what_retention_left_only_a_snapshot_knows(every_three: Client) -> None:
    client, recall = every_three, every_three.service.recall
    workflow = client.service.catalog.workflows["help"]
    await interact(client, 8)
    whole = await recall.fresh(workflow, KEY)
    execute(
        client,
        delete(feedback).where(feedback.c.position <= 6),
        update(accounts).values(kept_above=6),
    )
    held = await recall.fresh(workflow, KEY, from_snapshots=True)
    assert held.complete
    assert held.interactions == 2
    assert same(held.memory.memory, whole.memory.memory)
    execute(client, delete(snapshots))
    for _ in range(2):  # what is not whole is not kept, so that it never counts as whole
        bare = await recall.fresh(workflow, KEY, from_snapshots=True)
        assert not bare.complete
        assert bare.memory.head == Head(0, 8)
        assert bare.memory.memory.rows[..., 1].sum() == 2
    assert await kept(client) == []
    assert await client.metric("acclimate_memory_incomplete_total") == 2


async def test_a_hole_in_a_past_is_noticed(every_three: Client) -> None:
    client = every_three
    await interact(client, 5)
    execute(client, delete(snapshots), delete(feedback).where(feedback.c.position == 2))
    workflow = client.service.catalog.workflows["help"]
    fold = await client.service.recall.fresh(workflow, KEY)
    assert not fold.complete
    assert fold.memory.head == Head(0, 5)


async def test_what_a_snapshot_alone_holds_is_not_revised(every_three: Client) -> None:
    client = every_three
    await interact(client, 8)
    execute(client, update(accounts).values(kept_above=6))
    answer = await client.learn("d5", reward=2.5, feedback_id="second")
    assert answer.json()["status"] == "recorded"
    assert (await account_of(client)).head == Head(0, 8)
    assert [position for position, _ in await kept(client)] == [3, 6]
    await client.learn("d7", reward=2.5, feedback_id="second")
    assert (await account_of(client)).head == Head(1, 8)
    assert await folds_with_retention(client) == 2


async def folds_with_retention(client: Client) -> int:
    workflow = client.service.catalog.workflows["help"]
    fold = await client.service.recall.fresh(workflow, KEY, from_snapshots=True)
    assert fold.complete
    return fold.interactions


async def test_one_of_another_policys_graph_is_not_used(every_three: Client) -> None:
    client = every_three
    await interact(client, 5)
    execute(client, text("UPDATE snapshots SET digest = '00'"))
    assert await folds(client) == 5
