"""A running service's ledger, verified and rebuilt page by page over REST, for one tenant."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import httpx

from service.access.roles import DEFAULT_TENANT
from service.ledger.records import AccountKey
from service.replay import RebuiltPage
from service.verify import Difference, Verification

TIMEOUT_SECONDS = 600.0
"""How long a page may take: long accounts are replayed for it."""


class RemoteError(Exception):
    """The service does not answer as expected. The message says how."""


class Remote(NamedTuple):
    """One tenant's door to a service."""

    http: httpx.AsyncClient
    tenant: str

    async def workflows(self) -> list[str]:
        """Those being served."""
        answer = await self._ask("GET", "/v1/workflows")
        return [one["workflow"] for one in answer["workflows"]]

    async def verify(self, workflow: str, limit: int, after: str | None) -> Verification:
        """A page of verification."""
        path = f"/v1/workflows/{workflow}/verification"
        answer = await self._ask("GET", path, _page(after, limit))
        return Verification(
            accounts=answer["accounts"],
            interactions=answer["interactions"],
            memories=answer["memories"],
            snapshots=answer["snapshots"],
            incomplete=answer["incomplete"],
            differing=[
                Difference(self._key(workflow, one["account_id"]), one["what"], one["detail"])
                for one in answer["differing"]
            ],
            digest=answer["digest"],
            next=answer["next"],
        )

    async def rebuild(self, workflow: str, limit: int, after: str | None) -> RebuiltPage:
        """Some accounts, rebuilt."""
        path = f"/v1/workflows/{workflow}/rebuild"
        return RebuiltPage(**await self._ask("POST", path, _page(after, limit)))

    async def rebuild_account(self, workflow: str, account_id: str) -> dict[str, Any]:
        """One account, rebuilt: the route's answer."""
        return await self._ask("POST", f"/v1/workflows/{workflow}/accounts/{account_id}/rebuild")

    def _key(self, workflow: str, account_id: str) -> AccountKey:
        return AccountKey(self.tenant, workflow, account_id)

    async def _ask(
        self, method: str, path: str, query: dict[str, str | int] | None = None
    ) -> dict[str, Any]:
        try:
            response = await self.http.request(method, path, params=query)
            answer: dict[str, Any] = response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise RemoteError(f"{self.http.base_url} does not answer: {error}") from error
        if response.status_code != 200:
            said = answer.get("detail", response.reason_phrase)
            raise RemoteError(f"{method} {path}: {response.status_code}: {said}")
        return answer


@contextlib.asynccontextmanager
async def connect(url: str, tenant: str | None, key: str | None) -> AsyncIterator[Remote]:
    """The service at `url`, for a tenant or the key's own. Raises RemoteError for what is no
    address."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    if tenant is not None:
        headers["X-Acclimate-Tenant"] = tenant
    try:
        http = httpx.AsyncClient(base_url=url, headers=headers, timeout=TIMEOUT_SECONDS)
    except (httpx.InvalidURL, TypeError, ValueError) as error:
        raise RemoteError(f"--url: expected http://<host>:<port>, got {url!r}") from error
    async with http:
        yield Remote(http, tenant or ("the key's own" if key else DEFAULT_TENANT))


def _page(after: str | None, limit: int) -> dict[str, str | int]:
    return {"limit": limit} | ({"after": after} if after else {})
