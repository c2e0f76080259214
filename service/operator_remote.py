"""What operators ask of a running service, over REST: rollouts, the kill switch, alarms."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import httpx

TIMEOUT_SECONDS = 30.0
"""How long an answer may take: a bundle is verified for a new rollout."""


class RemoteError(Exception):
    """The service does not answer as expected. The message says how."""


class RefusedError(RemoteError):
    """The service says no. The message says why."""


class Door(NamedTuple):
    """One service's door."""

    http: httpx.Client

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """What it answers. Raises RefusedError and RemoteError."""
        try:
            response = self.http.request(method, path, json=body)
            answer = response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise RemoteError(f"{self.http.base_url} does not answer: {error}") from error
        if response.status_code >= 500:
            raise RemoteError(f"{method} {path}: {response.status_code}: {_said(answer)}")
        if response.status_code >= 400:
            raise RefusedError(_said(answer))
        return answer


@contextlib.contextmanager
def connect(url: str, key: str | None, tenant: str | None = None) -> Iterator[Door]:
    """The service at `url`, asked with a key where it needs one, about a tenant where that is to be
    said. Raises RemoteError for what is no address."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    if tenant is not None:
        headers["X-Acclimate-Tenant"] = tenant
    try:
        http = httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_SECONDS)
    except (httpx.InvalidURL, TypeError, ValueError) as error:
        raise RemoteError(f"--url: expected http://<host>:<port>, got {url!r}") from error
    with http:
        yield Door(http)


def _said(answer: Any) -> str:
    return str(answer.get("detail", answer)) if isinstance(answer, dict) else str(answer)
