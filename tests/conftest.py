"""Fixtures for every room: real servers, the service as a process, and its log where a test fails.

`redis_server`, `redis_cluster` and `postgres_server` live as long as the run; `redis_url`,
`redis_cluster_url` and `postgres_url` are empty at the start of each test, and the servers are
brought back up whatever the last test did.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.postgres_server import create_database, drop_database, start_postgres
from tests.redis_cluster import RedisCluster, start_cluster
from tests.redis_server import start_redis
from tests.servers import Server
from tests.service_process import ServiceProcess

# A shell starts background jobs deaf to Ctrl-C, nohup to the end of a terminal, and so their
# children: ours must hear both.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

SERVICES: pytest.StashKey[list[ServiceProcess]] = pytest.StashKey()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Server]:
    """A Redis that a test may stop, start, kill, pause and flush."""
    server = start_redis()
    yield server
    server.close()


@pytest.fixture
def redis_url(redis_server: Server) -> str:
    """The address of that Redis, up and empty."""
    redis_server.resume()
    redis_server.start()
    redis_server.flush()
    return redis_server.url


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[RedisCluster]:
    """A Redis Cluster whose nodes a test may stop, start, kill and pause."""
    cluster = start_cluster()
    yield cluster
    cluster.close()


@pytest.fixture
def redis_cluster_url(redis_cluster: RedisCluster) -> str:
    """The address of that cluster, whole and empty."""
    redis_cluster.restore()
    return redis_cluster.url


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """A PostgreSQL that a test may stop, start, kill, pause and flush."""
    server = start_postgres()
    yield server
    server.close()


@pytest.fixture
def postgres_url(postgres_server: Server) -> Iterator[str]:
    """The address of a fresh database, as SQLAlchemy and the service take it."""
    postgres_server.resume()
    postgres_server.start()
    url = create_database(postgres_server.url)
    yield url
    postgres_server.resume()
    postgres_server.start()
    drop_database(postgres_server.url, url)


@pytest.fixture
def service_process(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[..., ServiceProcess]]:
    """Starts services: `service_process(redis_url=..., ledger_url=...)` is one, up and ready.

    Arguments go to `python -m service`, settings to its environment; `data_dir` may be given, so
    that several share one. `start=False` leaves the start to the test.
    """
    services: list[ServiceProcess] = []
    request.node.stash[SERVICES] = services

    def start_one(*arguments: str, start: bool = True, **settings: object) -> ServiceProcess:
        data_dir = Path(str(settings.pop("data_dir", tmp_path / f"service-{len(services)}")))
        service = ServiceProcess(data_dir, *arguments, **settings)
        services.append(service)
        if start:
            service.start()
        return service

    yield start_one
    for service in services:
        service.terminate()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the end of each service's log under a test that failed."""
    report = yield
    if report.failed:
        for service in item.stash.get(SERVICES, []):
            title = f"log of the service at {service.base_url}"
            report.sections.append((title, service.log_tail()))
    return report
