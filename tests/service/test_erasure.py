"""Erasure at the ledger: nothing of the account stays, and its ids are gone for good."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from service.ledger.ledger import Ledger
from service.ledger.records import AccountKey, AccountUnknownError, ErasedError, Head, Snapshot
from service.ledger.settle import ActivateWrite, DefaultWrite
from service.ledger.tables import accounts, decisions, generations, metadata, snapshots, tombstones
from service.ledger.tables import feedback as feedback_table
from service.settings import Settings
from tests.service.conftest import CONTEXT, Client, Open, Time
from tests.service.pasts import agree, decided_from, declare, forget, past_of, stored_of
from tests.service.test_ledger import SPEC, decide, decision, feedback, learn

WHO = "household-of-mrs-17"
KEY_OF_TEST = b"an installation key of a test"
MARKS = (WHO, "erased-d", "journey-9", "piece-3", "73.125")
"""What only the erased account's rows say: its name, ids, episode, context."""


def everything(ledger: Ledger) -> str:
    """All that the ledger's tables hold, as text."""

    def text(connection: Any) -> str:
        rows = [
            value.decode("latin1") if isinstance(value, bytes) else str(value)
            for table in metadata.sorted_tables
            for row in connection.execute(select(table))
            for value in row
        ]
        return "\n".join(rows)

    return ledger.read_now(text)


async def live(client: Client, time: Time, account: str, prefix: str, tenant: str) -> None:
    """A life that leaves rows in every table."""
    context = CONTEXT | {"tenure": 73.125 if prefix == "erased-d" else 7.5}
    for n in range(5):
        decided = await client.decide(
            account,
            decision_id=f"{prefix}{n}",
            episode_id="journey-9" if prefix == "erased-d" else None,
            context=context,
            tenant=tenant,
        )
        assert decided.status_code == 200, decided.text
        for piece in ("piece-3", "piece-4") if prefix == "erased-d" else ("one", "two"):
            reward = {"piece-3": 1, "piece-4": 2, "one": 1, "two": 2}[piece]
            if n < 4:
                await client.learn(f"{prefix}{n}", reward=reward, feedback_id=piece, tenant=tenant)
    time.pass_seconds(101)
    await client.service.jobs.fold_defaults()
    await client.service.recall.close()


@pytest.fixture
def rules(settings: Settings) -> None:
    """A workflow under which every kind of row comes about."""
    declare(settings, "aggregation: latest, late: rebuild, default_reward: -1")


@pytest.mark.usefixtures("rules")
async def test_nothing_of_an_erased_account_is_left_in_any_table(
    open_client: Open, time: Time, database: str
) -> None:
    async with open_client(ledger_url=database, snapshot_every=2) as client:
        ledger = client.service.ledger
        await live(client, time, WHO, "erased-d", "default")
        await live(client, time, "other", "other-d", "default")
        before = everything(ledger)
        assert all(mark in before for mark in MARKS)
        for table in (decisions, feedback_table, generations, snapshots):
            of_them = select(table).where(table.c.account_id == WHO)
            assert ledger.read_now(lambda it, query=of_them: it.execute(query).first())  # type: ignore[misc]
        erased = await ledger.erase(AccountKey("default", "help", WHO), time())
        assert (erased.decisions, erased.feedback) == (5, 9)
        after = everything(ledger)
        assert [mark for mark in MARKS if mark in after] == []
        assert "other-d4" in after
        await agree(client, AccountKey("default", "help", "other"))
        with pytest.raises(AccountUnknownError):
            await ledger.erase(AccountKey("default", "help", WHO), time())
        found = await client.http.get(f"/v1/workflows/help/accounts/{WHO}")
        assert found.status_code == 404


@pytest.mark.usefixtures("rules")
async def test_two_tenants_with_the_same_ids_do_not_touch_one_another(
    open_client: Open, time: Time, database: str
) -> None:
    async with open_client(ledger_url=database, snapshot_every=2) as client:
        ledger = client.service.ledger
        for tenant in ("default", "theirs"):
            await live(client, time, WHO, "erased-d", tenant)
        theirs = AccountKey("theirs", "help", WHO)
        whole = await past_of(client, theirs)
        await ledger.reset(AccountKey("default", "help", WHO), time())
        await ledger.erase(AccountKey("default", "help", WHO), time())
        assert await past_of(client, theirs) == whole
        assert len(await ledger.feedback("theirs", "erased-d0")) == 2
        assert (await ledger.decision("theirs", "erased-d4")) is not None
        again = await client.learn("erased-d0", reward=3, feedback_id="p", tenant="theirs")
        assert again.status_code == 200
        await agree(client, theirs)


async def test_whatever_names_an_erased_decision_is_told_so(database: str) -> None:
    ledger = Ledger.open(database, key=KEY_OF_TEST)
    ledger.register_spec(SPEC, 1)
    await decide(ledger, decision("x", "gone"))
    await learn(ledger, feedback("gone", account="x"))
    await ledger.erase(AccountKey("default", "help", "x"), 9)
    for _ in range(2):  # also when somebody else came to be since
        with pytest.raises(ErasedError):
            await decide(ledger, decision("x", "gone"))
        with pytest.raises(ErasedError):
            await decide(ledger, decision("y", "gone"))
        with pytest.raises(ErasedError):
            await learn(ledger, feedback("gone", account="x"))
        with pytest.raises(ErasedError):
            await ledger.activate(ActivateWrite("default", "gone", 10, lambda _: SPEC))
        due = DefaultWrite(decision("x", "gone"), SPEC, 9_999)
        assert await ledger.record_default(due) is None
        await decide(ledger, decision("x", "new", head=Head(1, 0)))
    await ledger.close()


@pytest.mark.usefixtures("rules")
async def test_a_new_account_of_an_erased_name_starts_blank_in_a_later_generation(
    open_client: Open, time: Time, database: str
) -> None:
    """Even where the memory of the erased one is still stored; in the first attempt elsewhere."""
    key = AccountKey("default", "help", WHO)
    async with open_client(ledger_url=database) as client:
        generations = []
        for life in range(3):
            await live(client, time, WHO, f"life{life}-", "default")
            account = await client.service.ledger.account(key)
            assert account is not None
            generations.append(account.head.generation)
            old = await stored_of(client, key)
            await client.service.ledger.erase(key, time())
            assert old is not None
            assert (await stored_of(client, key)) is not None  # it stays until it is let go
            first = await client.decide(WHO, decision_id=f"first{life}")
            head = Head(first.json()["memory_generation"], first.json()["memory_position"])
            assert head == Head(account.head.generation + 1, 0)
            assert first.json()["reason"] == "policy"
        assert generations == sorted(set(generations))
        await client.learn("first2", reward=3)
        await agree(client, key)
        assert len(await past_of(client, key)) == 1


async def test_the_first_decision_after_an_erasure_is_made_once(client: Client, time: Time) -> None:
    """The blank memory is at the head of an account that is not there yet."""
    await client.interact("a")
    await client.service.ledger.erase(AccountKey("default", "help", "a"), time())
    forget(client)
    assert await decided_from(client) == Head(1, 0)
    assert await client.metric("acclimate_memory_conflicts_total") == 0


async def test_an_account_without_feedback_and_one_of_many_decisions_are_erased_whole(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.ledger.erasure.SLICE", 3)
    ledger = Ledger.open(database)
    ledger.register_spec(SPEC, 1)
    for n in range(10):
        await decide(ledger, decision("a", f"d{n}"))
    assert (await ledger.erase(AccountKey("default", "help", "a"), 5)).decisions == 10
    left = ledger.read_now(lambda it: it.execute(select(tombstones)).all())
    assert len(left) == 11
    assert [row.generation for row in left if row.generation is not None] == [0]
    assert ledger.read_now(lambda it: it.execute(select(accounts)).all()) == []
    await ledger.close()


async def test_tombstones_say_nothing_to_whoever_lacks_the_key(database: str) -> None:
    ledger = Ledger.open(database, key=KEY_OF_TEST)
    ledger.register_spec(SPEC, 1)
    await decide(ledger, decision("a", "d"))
    await ledger.erase(AccountKey("default", "help", "a"), 5)
    digests = {row.digest for row in ledger.read_now(lambda it: it.execute(select(tombstones)))}
    await ledger.close()
    other = Ledger.open(database, key=b"another")
    assert not digests & {
        other._tombstones("decision", "default", "d"),
        other._tombstones("account", "default", "help", "a"),
    }
    await other.close()


async def test_a_snapshot_on_its_way_does_not_outlive_its_account(
    client: Client, time: Time
) -> None:
    await client.interact("a")
    key = AccountKey("default", "help", "a")
    await client.service.ledger.erase(key, time())
    snapshot = Snapshot(key, "counting/1", "00", Head(0, 1), b"x", time())
    assert not await client.service.ledger.keep_snapshot(snapshot)
    assert await client.service.ledger.account(key) is None
