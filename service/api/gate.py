"""The gate: whose key a request came with, before anything else of it is read.

Without a valid key only what is open to all is reached. Where no key was ever made, everything is
open to whoever sits at this machine, and to no web page that their browser happens to show.
"""

from __future__ import annotations

import math
from collections.abc import Set
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from service.access.keys import Keyring
from service.access.rates import Rates
from service.access.roles import ANYONE, ForbiddenError, Holder
from service.api.access import HOLDER
from service.api.problems import FieldError, Refusal, refusal_of
from service.ledger.records import LedgerUnavailableError
from service.settings import is_loopback

_OWN_SITE = (b"same-origin", b"none")
"""What browsers say of requests that no other site's page made."""
_UNAUTHENTICATED = Refusal(
    "unauthenticated",
    401,
    [FieldError(field="Authorization", expected="Bearer and a key that is valid")],
    {"WWW-Authenticate": "Bearer"},
)


class Gate:
    """ASGI middleware: leaves the key's holder in the scope, or answers 401, or 429."""

    def __init__(self, app: ASGIApp, keyring: Keyring, rates: Rates, open_paths: Set[str]) -> None:
        self._app = app
        self._keyring = keyring
        self._rates = rates
        self._open = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands on, or refuses."""
        if scope["type"] != "http" or scope["path"] in self._open:
            await self._app(scope, receive, send)
            return
        try:
            holder = self._at_this_machine(scope) if self._keyring.is_open else None
            if holder is None:
                holder = await self._holder(scope)
        except (ForbiddenError, LedgerUnavailableError) as error:
            await refusal_of(error).response()(scope, receive, send)
            return
        if holder is None:
            await _UNAUTHENTICATED.response()(scope, receive, send)
            return
        wait = self._rates.take(holder.name)
        if wait:
            await self._too_often(wait).response()(scope, receive, send)
            return
        scope[HOLDER] = holder
        await self._app(scope, receive, send)

    async def _holder(self, scope: Scope) -> Holder | None:
        key = _key(scope)
        if key is None:
            return None
        return self._keyring.holder(key) or await self._keyring.look_again(key)

    def _too_often(self, wait: float) -> Refusal:
        expected = f"at most {self._rates.per_second:g} decisions, feedbacks or requests a second"
        errors = [FieldError(field="Authorization", expected=expected)]
        return Refusal("rate-limited", 429, errors, {"Retry-After": str(math.ceil(wait))})

    @staticmethod
    def _at_this_machine(scope: Scope) -> Holder:
        """Anyone, but a web page: neither one that posts here from another site, nor one whose own
        name was made to point here. Raises ForbiddenError."""
        for name, value in scope["headers"]:
            if name == b"sec-fetch-site" and value not in _OWN_SITE:
                raise ForbiddenError("Sec-Fetch-Site", "a request that no other site makes")
            if name == b"host" and not is_loopback(_host_of(value)):
                raise ForbiddenError("Host", "a name of this machine, while no key is needed")
        return ANYONE


def _key(scope: Scope) -> bytes | None:
    """The bearer key, where there is one and no more."""
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(values) != 1:
        return None
    scheme, _, key = values[0].partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else None


def _host_of(header: bytes) -> str:
    try:
        return urlsplit(f"//{header.decode('ascii')}").hostname or ""
    except ValueError:
        return ""
