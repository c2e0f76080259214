"""A cap on request bodies, before anything parses them."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import FieldError, problem


class BodyLimit:
    """ASGI middleware: a body of more than `max_bytes` gets 413 and reaches no handler."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max = max_bytes
        self._most = str(max_bytes).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reads the body up to the cap, then hands it on in one piece."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS", "DELETE"):
            await self._app(scope, receive, send)
            return
        too_large = False
        for name, declared in scope["headers"]:
            if name == b"content-length":
                too_large = self._is_more(declared)
        parts: list[bytes] = []
        received = 0
        while not too_large:
            message = await receive()
            if message["type"] != "http.request":  # whoever asked has gone
                return
            parts.append(message.get("body", b""))
            received += len(parts[-1])
            too_large = received > self._max
            if not message.get("more_body", False):
                break
        if too_large:
            expected = f"at most {self._max} bytes"
            refusal = problem("too-large", 413, [FieldError(field="body", expected=expected)])
            await refusal(scope, receive, send)
            return
        whole: Message | None = {"type": "http.request", "body": b"".join(parts)}

        async def replay() -> Message:
            nonlocal whole
            message, whole = whole, None
            return message or await receive()

        await self._app(scope, replay, send)

    def _is_more(self, declared: bytes) -> bool:
        """Whether this Content-Length is above the cap, however many digits it has."""
        if len(declared) < len(self._most) and declared.isdigit():
            return False
        digits = declared.lstrip(b"0")
        if not digits.isdigit():
            return False
        return (len(digits), digits) > (len(self._most), self._most)
