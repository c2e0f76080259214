"""The systems under measurement: the echo, the service embedded, the service in production.

Redis and PostgreSQL are found as the tests find them: an address in the environment, a server on
PATH, a pip-installed one. A system that would lose what it acknowledged is refused.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from benchmarks.service_process import ServerProcess, ServiceProcess
from benchmarks.serving_load import AUTHORIZATION, KEY
from benchmarks.serving_machine import Cores, filesystem, on_cores

if TYPE_CHECKING:
    from tests.servers import Server

INSTALLATION_KEY = "the draws of the serving benchmark"
MEMORY_FILESYSTEMS = ("tmpfs", "ramfs")


class ServingError(RuntimeError):
    """The benchmark cannot measure what it should."""


class System:
    """A server on 127.0.0.1 that is up, and what one may ask it beside the load."""

    def __init__(self, name: str, server: ServerProcess, cores: frozenset[int]) -> None:
        self.name = name
        self.server = server
        self._cores = cores

    @property
    def port(self) -> int:
        return self.server.port

    def restart(self) -> None:
        """Ends it in order and starts it on the data it left."""
        self.server.stop()
        with on_cores(self._cores):
            self.server.start()

    def offers(self, path: str) -> bool:
        """Whether its OpenAPI document has a route for this path."""
        routes = self._ask("GET", "/openapi.json").json()["paths"]
        return any(_leads_to(route, path) for route in routes)

    def fallback_share(self) -> float:
        """The share of all its decisions that the policy did not make."""
        decided = self.counted("acclimate_decisions_total")
        return self.counted("acclimate_fallbacks_total") / decided if decided else 0.0

    def guardrail_seconds(self) -> float:
        """What the guardrails took of each of its decisions, in the mean."""
        decided = self.counted("acclimate_decisions_total")
        return self.counted("acclimate_guardrail_seconds_total") / decided if decided else 0.0

    def counted(self, metric: str) -> float:
        """The sum of a metric's samples over its labels."""
        lines = self._ask("GET", "/metrics").text.splitlines()
        samples = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return sum(float(value) for key, value in samples if key.split("{")[0] == metric)

    def post(self, path: str) -> Any:
        """The answer to a request without a body."""
        return self._ask("POST", path).json()

    def _ask(self, method: str, path: str) -> httpx.Response:
        url = self.server.base_url
        headers = {"Authorization": AUTHORIZATION}
        try:
            with httpx.Client(base_url=url, trust_env=False, timeout=600) as client:
                answer = client.request(method, path, headers=headers)
        except httpx.TransportError as error:
            raise ServingError(f"{method} {path}: {error or type(error).__name__}") from error
        if not answer.is_success:
            raise ServingError(f"{method} {path}: {answer.status_code}: {answer.text[:500]}")
        return answer


@dataclass(frozen=True)
class Servers:
    """A Redis and a PostgreSQL that are up."""

    redis: Server
    postgres: Server

    def redis_info(self) -> dict[str, Any]:
        """What INFO says."""
        from tests.redis_server import redis_client

        with redis_client(self.redis.url) as client:
            info: dict[str, Any] = client.info()
        return info

    def sql(self, url: str, statement: str) -> list[str]:
        """The first column of one statement's answer."""
        from tests.postgres_server import run_sql

        return run_sql(url, statement)

    @contextmanager
    def new_ledger(self) -> Iterator[str]:
        """The address of an empty database, dropped afterwards."""
        from tests.postgres_server import create_database, drop_database

        url = create_database(self.postgres.url)
        try:
            yield url
        finally:
            drop_database(self.postgres.url, url)

    def versions(self) -> dict[str, str]:
        """Of both servers."""
        info = self.redis_info()
        name = info.get("server_name", "redis")
        redis = f"{name} {info[f'{name}_version']}"
        return {"redis": redis, "postgres": self.sql(self.postgres.url, "SHOW server_version")[0]}


@contextmanager
def running_servers(cores: Cores) -> Iterator[Servers]:
    """A Redis and a PostgreSQL, for the length of a `with` block."""
    checkout = str(Path(__file__).parent.parent)
    if checkout not in sys.path:
        sys.path.append(checkout)  # the installed command does not see the tests beside it
    try:
        import psycopg
        import pytest
        from redis import RedisError

        from tests.postgres_server import start_postgres
        from tests.redis_server import start_redis
    except ImportError as error:
        raise ServingError(
            f"needs a checkout and pip install '.[production,test]': {error}"
        ) from error
    with ExitStack() as stack, on_cores(cores.all):
        try:
            redis, postgres = (
                stack.enter_context(_closing(start())) for start in (start_redis, start_postgres)
            )
        except (pytest.skip.Exception, pytest.fail.Exception) as error:
            raise ServingError(str(error)) from error
        try:
            redis.flush()
            yield Servers(redis, postgres)
            redis.flush()
        except (RedisError, psycopg.Error) as error:
            raise ServingError(f"Redis or PostgreSQL: {error}") from error


@contextmanager
def _closing(server: Server) -> Iterator[Server]:
    try:
        yield server
    finally:
        server.close()


@contextmanager
def running_echo(cores: frozenset[int], *options: str) -> Iterator[System]:
    """The echo, for the length of a `with` block."""
    with _folder() as folder:
        command = [sys.executable, "-m", "benchmarks.serving_echo", *options]
        with _started(ServerProcess(folder, command, {}), cores) as server:
            yield System("echo", server, cores)


@contextmanager
def running_embedded(
    cores: frozenset[int], workflows: Path, policies: Path
) -> Iterator[tuple[System, dict[str, str]]]:
    """The service with memories in its process and a ledger in SQLite; and what makes it
    durable."""
    with _service(cores, workflows, policies, {}) as service:
        durability = _sqlite_durability(service.data_dir / "ledger.sqlite")
        yield System("embedded", service, cores), durability


@contextmanager
def running_production(
    cores: frozenset[int], servers: Servers, ledger_url: str, workflows: Path, policies: Path
) -> Iterator[tuple[System, dict[str, str]]]:
    """One replica of the service on these servers; and what makes it durable."""
    settings = {"REDIS_URL": servers.redis.url, "LEDGER_URL": ledger_url}
    durability = _servers_durability(servers, ledger_url)
    with _service(cores, workflows, policies, settings) as service:
        yield System("production", service, cores), durability


@contextmanager
def _service(
    cores: frozenset[int], workflows: Path, policies: Path, settings: Mapping[str, str]
) -> Iterator[ServiceProcess]:
    given = {"INSTALLATION_KEY": INSTALLATION_KEY, "ADMIN_KEY": KEY, **settings}
    with _folder() as folder:
        service = ServiceProcess(
            folder,
            workflows=workflows,
            policies=policies,
            settings={f"ACCLIMATE_{name}": value for name, value in given.items()},
        )
        with _started(service, cores):
            yield service


@contextmanager
def _started(server: ServerProcess, cores: frozenset[int]) -> Iterator[ServerProcess]:
    try:
        with on_cores(cores):
            server.start()
        yield server
    finally:
        server.stop()


@contextmanager
def _folder() -> Iterator[Path]:
    """A temporary folder on a disk: in main memory nothing is durable, and all is fast."""
    with tempfile.TemporaryDirectory(prefix="acclimate-bench-") as name:
        kind = filesystem(Path(name))
        if kind in MEMORY_FILESYSTEMS:
            raise ServingError(f"TMPDIR: expected a folder on a disk, got one on {kind}")
        yield Path(name)


def _sqlite_durability(ledger: Path) -> dict[str, str]:
    """Write-ahead log, read off the file. `synchronous` belongs to a connection, and the service
    that is up has asserted its own: it does not start otherwise."""
    connection = sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)
    try:
        found = {"journal_mode": str(connection.execute("PRAGMA journal_mode").fetchone()[0])}
    finally:
        connection.close()
    _assert_durable("SQLite", found, {"journal_mode": "wal"})
    return {"sqlite journal_mode": "wal", "sqlite synchronous": "full (the service's assertion)"}


def _servers_durability(servers: Servers, ledger_url: str) -> dict[str, str]:
    from tests.redis_server import redis_client

    names = ("fsync", "synchronous_commit", "full_page_writes")
    postgres = {name: servers.sql(ledger_url, f"SHOW {name}")[0] for name in names}
    _assert_durable("PostgreSQL", postgres, dict.fromkeys(names, "on"))
    with redis_client(servers.redis.url) as client:
        redis = {str(k): str(v) for k, v in client.config_get("appendonly", "appendfsync").items()}
    _assert_durable("Redis", redis, {"appendonly": "yes", "appendfsync": "everysec"})
    return {f"postgres {name}": value for name, value in postgres.items()} | {
        f"redis {name}": value for name, value in sorted(redis.items())
    }


def _assert_durable(server: str, found: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    for name, value in wanted.items():
        if found.get(name) != value:
            raise ServingError(f"{server}: {name}: expected {value}, got {found.get(name)}")


def _leads_to(route: str, path: str) -> bool:
    """Whether a route, `/a/{name}/b`, takes this path."""
    parts, given = route.split("/"), path.split("/")
    return len(parts) == len(given) and all(
        part.startswith("{") or part == one for part, one in zip(parts, given, strict=True)
    )
