"""Whatever becomes of Redis under load, nothing acknowledged is lost and nobody decides on old
memories; and soon after it is back, every memory is its replay, bit for bit.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.load import Load
from tests.e2e.replayed import check_memories
from tests.redis_server import stored
from tests.servers import OwnServer, Server, unavailable
from tests.service_process import ServiceProcess

ACCOUNTS = 20
HEALED_SECONDS = 5
"""After Redis is back."""

Start = Callable[..., ServiceProcess]


@pytest.fixture
def own_redis(redis_url: str, redis_server: Server) -> OwnServer:
    """An empty Redis whose files a test may change."""
    if not isinstance(redis_server, OwnServer):
        unavailable("the files of a server given by its address cannot be changed")
    return redis_server


@pytest.fixture(scope="module")
def service(
    redis_server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServiceProcess]:
    """One service for all disasters: it lives through each of them."""
    home = tmp_path_factory.mktemp("disasters") / "service"
    service = ServiceProcess(home, redis_url=redis_server.url)
    service.start()
    yield service
    service.terminate()


def check(service: ServiceProcess, load: Load, redis: OwnServer, back_at: float) -> None:
    """All that must be true after a disaster that was over at `back_at`."""
    check_memories(service, partial(stored, redis.url), load.accounts, back_at + HEALED_SECONDS)
    load.check()
    assert {steps[-1].decision["reason"] for steps in load.steps.values()} == {"policy"}


@pytest.mark.parametrize("files", ["as they were", "gone", "an old copy"])
def test_redis_is_killed_under_load_and_comes_back_with_its_files(
    service: ServiceProcess, own_redis: OwnServer, tmp_path: Path, files: str
) -> None:
    with Load(service.base_url, ACCOUNTS, prefix=files.replace(" ", "_")) as load:
        load.go_on(3)
        shutil.copytree(own_redis.data_dir, tmp_path / "copy")
        load.go_on(8)
        own_redis.kill()
        load.go_on(2)
        if files != "as they were":
            shutil.rmtree(own_redis.data_dir)
            own_redis.data_dir.mkdir()
        if files == "an old copy":
            shutil.copytree(tmp_path / "copy", own_redis.data_dir, dirs_exist_ok=True)
        own_redis.start()
        back_at = time.monotonic()
        load.go_on(5)
    check(service, load, own_redis, back_at)
    assert any(step.decision["reason"] == "memory_unavailable" for step in load.all_steps())


def test_redis_is_flushed_again_and_again_under_load(
    service: ServiceProcess, own_redis: OwnServer
) -> None:
    with Load(service.base_url, ACCOUNTS, prefix="flushed") as load:
        for _ in range(6):
            load.go_on(2)
            own_redis.flush()
        back_at = time.monotonic()
        load.go_on(2)
    check(service, load, own_redis, back_at)
    assert {step.decision["reason"] for step in load.all_steps()} == {"policy"}


def test_redis_is_paused_for_ten_seconds_under_load(
    service: ServiceProcess, own_redis: OwnServer
) -> None:
    with Load(service.base_url, ACCOUNTS, prefix="paused") as load:
        load.go_on(3)
        with own_redis.pause():
            paused_at = time.monotonic()
            time.sleep(10)
        back_at = time.monotonic()
        load.go_on(5)
    check(service, load, own_redis, back_at)
    # Half a second for what was on its way when it was paused.
    during = [s for s in load.all_steps() if paused_at + 0.5 < s.decided_at < back_at - 1]
    assert {step.decision["reason"] for step in during} == {"memory_unavailable"}
    assert statistics.median(step.seconds for step in during) < 1
