"""Browsers at the console: their session as the headers that the API takes, problems as pages.

A key that was signed in with lives in a cookie that no script reads, that no other site's request
carries, and that only the console's addresses get. Forms carry a token that only a page of the
same session knows.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from typing import Any
from urllib.parse import quote

from fastapi import Response
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import MEDIA_TYPE
from service.api.schemas import TENANT, TENANT_HEADER
from service.console.pages import HEADERS, render

HOME = "/console"
SIGN_IN = "/console/sign-in"
KEY_COOKIE = "acclimate_key"
TENANT_COOKIE = "acclimate_tenant"
TOKEN = "acclimate.console.token"
"""Where a request's scope holds the token of its session's forms."""
SIGNED_IN = "acclimate.console.signed_in"
"""Where it says whether the key came in the cookie."""

_AUTHORIZATION, _TENANT = b"authorization", TENANT_HEADER.lower().encode()


class ConsoleSession:
    """ASGI middleware about the console's addresses; others pass."""

    def __init__(self, app: ASGIApp, secret: bytes) -> None:
        """`secret`: the installation's, the same for all replicas."""
        self._app = app
        self._secret = secret

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands on."""
        path = scope.get("path", "")
        if scope["type"] != "http" or not (path == HOME or path.startswith(f"{HOME}/")):
            await self._app(scope, receive, send)
            return
        headers = list(scope["headers"])
        names = {name for name, _ in headers}
        cookies = cookie_parser(_value(headers, b"cookie"))
        key, tenant = cookies.get(KEY_COOKIE), cookies.get(TENANT_COOKIE)
        signed_in = bool(key) and _AUTHORIZATION not in names
        if signed_in:
            headers.append((_AUTHORIZATION, f"Bearer {key}".encode("latin-1", "replace")))
        if tenant and _TENANT not in names and re.fullmatch(TENANT, tenant):
            headers.append((_TENANT, tenant.encode()))
        scope = dict(scope) | {
            "headers": headers,
            TOKEN: form_token(self._secret, _value(headers, _AUTHORIZATION)),
            SIGNED_IN: signed_in,
        }
        if "text/html" not in _value(headers, b"accept"):
            await self._app(scope, receive, send)
            return
        await self._app(scope, receive, _Pages(scope, receive, send))


def form_token(secret: bytes, authorization: str) -> str:
    """What a form of the session with this `Authorization` carries; it is the session's alone."""
    said = b"console form\0" + authorization.encode("latin-1", "replace")
    return hmac.digest(secret, said, hashlib.sha256).hex()


class _Pages:
    """Sends on; a problem becomes a page, and that a key is missing the way to where one signs
    in."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._start: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and _is_problem(message):
            self._start = message
            return
        if self._start is None or message["type"] != "http.response.body":
            await self._send(message)
            return
        self._body += message.get("body", b"")
        if message.get("more_body"):
            return
        page = self._page(self._start["status"], json.loads(self._body))
        await page(self._scope, self._receive, self._send)

    def _page(self, status: int, problem: dict[str, Any]) -> Response:
        scope = self._scope
        if status == 401 and scope["method"] == "GET":
            place = scope["path"]
            if scope["query_string"]:
                place += "?" + scope["query_string"].decode("latin-1")
            return RedirectResponse(f"{SIGN_IN}?next={quote(place, safe='')}", 303)
        text = render(
            "problem.html",
            {"problem": problem, "signed_in": scope[SIGNED_IN], "token": scope[TOKEN]},
        )
        return Response(text, status, HEADERS, "text/html")


def _is_problem(message: Message) -> bool:
    return any(
        name == b"content-type" and value.startswith(MEDIA_TYPE.encode())
        for name, value in message.get("headers", ())
    )


def _value(headers: list[tuple[bytes, bytes]], wanted: bytes) -> str:
    """Of the first header of that name; empty where there is none."""
    return next((value.decode("latin-1") for name, value in headers if name == wanted), "")
