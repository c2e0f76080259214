"""What an account was at each head it ever had can be read again, whatever was revised since."""

from __future__ import annotations

import random

import pytest

from contract.policy import Memory
from service.ledger.records import AccountKey, AccountUnknownError, Head
from service.settings import Settings
from tests.service.conftest import Client, Open, Time
from tests.service.pasts import (
    KEY,
    account_of,
    agree,
    decided_from,
    declare,
    past_of,
    rewards_of,
    same,
    stored_of,
)

STEPS = 60


async def live(client: Client, time: Time, seed: int) -> dict[Head, Memory]:
    """An account's life of decisions, pieces of feedback, defaults and resets; its memory at each
    head it had."""
    chance, ledger = random.Random(seed), client.service.ledger
    seen: dict[Head, Memory] = {}
    for n in range(STEPS):
        match chance.choices(("decide", "learn", "wait", "reset"), (5, 9, 1, 1))[0]:
            case "decide":
                await client.decide(
                    "a", decision_id=f"d{n}", actions=[chance.choice(["mail", "call"])]
                )
            case "learn":
                known = [f"d{i}" for i in range(n) if await ledger.decision("default", f"d{i}")]
                for one in known and [chance.choice(known)]:
                    reward = chance.choice([-1.0, 0.0, 1.0])
                    await client.learn(one, reward=reward, feedback_id=f"f{n}")
            case "wait":
                time.pass_seconds(chance.choice([30, 101]))
                await client.service.jobs.fold_defaults()
            case "reset":
                if await ledger.account(KEY):
                    await ledger.reset(KEY, time())
        if await ledger.account(KEY):
            head = await decided_from(client, decision_id=f"seen{n}")
            stored = await stored_of(client)
            if stored is None:  # nothing is stored of an account nothing came of
                stored = client.service.catalog.workflows["help"].unknown
            assert stored.head == head == (await account_of(client)).head
            assert head not in seen or same(seen[head], stored.memory)
            seen[head] = stored.memory
    return seen


@pytest.mark.parametrize(
    "rules", ["latest, late: apply", "sum, late: rebuild", "mean, late: ignore"]
)
async def test_the_memory_of_every_decision_can_be_folded_again(
    open_client: Open, settings: Settings, time: Time, database: str, rules: str
) -> None:
    declare(settings, f"aggregation: {rules}, default_reward: -1")
    async with open_client(ledger_url=database, snapshot_every=4) as client:
        seen = await live(client, time, seed=len(rules))
        await agree(client)
        workflow = client.service.catalog.workflows["help"]
        assert len({head.generation for head in seen}) > 4
        for head, memory in seen.items():
            for from_snapshots in (False, True):
                fold = await client.service.recall.fresh(
                    workflow, KEY, head, from_snapshots=from_snapshots
                )
                assert fold.complete
                assert fold.memory.head == head
                assert same(fold.memory.memory, memory)


async def test_a_page_of_an_older_generation_has_the_rewards_of_its_day(
    open_client: Open, settings: Settings, database: str
) -> None:
    declare(settings, "aggregation: latest")
    async with open_client(ledger_url=database) as client:
        for i in range(3):
            await client.decide("a", decision_id=f"d{i}", actions=["mail"])
            await client.learn(f"d{i}", reward=i, feedback_id="one")
        await client.learn("d1", reward=3, feedback_id="two")
        await client.learn("d0", reward=2, feedback_id="two")
        await client.learn("d1", reward=-1, feedback_id="three")
        ledger = client.service.ledger
        for head, rewards in {
            Head(0, 2): [0, 1],
            Head(0, 3): [0, 1, 2],
            Head(1, 3): [0, 3, 2],
            Head(2, 3): [2, 3, 2],
            Head(2, 1): [2],
            Head(3, 3): [2, -1, 2],
        }.items():
            past = await ledger.past(KEY, None, as_of=head)
            assert past.head == past.end == head
            assert past.complete
            assert [one.reward for one in past.interactions] == rewards


async def test_a_memory_of_an_older_generation_is_never_folded_on(
    open_client: Open, settings: Settings
) -> None:
    declare(settings, "aggregation: latest")
    async with open_client() as client:
        await client.decide("a", decision_id="d", actions=["mail"])
        await client.learn("d", reward=1, feedback_id="one")
        old = await stored_of(client)
        assert old is not None
        await client.learn("d", reward=3, feedback_id="two")
        workflow = client.service.catalog.workflows["help"]
        for learned in (False, True):
            await client.service.memories.put(KEY, workflow.policy.identity, old)
            if learned:
                await client.interact("a", actions=["mail"])
            assert await decided_from(client) == Head(1, 1 + learned)
            await agree(client)


# A reset


async def test_a_reset_account_starts_blank_and_keeps_its_ledger(
    open_client: Open, settings: Settings, time: Time, database: str
) -> None:
    declare(settings, "aggregation: sum, late: rebuild, default_reward: -1")
    async with open_client(ledger_url=database) as client:
        for _ in range(3):
            await client.interact("a", reward=3, actions=["mail"])
        await client.decide("a", decision_id="told", actions=["mail"])
        await client.learn("told", reward=1, feedback_id="one")
        await client.decide("a", decision_id="open", actions=["call"])
        assert (await account_of(client)).adaptation.phase == "adapted"
        anew = await client.service.ledger.reset(KEY, time())
        assert anew == await account_of(client)
        assert (anew.head, anew.base_generation) == (Head(1, 0), 1)
        assert (anew.adaptation.phase, anew.adaptation.recent) == ("adapting", ())
        assert await decided_from(client) == Head(1, 0)
        await agree(client)
        # More of what was folded before it is kept, and changes neither past.
        kept = (await client.learn("told", reward=2, feedback_id="two")).json()
        assert (kept["status"], kept["memory_position"]) == ("recorded", None)
        assert (await account_of(client)).head == Head(1, 0)
        # What comes of a decision that nothing had come of yet is the new past's.
        assert (await client.learn("open", reward=2)).json()["memory_position"] == 1
        assert await rewards_of(client) == [("call", 2)]
        await agree(client)
        before = await client.service.ledger.past(KEY, None, as_of=Head(0, 4))
        assert [one.reward for one in before.interactions] == [3, 3, 3, 1]


async def test_resets_and_revisions_open_generations_one_by_one(
    open_client: Open, settings: Settings, time: Time
) -> None:
    declare(settings, "aggregation: latest")
    async with open_client() as client:
        heads = []
        for n in range(3):
            await client.decide("a", decision_id=f"d{n}")
            for reward in (1, 2):
                await client.learn(f"d{n}", reward=reward, feedback_id=f"f{reward}")
            heads.append((await account_of(client)).head)
            await client.service.ledger.reset(KEY, time())
        assert heads == [Head(1, 1), Head(3, 1), Head(5, 1)]
        assert (await account_of(client)).head == Head(6, 0)
        assert await past_of(client) == []


async def test_an_account_that_nobody_knows_cannot_be_reset(client: Client) -> None:
    with pytest.raises(AccountUnknownError):
        await client.service.ledger.reset(AccountKey("default", "help", "nobody"), 1)
    assert await client.service.ledger.account(AccountKey("default", "help", "nobody")) is None


async def test_a_reset_is_reconciled_where_its_memory_is_still_stored(
    client: Client, time: Time
) -> None:
    await client.interact("a")
    time.pass_seconds(1)
    await client.service.ledger.reset(KEY, time())
    assert await client.service.jobs.reconcile() == 1
    stored = await stored_of(client)
    assert stored is not None
    assert stored.head == Head(1, 0)
    assert stored.memory.rows.sum() == 0
