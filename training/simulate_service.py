"""A running service as the simulator sees it: what it serves, what became of accounts, and its
errors as what they mean to a run."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from acclimate_client import (
    AcclimateError,
    AsyncClient,
    Decision,
    Learned,
    Retries,
    UnavailableError,
)
from contract.spec import WorkflowSpec

S = TypeVar("S", Decision, Learned)

_ADDRESS = re.compile(r"https?://[^/\s?#]+/?")

TIMEOUT_SECONDS = 10.0
LONGEST_PAUSE_SECONDS = 2.0


class ServiceAwayError(RuntimeError):
    """Nobody answers, or nobody who could, for longer than there is patience."""


class RefusedError(RuntimeError):
    """The service gave an answer that nobody can play on."""


class Service:
    """One running service as a caller sees it. Use in an `async with`."""

    def __init__(
        self, url: str, *, key: str | None, tenant: str | None, patience_seconds: float
    ) -> None:
        """A service that is away is waited for, `patience_seconds`. Raises ValueError."""
        if not _ADDRESS.fullmatch(url):
            raise ValueError(f"url: expected http://host:port, got {url!r}")
        self.url = url
        self._patience_seconds = patience_seconds
        attempts = 7 + round(patience_seconds / (0.75 * LONGEST_PAUSE_SECONDS))
        retries = Retries(attempts, longest_pause_seconds=LONGEST_PAUSE_SECONDS)
        self.client = AsyncClient(
            url, key=key, tenant=tenant, timeout_seconds=TIMEOUT_SECONDS, retries=retries
        )
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        if tenant is not None:
            headers["X-Acclimate-Tenant"] = tenant
        self._http = httpx.AsyncClient(base_url=url, headers=headers, timeout=TIMEOUT_SECONDS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.aclose()
        await self.client.aclose()

    async def spec(self, workflow: str) -> WorkflowSpec:
        """The workflow as it is served. Raises ServiceAwayError, and ValueError when it is not."""
        answer = await self._get(f"/v1/workflows/{workflow}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            served = (await self._get("/v1/workflows")).json()["workflows"]
            names = ", ".join(one["workflow"] for one in served)
            raise ValueError(
                f"workflow: expected one that {self.url} serves ({names}), got {workflow}"
            )
        return WorkflowSpec.model_validate_json(json.dumps(_answered(answer)["spec"]))

    async def adapted_at(self, workflow: str, account: str) -> int | None:
        """The interaction at which an account first adapted."""
        answer = await self._get(f"/v1/workflows/{workflow}/accounts/{account}")
        adapted: int | None = _answered(answer)["adapted_at"]
        return adapted

    async def _get(self, path: str) -> httpx.Response:
        give_up_at = time.monotonic() + self._patience_seconds
        while True:
            try:
                response = await self._http.get(path)
                if response.status_code < 500:
                    return response
                trouble = f"status {response.status_code}"
            except httpx.TransportError as error:
                trouble = f"{type(error).__name__}: {error}"
            if time.monotonic() > give_up_at:
                raise ServiceAwayError(f"no service at {self.url}: {trouble}")
            await asyncio.sleep(0.25)


def _answered(response: httpx.Response) -> dict[str, Any]:
    if not response.is_success:
        raise RefusedError(f"{response.request.url}: {response.status_code}: {response.text[:500]}")
    body: dict[str, Any] = response.json()
    return body


@contextmanager
def understood() -> Iterator[None]:
    """The client's errors as what they mean to a run."""
    try:
        yield
    except UnavailableError as error:
        raise ServiceAwayError(str(error)) from error
    except AcclimateError as error:
        raise RefusedError(str(error)) from error


def sound(answer: S | AcclimateError) -> S:
    """An item of a batch. Raises the error that it is."""
    if isinstance(answer, AcclimateError):
        raise answer
    return answer
