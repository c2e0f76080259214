"""Where Redis is: one server, or the servers by which a Redis Cluster is found.

Addresses may hold passwords: no message quotes one.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from redis.asyncio import ConnectionPool
from redis.exceptions import RedisError

CLUSTER = "+cluster"
"""What a scheme ends with when the servers named are nodes of a cluster."""


@dataclass(frozen=True)
class RedisAddress:
    """What ACCLIMATE_REDIS_URL says."""

    servers: tuple[str, ...]
    """URLs as redis-py takes them: the server, or any nodes of the cluster."""
    cluster: bool


def parse_address(url: str) -> RedisAddress:
    """`redis://`, `rediss://` or `unix://` is a server; `redis+cluster://host:port,host:port` and
    `rediss+cluster://…` are nodes of a cluster, what comes before and after them said once.

    Raises ValueError.
    """
    parts = urlsplit(url)
    cluster = parts.scheme.endswith(CLUSTER)
    servers: tuple[str, ...] = (url,)
    if cluster:
        user, sign, hosts = parts.netloc.rpartition("@")
        if not all(hosts.split(",")):
            raise ValueError("expected the address of a node")
        scheme = parts.scheme.removesuffix(CLUSTER)
        servers = tuple(
            parts._replace(scheme=scheme, netloc=f"{user}{sign}{host}").geturl()
            for host in hosts.split(",")
        )
    for server in servers:
        _refuse_unreadable(server, cluster)
    return RedisAddress(servers, cluster)


def at(url: str, host: str | None, port: int) -> str:
    """The same user, password and options at another port and host; None is the same host."""
    parts = urlsplit(url)
    user, sign, _ = parts.netloc.rpartition("@")
    name = host or parts.hostname or "localhost"
    name = f"[{name}]" if ":" in name else name
    return parts._replace(netloc=f"{user}{sign}{name}:{port}").geturl()


def _refuse_unreadable(url: str, cluster: bool) -> None:
    try:
        # Made, not connected: this reads every part of the address.
        connection = ConnectionPool.from_url(url).make_connection()  # type: ignore[no-untyped-call]
    except (ValueError, TypeError, RedisError) as error:
        raise ValueError("expected an address that redis-py takes") from error
    if cluster and (connection.db or not hasattr(connection, "host")):
        raise ValueError("expected database 0 of a host: a cluster has no other")
