"""Plays bandit accounts through the service over HTTP. It never looks into the service.

An account is strictly sequential: decide, then feedback, then the next decision. Ids come from the
account, so a run can be repeated, and a request that found no service is sent again as it was.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0


class PlayError(RuntimeError):
    """The service gave an answer that nobody can play on."""


@dataclass(frozen=True)
class Account:
    """One account whose outcomes are known: the action that earns 1 at each step, oldest first."""

    account_id: str
    rewarded: tuple[str, ...]


@dataclass
class Journey:
    """What an account went through."""

    actions: list[str] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    decide_seconds: list[float] = field(default_factory=list)
    """How long each answered decide request took."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Who decided, and why: `policy`, or what made the fallback answer."""


class Player:
    """Plays accounts of one workflow, any number at once, with few requests in flight.

    Accounts take turns, an interaction each. A service that is away is waited for,
    `patience_seconds`.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        workflow: str,
        *,
        in_flight: int = 8,
        patience_seconds: float = 60.0,
    ) -> None:
        self._client = client
        self._decisions = f"/v1/workflows/{workflow}/decisions"
        self._slots = asyncio.Semaphore(in_flight)
        self._patience_seconds = patience_seconds

    async def play(
        self, account: Account, on_interaction: Callable[[], None] = lambda: None
    ) -> Journey:
        """All steps of one account. Raises PlayError."""
        journey = Journey()
        for step, rewarded in enumerate(account.rewarded):
            async with self._slots:
                await self._interact(account.account_id, step, rewarded, journey)
            on_interaction()
        return journey

    async def _interact(self, account_id: str, step: int, rewarded: str, journey: Journey) -> None:
        """One decision and its feedback."""
        decision_id = f"{account_id}-{step}"
        decision, seconds = await self._post(
            self._decisions,
            {"decision_id": decision_id, "account_id": account_id, "context": {}},
        )
        reward = float(decision["action"] == rewarded)
        await self._post(
            f"/v1/decisions/{decision_id}/feedback",
            {"feedback_id": decision_id, "reward": reward},
        )
        journey.actions.append(decision["action"])
        journey.rewards.append(reward)
        journey.decide_seconds.append(seconds)
        journey.reasons[decision["reason"]] += 1

    async def _post(self, path: str, body: dict[str, Any]) -> tuple[dict[str, Any], float]:
        """The answer, and how long the request took that got it."""
        give_up_at = time.monotonic() + self._patience_seconds
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            started = time.perf_counter()
            try:
                response = await self._client.post(path, json=body)
                trouble = f"{response.status_code}: {response.text[:500]}"
            except httpx.TransportError as error:
                response = None
                trouble = f"{type(error).__name__}: {error}"
            seconds = time.perf_counter() - started
            if response is not None and response.is_success:
                answer: dict[str, Any] = response.json()
                return answer, seconds
            away = response is None or response.status_code == httpx.codes.SERVICE_UNAVAILABLE
            if not away or time.monotonic() > give_up_at:
                raise PlayError(f"POST {path} {body}: {trouble}")
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)


async def play_all(
    player: Player,
    accounts: Sequence[Account],
    on_interaction: Callable[[Account], None] = lambda account: None,
) -> list[Journey]:
    """The journeys of all accounts, played at once, in their order. A PlayError ends them all."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(player.play(account, partial(on_interaction, account)))
                for account in accounts
            ]
    except* PlayError as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
