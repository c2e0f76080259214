"""Memories lost, old, corrupt or foreign heal from the ledger; on both stores, on real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio

from service.ledger.ledger import Ledger
from service.ledger.records import AccountKey, Head
from service.memory.codec import CorruptMemoryError, decode, encode
from service.memory.in_process import InProcessMemoryStore
from service.memory.redis_store import RedisMemoryStore
from service.memory.store import MemoryStore, PolicyIdentity, StoredMemory
from service.settings import Settings
from tests.redis_server import redis_client
from tests.servers import Server
from tests.service.conftest import CONTEXT, Client, Open

KEY = AccountKey("default", "help", "a")


@pytest.fixture(params=["in process", "redis", "redis cluster"])
async def either(request: pytest.FixtureRequest, open_client: Open) -> AsyncIterator[Client]:
    """The service on each of the stores."""
    fixtures = {"redis": "redis_url", "redis cluster": "redis_cluster_url"}
    fixture = fixtures.get(request.param)
    url = None if fixture is None else request.getfixturevalue(fixture)
    async with open_client(redis_url=url, memory_timeout_seconds=5.0) as client:
        yield client


def store(client: Client) -> tuple[MemoryStore, PolicyIdentity]:
    return client.service.memories, client.service.catalog.workflows["help"].policy.identity


async def stored(client: Client) -> StoredMemory:
    memories, identity = store(client)
    found = await memories.get(KEY, identity)
    assert found is not None
    return found


async def forget(memories: MemoryStore) -> None:
    """Empties the store behind the service's back."""
    if isinstance(memories, InProcessMemoryStore):
        await memories.close()
        return
    assert isinstance(memories, RedisMemoryStore)
    for url in await memories._redis.runs(asyncio.get_running_loop().time() + 5):
        with redis_client(url) as direct:
            direct.flushall()


async def test_a_swap_moves_a_memory_only_from_where_it_is_expected(either: Client) -> None:
    memories, identity = store(either)
    blank = StoredMemory(either.service.catalog.workflows["help"].blank(), Head(0, 0))
    one, two = (StoredMemory(blank.memory, Head(0, n)) for n in (1, 2))
    assert not await memories.swap(KEY, identity, Head(0, 0), one)  # there is none
    assert await memories.swap(KEY, identity, None, blank)
    assert not await memories.swap(KEY, identity, None, one)
    assert await memories.swap(KEY, identity, Head(0, 0), one)
    assert not await memories.swap(KEY, identity, Head(0, 0), two)
    assert not await memories.swap(KEY, identity, Head(1, 1), two)
    assert (await stored(either)).head == Head(0, 1)


async def test_of_many_swaps_at_once_one_wins(either: Client) -> None:
    memories, identity = store(either)
    blank = either.service.catalog.workflows["help"].blank()
    await memories.put(KEY, identity, StoredMemory(blank, Head(0, 0)))
    won = await asyncio.gather(
        *(
            memories.swap(KEY, identity, Head(0, 0), StoredMemory(blank, Head(0, 1)))
            for _ in range(20)
        )
    )
    assert sum(won) == 1


@pytest.mark.parametrize("kept", [None, 0, 3, 9])
async def test_a_memory_that_is_gone_old_or_ahead_is_brought_to_the_head_bit_for_bit(
    either: Client, kept: int | None
) -> None:
    """None: flushed. 0, 3: an old copy came back. 9: it is ahead of a restored ledger."""
    copies = {}
    for n in range(6):
        memories, identity = store(either)
        copies[n] = await memories.get(KEY, identity)
        await either.interact("a", reward=(-1, 3, 1)[n % 3])
    whole = await stored(either)
    if kept is None:
        await forget(memories)
    else:
        old = copies.get(kept) or StoredMemory(
            either.service.catalog.workflows["help"].blank(), Head(0, kept)
        )
        await memories.put(KEY, identity, old)
    answer = (await either.decide("a")).json()
    assert (answer["memory_position"], answer["reason"]) == (6, "policy")
    healed = await stored(either)
    assert healed.head == whole.head == Head(0, 6)
    for found, wanted in zip(healed.memory, whole.memory, strict=True):
        assert found.tobytes() == wanted.tobytes()


async def test_feedback_that_finds_its_memory_gone_rebuilds_it(either: Client) -> None:
    await either.interact("a")
    old = await stored(either)
    for _ in range(2):
        await either.interact("a")
    await either.decide("a", decision_id="d")
    memories, identity = store(either)
    await memories.put(KEY, identity, old)
    await either.learn("d", reward=3)
    assert (await stored(either)).head == Head(0, 4)
    assert (await stored(either)).memory.rows.sum() == 8  # four wins in four pulls


async def test_a_duplicate_heals_what_a_crash_between_commit_and_fold_left(
    either: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await either.interact("a")
    await either.decide("a", decision_id="d")
    with monkeypatch.context() as crash:
        crash.setattr("service.together.Together.advance", _crash)
        # It is committed, so it is acknowledged, whatever happens to the fold.
        assert (await either.learn("d", reward=3)).json()["status"] == "folded"
    assert (await stored(either)).head == Head(0, 1)
    again = await either.learn("d", reward=3)
    assert again.json()["status"] == "duplicate"
    assert (await stored(either)).head == Head(0, 2)


async def _crash(*_: object) -> None:
    raise RuntimeError("killed")


async def test_the_reconciler_heals_it_too(either: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    await either.interact("a")
    await either.decide("a", decision_id="d")
    with monkeypatch.context() as crash:
        crash.setattr("service.together.Together.advance", _crash)
        await either.learn("d", reward=3)
    assert (await stored(either)).head == Head(0, 1)
    assert await either.service.jobs.reconcile() == 1
    assert (await stored(either)).head == Head(0, 2)
    assert await either.service.jobs.reconcile() == 0


async def test_corrupt_bytes_in_redis_are_counted_and_rebuilt(
    open_client: Open, redis_url: str
) -> None:
    async with open_client(redis_url=redis_url, memory_timeout_seconds=5.0) as client:
        for _ in range(4):
            await client.interact("a")
        whole = await stored(client)
        direct = redis.asyncio.Redis.from_url(redis_url)
        (name,) = await direct.keys("*")
        assert isinstance(name, bytes)
        _, identity = store(client)
        ledger, digest = client.service.ledger.ledger_id[:16], identity.digest[:8].hex()
        expected = f"acclimate:{ledger}:{{default|help|a}}:memory:counting/1:{digest}"
        assert name.decode() == expected
        good = await direct.get(name)
        assert isinstance(good, bytes)
        spoiled = bytearray(good)
        spoiled[70] ^= 1
        for bad in (bytes(spoiled), good[:-1], b"", b"not a memory", b"\0" * 300):
            await direct.set(name, bad)
            assert (await client.decide("a")).json()["memory_position"] == 4
            healed = await stored(client)
            assert healed.memory.rows.tobytes() == whole.memory.rows.tobytes()
        assert await direct.ttl(name) > 0
        await direct.aclose()
        assert await client.metric("acclimate_memory_corrupt_total") >= 5


async def test_a_memory_of_another_graph_is_never_fed_to_this_one(client: Client) -> None:
    await client.interact("a")
    _, identity = store(client)
    data = encode(await stored(client), identity)
    assert decode(data, identity).head == Head(0, 1)
    other = PolicyIdentity(identity.policy, bytes(32), identity.shared_size, identity.row_size)
    with pytest.raises(CorruptMemoryError, match="policy"):
        decode(data, other)


async def test_a_redis_that_stops_answering_costs_no_event_and_comes_back(
    open_client: Open, redis_url: str, redis_server: Server
) -> None:
    async with open_client(redis_url=redis_url, memory_timeout_seconds=0.2) as client:
        for i in range(3):
            await client.interact("a", actions=["mail"])
            await client.decide("a", decision_id=f"d{i}", actions=["mail"])
        with redis_server.pause():
            paused = (await client.decide("a", context=CONTEXT)).json()
            assert (paused["reason"], paused["action"]) == ("memory_unavailable", "mail")
            assert (await client.learn("d0", reward=3)).json()["status"] == "folded"
            assert (await client.http.get("/readyz")).json()["memory"] == "unavailable"
        redis_server.kill()
        stopped = (await client.decide("a", context=CONTEXT)).json()
        assert stopped["reason"] == "memory_unavailable"
        assert (await client.learn("d1", reward=3)).json()["memory_position"] == 5
        redis_server.start()
        redis_server.flush()
        back = (await client.decide("a")).json()
        assert (back["reason"], back["memory_position"]) == ("policy", 5)
        assert (await stored(client)).memory.rows[0, 1].tolist() == [5, 5]
        assert (await client.http.get("/readyz")).json()["memory"] == "ok"


async def test_the_embedded_profile_forgets_the_longest_idle_and_remembers_again(
    open_client: Open,
) -> None:
    async with open_client(in_process_memories=2) as client:
        for account in ("a", "b", "c"):
            await client.interact(account)
        memories, identity = store(client)
        assert await memories.get(KEY, identity) is None
        assert (await client.decide("a")).json()["memory_position"] == 1


async def test_a_redis_that_is_full_lets_no_old_memory_decide(
    open_client: Open, redis_url: str
) -> None:
    """Reads work, writes fail: the ledger has what the store cannot take."""
    direct = redis.asyncio.Redis.from_url(redis_url)
    async with open_client(redis_url=redis_url, memory_timeout_seconds=5.0) as client:
        for _ in range(3):
            await client.interact("a", actions=["mail"])
        await direct.config_set("maxmemory", "1")
        try:
            for position in range(3, 6):
                answer = (await client.decide("a", actions=["mail"])).json()
                assert (answer["memory_position"], answer["reason"]) == (position, "policy")
                learned = await client.learn(answer["decision_id"], reward=3)
                assert learned.json()["memory_position"] == position + 1
            fresh = (await client.decide("new")).json()
            assert (fresh["memory_position"], fresh["reason"]) == (0, "policy")
        finally:
            await direct.config_set("maxmemory", "0")
        assert await client.metric("acclimate_memory_unavailable_total") > 0
        assert (await client.decide("a")).json()["memory_position"] == 6
        assert (await stored(client)).head == Head(0, 6)
    await direct.aclose()


async def test_one_account_that_cannot_be_read_costs_the_others_nothing(
    open_client: Open, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct = redis.asyncio.Redis.from_url(redis_url)
    async with open_client(redis_url=redis_url, memory_timeout_seconds=5.0) as client:
        for account in ("a", "b"):
            await client.interact(account)
        (name,) = await direct.keys("*help|a}*")
        await direct.delete(name)
        await direct.lpush(name, "a list")
        at_once = ("a", *("b" for _ in range(10)))
        answers = await asyncio.gather(*(client.decide(account) for account in at_once))
        assert {answer.json()["reason"] for answer in answers} == {"policy"}
        assert {answer.json()["memory_position"] for answer in answers} == {1}

        original = type(client.service.ledger).past

        async def unreadable(self: Ledger, key: AccountKey, *rest: Any) -> object:
            if key.account_id == "a":
                raise KeyError("nobody knows")
            return await original(self, key, *rest)

        monkeypatch.setattr(type(client.service.ledger), "past", unreadable)
        await direct.flushall()
        answers = await asyncio.gather(*(client.decide(account) for account in at_once))
        reasons = [answer.json()["reason"] for answer in answers]
        assert reasons == ["memory_unreadable"] + ["policy"] * 10
    await direct.aclose()


async def test_many_decisions_of_one_flushed_account_share_one_replay(either: Client) -> None:
    for _ in range(5):
        await either.interact("a")
    await forget(store(either)[0])
    before = await either.metric("acclimate_memory_rebuilds_total")
    answers = await asyncio.gather(*(either.decide("a") for _ in range(30)))
    assert {answer.json()["memory_position"] for answer in answers} == {5}
    assert await either.metric("acclimate_memory_rebuilds_total") == before + 1


async def test_two_ledgers_on_one_redis_never_see_each_others_memories(
    open_client: Open, redis_url: str, settings: Settings
) -> None:
    shared = {"redis_url": redis_url, "memory_timeout_seconds": 5.0}
    other = settings.data_dir.with_name("other")
    async with open_client(**shared) as one, open_client(**shared, data_dir=other) as two:
        await one.interact("a", reward=3)
        await two.interact("a", reward=-1)
        for client, wins in ((one, 1), (two, 0)):
            assert (await client.decide("a")).json()["memory_position"] == 1
            assert (await stored(client)).memory.rows[..., 0].sum() == wins


async def test_what_was_clipped_to_decide_is_clipped_to_learn(
    open_client: Open, settings: Settings
) -> None:
    path = settings.workflows / "help.yaml"
    clips = "tenure: {type: number, min: 0, max: 100, out_of_range: clip}"
    path.write_text(path.read_text().replace("tenure: {type: number, min: 0, max: 100}", clips))
    async with open_client() as client:
        for account, tenure in (("a", 100), ("b", 1e300)):
            await client.interact(account, context=CONTEXT | {"tenure": tenure}, actions=["mail"])
        memories, identity = store(client)
        shared = [
            found.memory.shared.tolist()
            for account in ("a", "b")
            if (found := await memories.get(AccountKey("default", "help", account), identity))
        ]
        assert shared[0] == shared[1]


async def test_one_account_that_does_not_replay_stops_no_reconciling(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_head = type(client.service.recall).at_head
    with monkeypatch.context() as crash:
        for account in ("a", "b"):
            await client.interact(account)
            await client.decide(account, decision_id=account)
        crash.setattr("service.together.Together.advance", _crash)
        for account in ("a", "b"):
            await client.learn(account, reward=3)

    async def bad(self: object, workflow: object, key: AccountKey, *rest: object) -> object:
        if key.account_id == "a":
            raise ValueError("bad")
        return await at_head(self, workflow, key, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(type(client.service.recall), "at_head", bad)
    assert await client.service.jobs.reconcile() == 1
    memories, identity = store(client)
    found = await memories.get(AccountKey("default", "help", "b"), identity)
    assert found is not None
    assert found.head == Head(0, 2)
