"""Memories in Redis: how they are kept, found and refused; on one server and on a cluster."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from redis.crc import key_slot

from service.bundles import load_policy
from service.ledger.records import AccountKey, Head
from service.memory.codec import encode
from service.memory.redis_address import at, parse_address
from service.memory.redis_store import RedisMemoryStore
from service.memory.store import MemoryUnavailableError, PolicyIdentity, StoredMemory
from service.settings import Settings
from tests.house.tree import ROOT
from tests.redis_cluster import RedisCluster, command
from tests.redis_server import redis_client, stored
from tests.servers import OwnServer, Server, unavailable
from tests.service.conftest import Open, Time

POLICY = load_policy(ROOT / "policies" / "bandits" / "1")
KEYS = [AccountKey("default", "brand-choice", f"account-{i}") for i in range(50)]
TIMEOUT_SECONDS = 5.0

OpenStore = Callable[..., RedisMemoryStore]


@pytest.fixture
async def open_store() -> AsyncIterator[OpenStore]:
    """Opens stores: `open_store(url)`."""
    opened: list[RedisMemoryStore] = []

    def open_one(url: str, timeout_seconds: float = TIMEOUT_SECONDS) -> RedisMemoryStore:
        opened.append(RedisMemoryStore(url, "ledger", timeout_seconds, 1_000))
        return opened[-1]

    yield open_one
    for store in opened:
        await store.close()


def memory(position: int, actions: int = 4) -> StoredMemory:
    return StoredMemory(POLICY.onnx.blank(1, actions), Head(0, position))


async def eventually_swaps(store: RedisMemoryStore, key: AccountKey, position: int) -> bool:
    """Whether the memory moves on within five seconds."""
    deadline = asyncio.get_running_loop().time() + 5
    while asyncio.get_running_loop().time() < deadline:
        try:
            await store.put(key, POLICY.identity, memory(position))
            return await store.swap(key, POLICY.identity, Head(0, position), memory(position + 1))
        except MemoryUnavailableError:
            await asyncio.sleep(0.02)
    return False


async def test_a_memory_of_the_shipped_policy_for_eight_actions_takes_at_most_two_kilobytes(
    open_store: OpenStore, redis_url: str
) -> None:
    longest = AccountKey("t" * 64, "w" * 40, "a" * 128)
    await open_store(redis_url).put(longest, POLICY.identity, memory(1_000_000, actions=8))
    (name,) = stored(redis_url)
    with redis_client(redis_url) as client:
        assert (client.memory_usage(name) or 0) in range(1, 2_049)


@pytest.mark.parametrize("asked", ["swap", "get", "get_many"])
async def test_what_is_asked_for_at_once_shares_round_trips(
    open_store: OpenStore, redis_url: str, asked: str
) -> None:
    store = open_store(redis_url)
    await asyncio.gather(*(store.put(key, POLICY.identity, memory(0)) for key in KEYS))
    with redis_client(redis_url) as client:
        before = client.info("stats")["total_reads_processed"]
        if asked == "get_many":
            found = await store.get_many([(key, POLICY.identity) for key in KEYS])
            assert all(isinstance(one, StoredMemory) for one in found)
        elif asked == "get":
            assert all(await asyncio.gather(*(store.get(key, POLICY.identity) for key in KEYS)))
        else:
            swaps = (store.swap(key, POLICY.identity, Head(0, 0), memory(1)) for key in KEYS)
            assert all(await asyncio.gather(*swaps))
        # The server may take a batch in pieces, as large as it reads at a time.
        assert client.info("stats")["total_reads_processed"] - before < len(KEYS) / 3


async def test_a_memory_that_rests_is_let_go_and_one_that_learns_is_kept(
    open_store: OpenStore, redis_url: str
) -> None:
    store = open_store(redis_url)
    await store.put(KEYS[0], POLICY.identity, memory(0))
    (name,) = stored(redis_url)
    with redis_client(redis_url) as client:
        client.expire(name, 10)
        await store.get(KEYS[0], POLICY.identity)
        assert client.ttl(name) <= 10
        assert await store.swap(KEYS[0], POLICY.identity, Head(0, 0), memory(1))
        assert client.ttl(name) > 900


@pytest.mark.parametrize("foreign", ["graph", "account"])
async def test_a_memory_that_is_not_this_graphs_or_accounts_is_refused_counted_and_rebuilt(
    open_client: Open, redis_url: str, foreign: str
) -> None:
    async with open_client(redis_url=redis_url, memory_timeout_seconds=5.0) as client:
        for _ in range(3):
            await client.interact("a")
            await client.interact("b")
        good = stored(redis_url)
        (name,) = (one for one in good if "|a}" in one)
        (other,) = (one for one in good if "|b}" in one)
        identity = client.service.catalog.workflows["help"].policy.identity
        found = await client.service.memories.get(AccountKey("default", "help", "a"), identity)
        assert found is not None
        graph = PolicyIdentity(identity.policy, bytes(32), *_sizes(identity))
        bad = good[other] if foreign == "account" else encode(found, graph, name)
        assert bad is not None
        with redis_client(redis_url) as direct:
            direct.set(name, bad)
        answer = (await client.decide("a")).json()
        assert (answer["reason"], answer["memory_position"]) == ("policy", 3)
        assert stored(redis_url)[name] == good[name]
        assert await client.metric("acclimate_memory_corrupt_total") > 0


async def test_memories_that_came_back_old_are_healed_though_nobody_asks_for_them(
    open_client: Open, redis_url: str, redis_server: Server, tmp_path: Path, time: Time
) -> None:
    if not isinstance(redis_server, OwnServer):
        unavailable("the files of a server given by its address cannot be changed")
    async with open_client(redis_url=redis_url, memory_timeout_seconds=5.0) as client:
        for account in ("a", "b"):
            await client.interact(account)
        shutil.copytree(redis_server.data_dir, tmp_path / "copy")
        for account in ("a", "b"):
            await client.interact(account)
        whole = stored(redis_url)
        time.pass_seconds(100_000)
        await client.service.jobs.reconcile()
        redis_server.kill()
        shutil.rmtree(redis_server.data_dir)
        shutil.copytree(tmp_path / "copy", redis_server.data_dir)
        redis_server.start()
        assert stored(redis_url) != whole
        assert await client.service.jobs.reconcile() == 2
        assert stored(redis_url) == whole


async def test_a_master_that_is_lost_costs_only_the_accounts_it_has(
    open_store: OpenStore, redis_cluster: RedisCluster, redis_cluster_url: str
) -> None:
    store = open_store(redis_cluster_url, 0.25)
    await asyncio.gather(*(store.put(key, POLICY.identity, memory(7)) for key in KEYS))
    lost = redis_cluster.masters()[0]
    gone = {name for name in redis_cluster.stored() if redis_cluster.master_of(name) is lost}
    wanted = [(key, POLICY.identity) for key in KEYS]
    with lost.pause():
        for _ in range(2):
            found = await store.get_many(wanted)
            for key, one in zip(KEYS, found, strict=True):
                if store._name(key, POLICY.identity) in gone:
                    assert isinstance(one, MemoryUnavailableError)
                else:
                    assert isinstance(one, StoredMemory)
        with pytest.raises(MemoryUnavailableError):
            await store.ping()
    for key in KEYS:
        assert await eventually_swaps(store, key, 8)
    await store.ping()


async def test_a_store_finds_who_took_over_by_itself(
    open_store: OpenStore, redis_cluster: RedisCluster, redis_cluster_url: str
) -> None:
    store = open_store(redis_cluster_url, 0.5)
    await asyncio.gather(*(store.put(key, POLICY.identity, memory(7)) for key in KEYS))
    runs = await store.incarnation()
    lost = redis_cluster.masters()[0]
    lost.kill()
    for key in KEYS:
        assert await eventually_swaps(store, key, 8)
    assert lost not in redis_cluster.masters()
    assert await store.incarnation() != runs


async def test_a_slot_that_moved_or_is_moving_is_followed(
    open_store: OpenStore, redis_cluster: RedisCluster, redis_cluster_url: str
) -> None:
    store = open_store(redis_cluster_url)
    key, wanted = KEYS[0], POLICY.identity
    name = store._name(key, wanted)
    slot = key_slot(name.encode())
    await store.put(key, wanted, memory(1))
    source = redis_cluster.master_of(name)
    target = next(node for node in redis_cluster.masters() if node is not source)
    ids = {node.url: command(node, "CLUSTER MYID").decode() for node in (source, target)}
    source.flush()
    command(target, "CLUSTER SETSLOT", slot, "IMPORTING", ids[source.url])
    command(source, "CLUSTER SETSLOT", slot, "MIGRATING", ids[target.url])
    try:
        await store.put(key, wanted, memory(2))  # what the source has not is asked of the target
        assert await store.swap(key, wanted, Head(0, 2), memory(3))
        kept = [command(node, "CLUSTER COUNTKEYSINSLOT", slot) for node in (source, target)]
        assert kept == [0, 1]
    finally:
        for node in (target, source):
            command(node, "CLUSTER SETSLOT", slot, "NODE", ids[target.url])
    found = await store.get(key, wanted)
    assert found is not None
    assert found.head == Head(0, 3)
    assert redis_cluster.master_of(name) is target
    for node in (source, target):
        target.flush()
        command(node, "CLUSTER SETSLOT", slot, "NODE", ids[source.url])
    assert await eventually_swaps(store, key, 4)


def test_an_address_names_a_server_or_nodes_of_a_cluster() -> None:
    one = parse_address("redis://:p@h:1/2?socket_keepalive=yes")
    assert (one.servers, one.cluster) == (("redis://:p@h:1/2?socket_keepalive=yes",), False)
    many = parse_address("rediss+cluster://u:p@a:1,b:2?ssl_cert_reqs=none")
    assert many.cluster
    assert many.servers == (
        "rediss://u:p@a:1?ssl_cert_reqs=none",
        "rediss://u:p@b:2?ssl_cert_reqs=none",
    )
    assert at(many.servers[0], "::1", 3) == "rediss://u:p@[::1]:3?ssl_cert_reqs=none"
    assert at(many.servers[0], None, 3) == "rediss://u:p@a:3?ssl_cert_reqs=none"


@pytest.mark.parametrize(
    "url",
    [
        "redis+cluster://",
        "redis+cluster://a:1,",
        "redis+cluster://a:1/2",
        "redis+cluster://a:port",
        "unix+cluster:///run/redis.sock",
        "http+cluster://:hush@a",
        "redis+cluster://:hush@a?nope=1",
    ],
)
def test_an_address_of_no_cluster_is_refused_by_name(url: str) -> None:
    with pytest.raises(ValueError, match=r"redis_url[\s\S]*or redis\+cluster://") as refused:
        Settings(redis_url=url)
    assert "expected redis://" in str(refused.value)


def _sizes(identity: PolicyIdentity) -> tuple[int, int]:
    return identity.shared_size, identity.row_size
