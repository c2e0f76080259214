"""Killed, restarted or flushed in the middle, the service goes on as if nothing had happened."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.e2e.play import KEY, Story, play
from tests.servers import Server
from tests.service_process import ServiceProcess

ACCOUNTS, STEPS = 12, 14

Start = Callable[..., ServiceProcess]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """What happens when nothing happens."""
    service = ServiceProcess(tmp_path_factory.mktemp("undisturbed"), installation_key=KEY)
    service.start()
    try:
        return play(service.base_url, ACCOUNTS, STEPS)
    finally:
        service.terminate()


def test_every_decision_is_made_from_all_that_came_before(
    undisturbed: Story,
) -> None:
    for story in undisturbed.values():
        assert [position for _, _, position, _ in story] == list(range(STEPS))
        assert {reason for *_, reason in story} == {"policy"}


@pytest.mark.parametrize("end", ["kill", "terminate"])
def test_a_service_that_ends_under_load_and_comes_back_decides_the_same(
    service_process: Start, undisturbed: Story, end: str
) -> None:
    service = service_process(installation_key=KEY)

    def interrupt(step: int) -> None:
        if step in (4, 9):  # while requests of the step are in flight

            def again() -> None:
                getattr(service, end)()
                service.start()

            threading.Timer(0.02, again).start()

    assert play(service.base_url, ACCOUNTS, STEPS, interrupt) == undisturbed


def test_a_redis_that_is_flushed_under_the_service_changes_no_decision(
    service_process: Start,
    redis_url: str,
    redis_server: Server,
    undisturbed: Story,
) -> None:
    service = service_process(installation_key=KEY, redis_url=redis_url, memory_timeout_seconds=5)

    def flush(step: int) -> None:
        if step in (3, 8, 9):
            redis_server.flush()

    assert play(service.base_url, ACCOUNTS, STEPS, flush) == undisturbed


def test_on_redis_and_postgresql_the_decisions_are_those_of_the_embedded_profile(
    service_process: Start, redis_url: str, postgres_url: str, undisturbed: Story
) -> None:
    service = service_process(
        installation_key=KEY,
        redis_url=redis_url,
        ledger_url=postgres_url,
        memory_timeout_seconds=5,
    )
    assert play(service.base_url, ACCOUNTS, STEPS) == undisturbed
