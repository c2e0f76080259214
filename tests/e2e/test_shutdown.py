"""A replica that is asked to end under load loses nothing, cuts nobody off and ends with 0; and two
of them are restarted one after another behind a balancer without a request that fails.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from acclimate_client import AcclimateError, AsyncClient
from tests.e2e.load import Load
from tests.e2e.play import reward
from tests.e2e.proxy import CHECK_SECONDS, Proxy
from tests.processes import wait_until
from tests.service_process import ADMIN_KEY, ServiceProcess

Start = Callable[..., ServiceProcess]
ACCOUNTS = 24
DRAIN_SECONDS = 3.0
"""Enough for every account to interact once more, also where tests share two cores."""


def readiness(service: ServiceProcess) -> int:
    """The status of /readyz; 0: nobody answers."""
    try:
        with urllib.request.urlopen(f"{service.base_url}/readyz", timeout=2) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@pytest.mark.parametrize("drain_seconds", [DRAIN_SECONDS, 0.0])
def test_sigterm_under_load_cuts_nobody_off_and_loses_nothing(
    service_process: Start, redis_url: str, postgres_url: str, drain_seconds: float
) -> None:
    service = service_process(
        redis_url=redis_url, ledger_url=postgres_url, drain_seconds=drain_seconds
    )
    with Load(service.base_url, ACCOUNTS, service_ends=True) as load:
        for _ in range(2):
            load.go_on(5)
            assert service.pid is not None
            asked_at = time.monotonic()
            os.kill(service.pid, signal.SIGTERM)
            if drain_seconds:
                assert wait_until(lambda: readiness(service) == 503, timeout_seconds=1)
                load.go_on(1, timeout_seconds=drain_seconds - 1)  # it serves on
            assert service.ended(timeout_seconds=drain_seconds + 12) == 0
            assert time.monotonic() - asked_at >= drain_seconds
            service.terminate()
            service.start()
        load.go_on(3)
    assert load.refused == 0
    assert not load.cut_off, load.cut_off[:5]
    load.check()


@dataclass
class Callers:
    """Accounts that interact through the Python client, with its own retries, as a product does."""

    base_url: str
    accounts: int
    answered: int = 0
    failed: list[str] = field(default_factory=list)
    positions: dict[str, int] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        asyncio.run(self._all())

    def stop(self) -> None:
        self._stop.set()

    def go_on(self, requests: int) -> None:
        """Returns when so many more were answered."""
        goal = self.answered + requests
        assert wait_until(lambda: self.answered > goal, timeout_seconds=30), self.failed

    async def _all(self) -> None:
        async with AsyncClient(self.base_url, key=ADMIN_KEY) as client:
            await asyncio.gather(*(self._live(client, i) for i in range(self.accounts)))

    async def _live(self, client: AsyncClient, number: int) -> None:
        account, known = f"caller-{number}", 0
        while not self._stop.is_set():
            try:
                decision = await client.decide("brand-choice", account)
                assert decision.memory_position == known, (account, decision, known)
                told = reward(account, known, decision.action)
                learned = await client.learn(decision.decision_id, reward=told)
            except (AcclimateError, AssertionError) as error:
                self.failed.append(f"{account} at {known}: {error!r}")
                return
            assert learned.memory_position is not None
            known = self.positions[account] = learned.memory_position
            self.answered += 2
            await asyncio.sleep(0.02)


def test_a_rolling_restart_behind_a_balancer_fails_no_request(
    service_process: Start, redis_url: str, postgres_url: str, tmp_path: Path
) -> None:
    settings = {"redis_url": redis_url, "ledger_url": postgres_url, "drain_seconds": DRAIN_SECONDS}
    replicas = [
        service_process(**settings, installation_key="one-key-for-both-replicas") for _ in range(2)
    ]
    assert DRAIN_SECONDS > 3 * CHECK_SECONDS  # a balancer has the time to see it
    with Proxy([one.port for one in replicas]) as proxy:
        callers = Callers(proxy.base_url, ACCOUNTS)
        thread = threading.Thread(target=callers.run)
        thread.start()
        try:
            # The first once more, so that every caller comes to the second again.
            for replica in (*replicas, replicas[0]):
                callers.go_on(200)
                assert replica.pid is not None
                os.kill(replica.pid, signal.SIGTERM)
                assert replica.ended(timeout_seconds=DRAIN_SECONDS + 12) == 0
                replica.terminate()
                replica.start()
                assert wait_until(lambda: len(proxy.ready) == 2, timeout_seconds=5)
            callers.go_on(200)
        finally:
            callers.stop()
            thread.join()
        print(f"{callers.answered} requests answered, {len(callers.failed)} failed", proxy.handed)
    assert not callers.failed, callers.failed[:5]
    assert proxy.refused == 0
    assert min(proxy.handed.values()) > ACCOUNTS  # both served, again and again
    assert len(callers.positions) == ACCOUNTS
