"""Every request: the id it goes by, its line in the log, its count.

An id that comes with a request is kept, so that it is the same in the caller's log; it goes back
in `X-Request-ID`. The log names routes by their templates: what paths hold is the caller's.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from typing import TYPE_CHECKING, Literal

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.correlation import ASKING, Asking
from service.metrics import Metrics

if TYPE_CHECKING:
    from service.tracing import Tracing  # only the otel extra has OpenTelemetry's SDK

HEADER = b"x-request-id"
Logged = Literal["off", "failed", "all"]
_ID = re.compile(rb"[A-Za-z0-9._~-]{1,64}")
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

log = logging.getLogger(__name__)


class Requests:
    """ASGI middleware, outermost: what it does not see did not happen."""

    def __init__(
        self, app: ASGIApp, metrics: Metrics, logged: Logged, tracing: Tracing | None = None
    ) -> None:
        self._app = app
        self._tracing = tracing
        self._metrics = metrics
        self._logged = logged

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asking = Asking(_given(scope) or secrets.token_hex(8))
        status, started = None, time.perf_counter()

        async def send_more(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message.get("headers", ())
                message["headers"] = [*headers, (HEADER, asking.request_id.encode())]
            await send(message)

        if self._tracing is not None:
            self._tracing.begin(scope, asking)
        token = ASKING.set(asking)
        try:
            await self._app(scope, receive, send_more)
        finally:
            self._ended(scope, status, asking, time.perf_counter() - started)
            ASKING.reset(token)

    def _ended(self, scope: Scope, status: int | None, asking: Asking, seconds: float) -> None:
        """Told of every request that is over; `status` is None where nobody was there any more to
        be answered."""
        route = getattr(scope.get("route"), "path", "")
        self._metrics.observe_request(route, status)
        method = scope["method"] if scope["method"] in _METHODS else "other"
        if self._tracing is not None:
            self._tracing.end(asking, method, route, status)
        if self._logged == "off" or (self._logged == "failed" and (status is None or status < 500)):
            return
        fields = {
            "method": method,
            "route": route,
            "status": status,
            "milliseconds": round(1e3 * seconds, 3),
            "workflow": asking.workflow,
            "reason": asking.reason,
        }
        log.info(
            "%s %s: %s in %.1f ms",
            method,
            route or "(no such route)",
            status or "gone",
            1e3 * seconds,
            extra={name: value for name, value in fields.items() if value is not None},
        )


def _given(scope: Scope) -> str | None:
    """The id that the request came with, where it is one that can be logged as it is."""
    for name, value in scope["headers"]:
        if name == HEADER:
            return value.decode() if _ID.fullmatch(value) else None
    return None
