"""PostgreSQL gone under load, a full disk, a request five times at once: nothing told is lost."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.runtime import open_service
from service.settings import Settings
from tests.e2e import audit
from tests.e2e.events import Events, settings_of
from tests.servers import Server
from tests.service.conftest import CONTEXT
from tests.service_process import AUTHORIZATION, ServiceProcess

Start = Callable[..., ServiceProcess]

ACCOUNTS = [f"account-{i}" for i in range(8)]


@contextlib.asynccontextmanager
async def events_of(service: ServiceProcess) -> AsyncIterator[Events]:
    """Drives the process over HTTP."""
    async with httpx.AsyncClient(
        base_url=service.base_url, timeout=30, headers=AUTHORIZATION
    ) as http:
        yield Events(http)


@contextlib.asynccontextmanager
async def audited(process: ServiceProcess, **settings: Any) -> AsyncIterator[Any]:
    """Another replica, which schedules nothing: reads the ledger and memories of `process`."""
    opened = Settings(data_dir=process.data_dir, access="open", **settings)
    async with open_service(opened, schedule=False) as service:
        yield service


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_postgresql_restarted_under_load_fails_requests_as_503_and_loses_nothing(
    service_process: Start,
    tmp_path: Path,
    redis_url: str,
    postgres_url: str,
    postgres_server: Server,
    end: str,
) -> None:
    shop = settings_of(tmp_path) | {"redis_url": redis_url, "ledger_url": postgres_url}
    process = service_process(**shop)
    async with events_of(process) as events:
        over = asyncio.Event()
        load = [asyncio.create_task(keep_interacting(events, one, over)) for one in ACCOUNTS]
        await acknowledged(events, 60)
        await asyncio.to_thread(getattr(postgres_server, end))
        await until(lambda: len(events.unanswered) >= len(ACCOUNTS))
        await asyncio.to_thread(postgres_server.start)
        await acknowledged(events, len(events.decisions) + 60)
        over.set()
        await asyncio.gather(*load)
        assert not events.gone
        async with audited(process, **shop) as service:
            await audit.everything(service, events)
            await audit.memories_equal_their_replays(service, all_stored=True)
            await events.retry()
            for account in ACCOUNTS:
                await events.interact(account, 1_000)
            await audit.everything(service, events)
            await audit.memories_equal_their_replays(service, all_stored=True)


async def keep_interacting(events: Events, account: str, over: asyncio.Event) -> None:
    """Step after step, whatever fails; what was refused is not sent again yet."""
    step = 0
    while not over.is_set():
        failed = len(events.unanswered)
        await events.interact(account, step)
        await asyncio.sleep(0.01 if len(events.unanswered) == failed else 0.1)
        step += 1


async def acknowledged(events: Events, decisions: int) -> None:
    """Returns when so many decisions are."""
    await until(lambda: len(events.decisions) >= decisions)


async def until(condition: Callable[[], bool]) -> None:
    """Returns when it is true; not being so in a minute is a failure."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 (of a process there is no event to wait for)
            await asyncio.sleep(0.01)


class FullDisk:
    """A file system of our own, filled to its last byte. Needs the right to mount one."""

    def __init__(self, mount: Path) -> None:
        self._filler = mount / "filler"

    def fill(self, _: ServiceProcess) -> None:
        with self._filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    def free(self, _: ServiceProcess) -> None:
        self._filler.unlink()


class FileSizeLimit:
    """No file of the process may grow past what its write-ahead log has reached."""

    def fill(self, service: ServiceProcess) -> None:
        size = (service.data_dir / "ledger.sqlite-wal").stat().st_size
        self._limit(service, size)

    def free(self, service: ServiceProcess) -> None:
        self._limit(service, resource.RLIM_INFINITY)

    def _limit(self, service: ServiceProcess, size: int) -> None:
        assert service.pid is not None
        resource.prlimit(service.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


Fullness = FullDisk | FileSizeLimit


@contextlib.contextmanager
def mounted(folder: Path) -> Iterator[bool]:
    """A file system of 8 MB at `folder`, and whether we may mount one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "acclimate-test", str(folder)]
    try:
        may = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        may = False
    try:
        yield may
    finally:
        if may:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(params=["full disk", "file size limit"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Fullness]]:
    """A data folder on a disk that can be made full; where none may be mounted, by the limit."""
    folder = tmp_path / "data"
    if request.param == "file size limit":
        yield folder, FileSizeLimit()
        return
    with mounted(folder) as may:
        yield folder, FullDisk(folder) if may else FileSizeLimit()


async def test_on_a_full_disk_nothing_is_half_done_and_it_goes_on_once_there_is_room(
    service_process: Start, tmp_path: Path, disk: tuple[Path, Fullness]
) -> None:
    data_dir, fullness = disk
    shop = settings_of(tmp_path)
    process = service_process(data_dir=data_dir, **shop)
    try:
        async with events_of(process) as events:
            for step in range(6):
                await asyncio.gather(*(events.interact(one, step) for one in ACCOUNTS))
            assert not events.unanswered
            acknowledged_before = len(events.decisions)
            await events.decide("account-0", "open")
            fullness.fill(process)
            await until_refused(events)
            refused = len(events.unanswered)
            assert await events.learn("open", "first", 3.0) is None
            assert len(events.unanswered) == refused + 1
            read = await events.http.get("/v1/decisions/open")
            assert read.status_code == 200
            assert read.json()["feedback"] == []
            fullness.free(process)
            assert len(events.decisions) >= acknowledged_before
            await events.retry()
            for account in ACCOUNTS:
                await events.interact(account, 1_000)
            assert not events.unanswered
            assert not events.gone
            async with audited(process, **shop) as service:
                await audit.everything(service, events)
    finally:
        process.terminate()


async def until_refused(events: Events) -> None:
    """Decides until there is no room for one more: what was written may leave a little."""
    for i in range(10_000):
        if await events.decide("account-0", f"filling-{i}") is None:
            break
    assert await events.decide("account-1", "one-more") is None
    assert not events.gone


@pytest.fixture(params=["embedded", "redis and postgresql"])
def both(request: pytest.FixtureRequest, service_process: Start, tmp_path: Path) -> ServiceProcess:
    """The service as a process, in both profiles."""
    shop = settings_of(tmp_path)
    if request.param != "embedded":
        shop["redis_url"] = request.getfixturevalue("redis_url")
        shop["ledger_url"] = request.getfixturevalue("postgres_url")
    return service_process(**shop)


async def test_the_same_request_five_times_at_once_is_one(both: ServiceProcess) -> None:
    async with httpx.AsyncClient(base_url=both.base_url, timeout=10, headers=AUTHORIZATION) as http:
        for i in range(10):
            body = {"account_id": "a", "decision_id": f"d{i}", "context": CONTEXT}
            answers = await five_times(http, "/v1/workflows/help/decisions", body)
            assert len({answer.content for answer in answers}) == 1
            told = await five_times(http, f"/v1/decisions/d{i}/feedback", {"reward": 3})
            status = Counter(answer.json()["status"] for answer in told)
            assert status == {"folded": 1, "duplicate": 4}
            assert {answer.json()["memory_position"] for answer in told} == {i + 1}
            record = (await http.get(f"/v1/decisions/d{i}")).json()
            assert len(record["feedback"]) == 1
        account = (await http.get("/v1/workflows/help/accounts/a")).json()
        assert (account["decisions"], account["interactions"]) == (10, 10)


async def five_times(http: httpx.AsyncClient, path: str, body: Any) -> list[httpx.Response]:
    """Five answers to one request sent five times at once."""
    answers = await asyncio.gather(*(http.post(path, json=body) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {200}
    return answers
