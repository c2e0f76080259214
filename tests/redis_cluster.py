"""A real Redis Cluster for tests: three masters, each with a replica, on this machine."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import redis
from redis.crc import key_slot

from tests.processes import ProcessError, free_port, wait_until
from tests.redis_server import answers, redis_client, redis_programs, stored
from tests.servers import OwnServer, first_that_starts

SLOTS = 16_384
MASTERS, REPLICAS = 3, 3
NODE_TIMEOUT_MS = 1_500
"""After so long without a word a node counts as lost, and a replica asks to take over."""


class RedisCluster:
    """A cluster that a test may empty, and whose nodes it may kill, pause and start."""

    def __init__(self, nodes: list[OwnServer]) -> None:
        self.nodes = nodes

    @property
    def url(self) -> str:
        """The address as the service takes it: two of the nodes."""
        return "redis+cluster://" + ",".join(_address(node) for node in self.nodes[:2])

    def masters(self) -> list[OwnServer]:
        """The nodes that have keys, as the others say, lowest slot first."""
        return [node for _, _, node in self._slots()]

    def master_of(self, key: str) -> OwnServer:
        """The node that has this key."""
        slot = key_slot(key.encode())
        return next(node for first, last, node in self._slots() if first <= slot <= last)

    def stored(self) -> dict[str, bytes | None]:
        """Everything stored, by key."""
        return {key: data for node in self.masters() for key, data in stored(node.url).items()}

    def restore(self) -> None:
        """Everybody up, in touch, and with a replica; empty."""
        for node in self.nodes:
            node.resume()
            node.start()
        self.wait_whole()
        for node in self.masters():
            node.flush()

    def wait_whole(self, timeout_seconds: float = 20) -> None:
        """Returns when every node finds every slot served and every master has its replica."""
        if not wait_until(self._whole, timeout_seconds=timeout_seconds):
            raise ProcessError(f"the cluster does not come together\n{self._log_tails()}")

    def close(self) -> None:
        """End it for good."""
        for node in self.nodes:
            node.close()

    def _slots(self) -> list[tuple[int, int, OwnServer]]:
        """Ranges of slots, and who has them."""
        by_port = {_port(node): node for node in self.nodes}
        for node in self.nodes:
            if answers(node.url):
                ranges = command(node, "CLUSTER SLOTS")
                return sorted(
                    ((first, last, by_port[master[1]]) for first, last, master, *_ in ranges),
                    key=lambda one: one[0],
                )
        raise ProcessError("no node of the cluster answers")

    def _whole(self) -> bool:
        try:
            return all(_is_content(node) for node in self.nodes)
        except redis.RedisError:
            return False

    def _log_tails(self) -> str:
        tails = (node.home / "server.log" for node in self.nodes)
        return "\n".join(path.read_text(errors="replace")[-600:] for path in tails)


def start_cluster() -> RedisCluster:
    """A cluster of the first server program here that runs as one; otherwise a skip."""
    return first_that_starts(
        "Redis Cluster", (partial(_own_cluster, program) for program in redis_programs())
    )


def _own_cluster(program: Path) -> RedisCluster:
    with ThreadPoolExecutor(MASTERS + REPLICAS) as pool:
        starts = [pool.submit(_own_node, program) for _ in range(MASTERS + REPLICAS)]
    cluster = RedisCluster([one.result() for one in starts if one.exception() is None])
    try:
        for one in starts:
            one.result()
        _join(cluster.nodes)
        cluster.wait_whole()
    except redis.RedisError as error:
        cluster.close()
        raise ProcessError(f"{program} does not run as a cluster: {error}") from error
    except BaseException:
        cluster.close()
        raise
    return cluster


def _own_node(program: Path) -> OwnServer:
    home = Path(tempfile.mkdtemp(prefix="acclimate-redis-cluster-"))
    port, bus = free_port(), free_port()
    url = f"redis://127.0.0.1:{port}/0"
    options = {
        "bind": "127.0.0.1",
        "port": port,
        "dir": home / "data",
        "save": "",
        "appendonly": "yes",
        "cluster-enabled": "yes",
        "cluster-port": bus,
        "cluster-node-timeout": NODE_TIMEOUT_MS,
        "cluster-require-full-coverage": "no",
        "repl-diskless-sync-delay": 0,
        "repl-ping-replica-period": 1,
    }
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    server = OwnServer(
        url,
        home,
        [str(program), *words],
        answers=partial(answers, url),
        empty=partial(_empty, url),
    )
    try:
        server.data_dir.mkdir()
        server.start()
    except BaseException:
        server.close()
        raise
    return server


def _join(nodes: list[OwnServer]) -> None:
    """Slots to the first three, one of the others behind each, and everybody told of everybody."""
    share = -(-SLOTS // MASTERS)
    for i, node in enumerate(nodes):  # each by itself still
        command(node, "CLUSTER SET-CONFIG-EPOCH", i + 1)
        if i < MASTERS:
            last = min((i + 1) * share, SLOTS) - 1
            command(node, "CLUSTER ADDSLOTSRANGE", i * share, last)
    ids = [command(node, "CLUSTER MYID").decode() for node in nodes]
    for node in nodes:
        for other in nodes:
            bus = other.command[other.command.index("--cluster-port") + 1]
            if other is not node:
                command(node, "CLUSTER MEET", "127.0.0.1", _port(other), bus)
    for i, node in enumerate(nodes[MASTERS:]):
        if not wait_until(partial(_follows, node, ids[i % MASTERS]), timeout_seconds=10):
            raise ProcessError("a replica does not hear of its master")


def _follows(node: OwnServer, master: str) -> bool:
    try:
        command(node, "CLUSTER REPLICATE", master)
    except redis.ResponseError:  # it has not heard of that one yet
        return False
    return True


def command(node: OwnServer, *words: str | int) -> Any:
    """What one node says to a command."""
    with redis_client(node.url) as client:
        return client.execute_command(*words)  # type: ignore[no-untyped-call]


def _is_content(node: OwnServer) -> bool:
    info = command(node, "CLUSTER INFO")
    replication = command(node, "INFO", "replication")
    known = int(info["cluster_known_nodes"]), int(info["cluster_slots_ok"])
    if known != (MASTERS + REPLICAS, SLOTS) or info["cluster_state"] != "ok":
        return False
    others = command(node, "CLUSTER NODES").values()
    if any("fail" in one["flags"] or not one["connected"] for one in others):
        return False
    if replication["role"] == "master":
        return bool(replication["connected_slaves"] == REPLICAS // MASTERS)
    return bool(replication["master_link_status"] == "up")


def _empty(url: str) -> None:
    with redis_client(url) as client:
        client.flushall()


def _port(node: OwnServer) -> int:
    return int(node.url.rpartition(":")[2].partition("/")[0])


def _address(node: OwnServer) -> str:
    return f"127.0.0.1:{_port(node)}"
