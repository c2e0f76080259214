"""A small client: decide and learn, sync or async, with retries that are always safe.

Every decision has an id before it is first sent, so that a request whose answer got lost is sent
again as it was and gets the answer it would have had.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx


@dataclass(frozen=True)
class Decision:
    """One action chosen for one account."""

    decision_id: str
    account_id: str
    action: str
    probability: float
    reason: str
    """`policy`, or why something else chose."""
    policy: str
    memory_position: int
    """How many interactions the memory held that it was made from."""
    limits: tuple[str, ...]
    expires_at: datetime


@dataclass(frozen=True)
class Learned:
    """What became of one piece of feedback."""

    decision_id: str
    status: str
    """`folded`: the account's next decision knows it; `recorded`; `duplicate`."""
    reward: float
    late: bool
    memory_position: int | None


class AcclimateError(Exception):
    """The service said no, or nothing. `status` is None when it said nothing."""

    def __init__(self, detail: str, status: int | None = None, fields: Sequence[str] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.fields = tuple(fields)
        """The fields of the request that were off."""


class InvalidRequestError(AcclimateError):
    """The request does not fit the workflow; sending it again will not help."""


class NotFoundError(AcclimateError):
    """No such workflow, decision or account of this tenant."""


class IdConflictError(AcclimateError):
    """This id came before with another body."""


class UnavailableError(AcclimateError):
    """No answer, or 503, at every attempt. The same ids may be sent again at any time."""


@dataclass(frozen=True)
class Retries:
    """How long to go on: attempts, and seconds between them, doubling, each shortened by up to a
    half at random so that many clients do not come back at once."""

    attempts: int = 5
    first_pause_seconds: float = 0.05
    longest_pause_seconds: float = 2.0

    def pauses(self) -> Iterator[float]:
        """Seconds to wait before each further attempt."""
        for attempt in range(self.attempts - 1):
            pause = min(self.first_pause_seconds * 2**attempt, self.longest_pause_seconds)
            yield pause * random.uniform(0.5, 1.0)


@dataclass(frozen=True)
class _Call:
    """One request, as it is sent however often."""

    path: str
    body: dict[str, Any]


class Client:
    """Speaks to one service for one tenant. Thread-safe; close it, or use it in a `with`."""

    def __init__(
        self,
        base_url: str,
        *,
        tenant: str = "default",
        timeout_seconds: float = 5.0,
        retries: Retries | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._retries = retries or Retries()
        self._http = httpx.Client(
            base_url=base_url,
            headers={"X-Acclimate-Tenant": tenant},
            timeout=timeout_seconds,
            transport=transport,
        )

    def decide(
        self,
        workflow: str,
        account_id: str,
        context: Mapping[str, Any] | None = None,
        *,
        actions: Sequence[str] | None = None,
        episode_id: str | None = None,
        decision_id: str | None = None,
    ) -> Decision:
        """An action for this account, now. Raises the AcclimateErrors."""
        call = _decision_call(workflow, account_id, context, actions, episode_id, decision_id)
        return _decision(self._send(call))

    def learn(
        self,
        decision_id: str,
        *,
        reward: float | None = None,
        outcome: str | None = None,
        feedback_id: str | None = None,
        episode_end: bool = False,
        occurred_at: datetime | None = None,
    ) -> Learned:
        """Tells what came of a decision. Raises the AcclimateErrors."""
        call = _feedback_call(decision_id, reward, outcome, feedback_id, episode_end, occurred_at)
        return _learned(self._send(call))

    def close(self) -> None:
        """Closes its connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _send(self, call: _Call) -> dict[str, Any]:
        pauses = self._retries.pauses()
        while True:
            try:
                return _answer(self._http.post(call.path, json=call.body))
            except (httpx.TransportError, UnavailableError) as error:
                pause = next(pauses, None)
                if pause is None:
                    raise _gave_up(error) from error
            time.sleep(pause)


class AsyncClient:
    """`Client` for asyncio."""

    def __init__(
        self,
        base_url: str,
        *,
        tenant: str = "default",
        timeout_seconds: float = 5.0,
        retries: Retries | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._retries = retries or Retries()
        self._http = httpx.AsyncClient(
            base_url=base_url,
            headers={"X-Acclimate-Tenant": tenant},
            timeout=timeout_seconds,
            transport=transport,
        )

    async def decide(
        self,
        workflow: str,
        account_id: str,
        context: Mapping[str, Any] | None = None,
        *,
        actions: Sequence[str] | None = None,
        episode_id: str | None = None,
        decision_id: str | None = None,
    ) -> Decision:
        """See Client."""
        call = _decision_call(workflow, account_id, context, actions, episode_id, decision_id)
        return _decision(await self._send(call))

    async def learn(
        self,
        decision_id: str,
        *,
        reward: float | None = None,
        outcome: str | None = None,
        feedback_id: str | None = None,
        episode_end: bool = False,
        occurred_at: datetime | None = None,
    ) -> Learned:
        """See Client."""
        call = _feedback_call(decision_id, reward, outcome, feedback_id, episode_end, occurred_at)
        return _learned(await self._send(call))

    async def aclose(self) -> None:
        """Closes its connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _send(self, call: _Call) -> dict[str, Any]:
        pauses = self._retries.pauses()
        while True:
            try:
                return _answer(await self._http.post(call.path, json=call.body))
            except (httpx.TransportError, UnavailableError) as error:
                pause = next(pauses, None)
                if pause is None:
                    raise _gave_up(error) from error
            await asyncio.sleep(pause)


def _decision_call(
    workflow: str,
    account_id: str,
    context: Mapping[str, Any] | None,
    actions: Sequence[str] | None,
    episode_id: str | None,
    decision_id: str | None,
) -> _Call:
    body = {
        "decision_id": decision_id or secrets.token_hex(16),
        "account_id": account_id,
        "context": dict(context or {}),
        "actions": None if actions is None else list(actions),
        "episode_id": episode_id,
    }
    return _Call(f"/v1/workflows/{quote(workflow, safe='')}/decisions", body)


def _feedback_call(
    decision_id: str,
    reward: float | None,
    outcome: str | None,
    feedback_id: str | None,
    episode_end: bool,
    occurred_at: datetime | None,
) -> _Call:
    body = {
        "reward": reward,
        "outcome": outcome,
        "feedback_id": feedback_id,
        "episode_end": episode_end,
        "occurred_at": None if occurred_at is None else occurred_at.isoformat(),
    }
    return _Call(f"/v1/decisions/{quote(decision_id, safe='')}/feedback", body)


def _answer(response: httpx.Response) -> dict[str, Any]:
    """The answer's body. Raises the error that the answer is."""
    if response.status_code == 200:
        answer: dict[str, Any] = response.json()
        return answer
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    detail = problem.get("detail") or f"status {response.status_code}"
    fields = [str(one.get("field")) for one in problem.get("errors", [])]
    kind = AcclimateError
    if str(problem.get("type", "")).endswith(":id-conflict"):
        kind = IdConflictError
    elif response.status_code == 404:
        kind = NotFoundError
    elif response.status_code in (502, 503, 504):
        kind = UnavailableError
    elif 400 <= response.status_code < 500:
        kind = InvalidRequestError
    raise kind(detail, response.status_code, fields)


def _gave_up(error: Exception) -> UnavailableError:
    if isinstance(error, UnavailableError):
        return error
    return UnavailableError(f"no answer: {type(error).__name__}")


def _decision(answer: Mapping[str, Any]) -> Decision:
    return Decision(
        decision_id=answer["decision_id"],
        account_id=answer["account_id"],
        action=answer["action"],
        probability=answer["probability"],
        reason=answer["reason"],
        policy=answer["policy"],
        memory_position=answer["memory_position"],
        limits=tuple(answer["limits"]),
        expires_at=datetime.fromisoformat(answer["expires_at"]),
    )


def _learned(answer: Mapping[str, Any]) -> Learned:
    return Learned(
        decision_id=answer["decision_id"],
        status=answer["status"],
        reward=answer["reward"],
        late=answer["late"],
        memory_position=answer["memory_position"],
    )
