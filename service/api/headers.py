"""What every answer tells browsers: do not guess its type, keep it, frame it or run any of it."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_POLICY = b"content-security-policy"
_ALWAYS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]
_NOTHING = (_POLICY, b"default-src 'none'; frame-ancestors 'none'")


class Headers:
    """ASGI middleware: adds them, and tells `observe` the status of each answer. A page brings a
    content security policy of its own; whatever brings none may load nothing."""

    def __init__(self, app: ASGIApp, observe: Callable[[int], None]) -> None:
        self._app = app
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), *_ALWAYS]
                if all(name != _POLICY for name, _ in headers):
                    headers.append(_NOTHING)
                message["headers"] = headers
                self._observe(message["status"])
            await send(message)

        await self._app(scope, receive, send_more)
