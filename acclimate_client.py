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

LARGEST_BATCH = 256
"""Items that are sent at once; of more, one batch after another."""


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


@dataclass(frozen=True)
class Ask:
    """One of many decisions to be made."""

    account_id: str
    context: Mapping[str, Any] | None = None
    actions: Sequence[str] | None = None
    episode_id: str | None = None
    decision_id: str | None = None


@dataclass(frozen=True)
class Tell:
    """What came of one of many decisions."""

    decision_id: str
    reward: float | None = None
    outcome: str | None = None
    feedback_id: str | None = None
    episode_end: bool = False
    occurred_at: datetime | None = None


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


class DeniedError(AcclimateError):
    """The key is missing or not valid (401), or may not do this (403)."""


class UnavailableError(AcclimateError):
    """No answer, or 503, at every attempt. The same ids may be sent again at any time."""


class RateLimitedError(UnavailableError):
    """The key asked too often, at every attempt, each after the pause that the service named."""

    def __init__(self, detail: str, pause_seconds: float, fields: Sequence[str] = ()) -> None:
        super().__init__(detail, 429, fields)
        self.pause_seconds = pause_seconds


class _PartlyUnavailableError(UnavailableError):
    """Some items of a batch may be sent again; `answer` is what there is so far."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__("some items were not taken", 503)
        self.answer = answer


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
    """Speaks to one service for one tenant. Thread-safe; close it, or use it in a `with`.

    `key` is what the service gave out. `tenant` is for a key of every tenant, and for a service
    that needs none; any other key's tenant is its own.
    """

    def __init__(
        self,
        base_url: str,
        *,
        key: str | None = None,
        tenant: str | None = None,
        timeout_seconds: float = 5.0,
        retries: Retries | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._retries = retries or Retries()
        self._http = httpx.Client(
            base_url=base_url,
            headers=_headers(key, tenant),
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
        ask = Ask(account_id, context, actions, episode_id, decision_id)
        return _decision(self._send(_decision_call(workflow, ask)))

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
        tell = Tell(decision_id, reward, outcome, feedback_id, episode_end, occurred_at)
        return _learned(self._send(_feedback_call(tell)))

    def decide_many(self, workflow: str, asks: Sequence[Ask]) -> list[Decision | AcclimateError]:
        """For each the decision, or the error that `decide` would raise; all of an account's are
        made from its memory as it is. Raises the AcclimateErrors where nothing could be done."""
        calls = _decisions_calls(workflow, asks)
        return [one for call in calls for one in _decisions(self._send(call))]

    def learn_many(self, tells: Sequence[Tell]) -> list[Learned | AcclimateError]:
        """For each what became of it, or the error that `learn` would raise; learned in their
        order. Raises the AcclimateErrors where nothing could be done."""
        return [one for call in _feedbacks_calls(tells) for one in _learneds(self._send(call))]

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
                    return _gave_up(error)
                pause = _at_least(pause, error)
            time.sleep(pause)


class AsyncClient:
    """`Client` for asyncio."""

    def __init__(
        self,
        base_url: str,
        *,
        key: str | None = None,
        tenant: str | None = None,
        timeout_seconds: float = 5.0,
        retries: Retries | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._retries = retries or Retries()
        self._http = httpx.AsyncClient(
            base_url=base_url,
            headers=_headers(key, tenant),
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
        ask = Ask(account_id, context, actions, episode_id, decision_id)
        return _decision(await self._send(_decision_call(workflow, ask)))

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
        tell = Tell(decision_id, reward, outcome, feedback_id, episode_end, occurred_at)
        return _learned(await self._send(_feedback_call(tell)))

    async def decide_many(
        self, workflow: str, asks: Sequence[Ask]
    ) -> list[Decision | AcclimateError]:
        """See Client."""
        calls = _decisions_calls(workflow, asks)
        return [one for call in calls for one in _decisions(await self._send(call))]

    async def learn_many(self, tells: Sequence[Tell]) -> list[Learned | AcclimateError]:
        """See Client."""
        calls = _feedbacks_calls(tells)
        return [one for call in calls for one in _learneds(await self._send(call))]

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
                    return _gave_up(error)
                pause = _at_least(pause, error)
            await asyncio.sleep(pause)


def _headers(key: str | None, tenant: str | None) -> dict[str, str]:
    headers = {}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    if tenant is not None:
        headers["X-Acclimate-Tenant"] = tenant
    return headers


def _at_least(pause: float, error: Exception) -> float:
    return max(pause, error.pause_seconds) if isinstance(error, RateLimitedError) else pause


def _decision_call(workflow: str, ask: Ask) -> _Call:
    return _Call(f"/v1/workflows/{quote(workflow, safe='')}/decisions", _decision_body(ask))


def _feedback_call(tell: Tell) -> _Call:
    path = f"/v1/decisions/{quote(tell.decision_id, safe='')}/feedback"
    return _Call(path, _feedback_body(tell))


def _decisions_calls(workflow: str, asks: Sequence[Ask]) -> list[_Call]:
    path = f"/v1/workflows/{quote(workflow, safe='')}/decisions/batch"
    bodies = [_decision_body(ask) for ask in asks]
    return [_Call(path, {"decisions": part}) for part in _parts(bodies)]


def _feedbacks_calls(tells: Sequence[Tell]) -> list[_Call]:
    bodies = [{"decision_id": tell.decision_id} | _feedback_body(tell) for tell in tells]
    return [_Call("/v1/feedback/batch", {"feedback": part}) for part in _parts(bodies)]


def _parts(bodies: Sequence[dict[str, Any]]) -> Iterator[Sequence[dict[str, Any]]]:
    for start in range(0, len(bodies), LARGEST_BATCH):
        yield bodies[start : start + LARGEST_BATCH]


def _decision_body(ask: Ask) -> dict[str, Any]:
    return {
        "decision_id": ask.decision_id or secrets.token_hex(16),
        "account_id": ask.account_id,
        "context": dict(ask.context or {}),
        "actions": None if ask.actions is None else list(ask.actions),
        "episode_id": ask.episode_id,
    }


def _feedback_body(tell: Tell) -> dict[str, Any]:
    return {
        "reward": tell.reward,
        "outcome": tell.outcome,
        "feedback_id": tell.feedback_id,
        "episode_end": tell.episode_end,
        "occurred_at": None if tell.occurred_at is None else tell.occurred_at.isoformat(),
    }


def _answer(response: httpx.Response) -> dict[str, Any]:
    """The answer's body. Raises the error that the answer is."""
    if response.status_code == 200:
        answer: dict[str, Any] = response.json()
        if any(one["status"] == 503 for one in answer.get("results", [])):
            raise _PartlyUnavailableError(answer)
        return answer
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    if response.status_code == 429:
        after = response.headers.get("Retry-After", "1")
        seconds = float(after) if after.isdigit() else 1.0
        raise RateLimitedError(problem.get("detail") or "status 429", seconds)
    raise _error(problem, response.status_code)


def _error(problem: Mapping[str, Any], status: int) -> AcclimateError:
    detail = problem.get("detail") or f"status {status}"
    fields = [str(one.get("field")) for one in problem.get("errors", [])]
    kind = AcclimateError
    if str(problem.get("type", "")).endswith(":id-conflict"):
        kind = IdConflictError
    elif status in (401, 403):
        kind = DeniedError
    elif status == 404:
        kind = NotFoundError
    elif status in (502, 503, 504):
        kind = UnavailableError
    elif 400 <= status < 500:
        kind = InvalidRequestError
    return kind(detail, status, fields)


def _gave_up(error: Exception) -> dict[str, Any]:
    """What there is after the last attempt. Raises UnavailableError when that is nothing."""
    if isinstance(error, _PartlyUnavailableError):
        return error.answer
    if isinstance(error, UnavailableError):
        raise error
    raise UnavailableError(f"no answer: {type(error).__name__}") from error


def _decisions(answer: Mapping[str, Any]) -> list[Decision | AcclimateError]:
    return [
        _decision(one["decision"])
        if one["status"] == 200
        else _error(one["problem"], one["status"])
        for one in answer["results"]
    ]


def _learneds(answer: Mapping[str, Any]) -> list[Learned | AcclimateError]:
    return [
        _learned(one["feedback"]) if one["status"] == 200 else _error(one["problem"], one["status"])
        for one in answer["results"]
    ]


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
