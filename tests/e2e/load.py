"""Load on a live service: accounts that interact one step after another, all accounts at once.

Every request is sent, with the same ids, until it is answered, and every answer is written down:
what was acknowledged must be there afterwards, and no decision may have known less.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx

from tests.e2e.play import reward
from tests.processes import wait_until
from tests.service_process import AUTHORIZATION

PAUSE_SECONDS = 0.03
"""Between two interactions of an account: the load is steady, not as much as will go."""


@dataclass
class Step:
    """One decision and its feedback, as acknowledged."""

    account: str
    decision_id: str
    known: int
    """Interactions acknowledged before the decision was asked for."""
    decided_at: float = 0.0
    """When the decision was first asked for, in `time.monotonic()`."""
    seconds: float = 0.0
    """What the answered request for the decision took."""
    decision: dict[str, Any] = field(default_factory=dict)
    feedback: dict[str, Any] = field(default_factory=dict)


class Load:
    """Accounts that interact with the service at `base_url` for as long as the `with` lasts."""

    def __init__(
        self,
        base_url: str,
        accounts: int,
        *,
        prefix: str = "account",
        workflow: str = "brand-choice",
        service_ends: bool = False,
    ) -> None:
        """`service_ends`: the service itself may be gone at times, not only what it stands on."""
        self.accounts = [f"{prefix}-{i}" for i in range(accounts)]
        self.workflow = workflow
        self.steps: dict[str, list[Step]] = defaultdict(list)
        """By account, in the order of time."""
        self.refused = 0
        """Answers that were 503."""
        self.cut_off: list[str] = []
        """Requests that were sent over a connection and got no answer over it."""
        self.wrong: list[str] = []
        """Answers that should not have been."""
        self._base_url = base_url
        self._service_ends = service_ends
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._drive()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def go_on(self, steps: int, *, timeout_seconds: float = 60) -> None:
        """Returns when every account has done so many steps more."""
        goal = {account: self._done(account) + steps for account in self.accounts}
        assert wait_until(
            lambda: (
                bool(self.wrong) or all(self._done(one) >= steps for one, steps in goal.items())
            ),
            timeout_seconds=timeout_seconds,
        ), "the service does not answer any more"

    def all_steps(self) -> list[Step]:
        """Every acknowledged step of every account."""
        return [step for steps in self.steps.values() for step in steps if step.feedback]

    def check_answers(self) -> None:
        """No request failed other than as 503."""
        assert not self.wrong, self.wrong[:5]

    def check_nothing_behind(self) -> None:
        """Every decision of the policy was made from all that its account had been told of."""
        for step in self.all_steps():
            if step.decision["reason"] == "policy":
                made_from = step.decision["memory_generation"], step.decision["memory_position"]
                assert made_from == (0, step.known), step
            assert step.feedback["memory_position"] == step.known + 1, step

    def check_nothing_lost(self) -> None:
        """Everything acknowledged is read back over the API as it was answered."""
        asyncio.run(self._read_back())

    def check(self) -> None:
        """All of it. After the `with`."""
        self.check_answers()
        self.check_nothing_behind()
        self.check_nothing_lost()

    def _done(self, account: str) -> int:
        return sum(bool(step.feedback) for step in self.steps[account])

    async def _drive(self) -> None:
        async with self._client() as http:
            await asyncio.gather(*(self._live(http, account) for account in self.accounts))

    async def _live(self, http: httpx.AsyncClient, account: str) -> None:
        try:
            while not self._stop.is_set():
                await self._step(http, account)
                await asyncio.sleep(PAUSE_SECONDS)
        except Exception as error:
            self.wrong.append(f"{account}: {error!r}")

    async def _step(self, http: httpx.AsyncClient, account: str) -> None:
        number = len(self.steps[account])
        step = Step(account, f"{account}-{number}", number, time.monotonic())
        asked = {"account_id": account, "decision_id": step.decision_id}
        path = f"/v1/workflows/{self.workflow}/decisions"
        step.decision, step.seconds = await self._send(http, path, asked)
        self.steps[account].append(step)
        told = {"reward": reward(account, number, step.decision["action"])}
        path = f"/v1/decisions/{step.decision_id}/feedback"
        step.feedback, _ = await self._send(http, path, told)

    async def _send(
        self, http: httpx.AsyncClient, path: str, body: dict[str, Any]
    ) -> tuple[dict[str, Any], float]:
        """The answer, and the seconds that it took."""
        while True:
            started = time.monotonic()
            try:
                answer = await http.post(path, json=body)
            except httpx.TransportError as error:
                if not self._service_ends:
                    raise
                if not isinstance(error, httpx.ConnectError):
                    self.cut_off.append(f"{path}: {error!r}")
                await asyncio.sleep(0.05)
                continue
            if answer.status_code == 200:
                parsed: dict[str, Any] = answer.json()
                return parsed, time.monotonic() - started
            assert answer.status_code == 503, answer.text
            self.refused += 1
            await asyncio.sleep(0.05)

    async def _read_back(self) -> None:
        in_turn = asyncio.Semaphore(16)
        async with self._client() as http:

            async def read(path: str) -> dict[str, Any]:
                async with in_turn:
                    answer = await http.get(path)
                assert answer.status_code == 200, answer.text
                parsed: dict[str, Any] = answer.json()
                return parsed

            async def one(step: Step) -> None:
                record = await read(f"/v1/decisions/{step.decision_id}")
                assert {name: record[name] for name in step.decision} == step.decision
                if step.feedback:
                    (kept,) = record["feedback"]
                    told = {name: kept[name] for name in ("reward", "late", "memory_position")}
                    assert {name: step.feedback[name] for name in told} == told

            async def account(name: str) -> None:
                record = await read(f"/v1/workflows/{self.workflow}/accounts/{name}")
                assert record["interactions"] == self._done(name)
                assert record["decisions"] == len(self.steps[name])

            await asyncio.gather(
                *(one(step) for steps in self.steps.values() for step in steps),
                *(account(name) for name in self.accounts),
            )

    def _client(self) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=len(self.accounts) + 16)
        return httpx.AsyncClient(
            base_url=self._base_url, timeout=15, limits=limits, headers=AUTHORIZATION
        )
