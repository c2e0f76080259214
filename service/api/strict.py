"""Requests read strictly: what two readers could read differently is refused, never guessed at.

JSON is UTF-8, has every key once (RFC 8259 leaves equal keys open) and is nested no deeper than
whatever later walks it can bear. A tenant is named once.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from service.api.schemas import TENANT_HEADER

DEEPEST = 32
"""Levels of lists and objects inside one another. The API's own bodies have two."""

_TENANT = TENANT_HEADER.lower().encode()


class MalformedError(HTTPException):
    """The body is not JSON as the API reads it. `expected` says what is."""

    def __init__(self, expected: str) -> None:
        super().__init__(400)
        self.expected = expected


class StrictRoute(APIRoute):
    """A route whose requests are read strictly."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, given nothing that could be read in two ways."""
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            named = sum(name == _TENANT for name, _ in request.scope["headers"])
            if named > 1:
                misfit = {"type": "value_error", "msg": f"one header of this name, got {named}"}
                raise RequestValidationError([misfit | {"loc": ("header", TENANT_HEADER)}])
            return await handle(_StrictRequest(request.scope, request.receive))

        return handle_strictly


class _StrictRequest(Request):
    async def json(self) -> Any:
        return parse(await self.body())


def parse(body: bytes) -> Any:
    """The JSON value that `body` is. Raises MalformedError."""
    try:
        value = _DECODER.decode(body.decode().removeprefix("\ufeff"))
        if body.count(b"[") + body.count(b"{") > DEEPEST:
            _refuse_deep(value)
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise MalformedError(f"JSON in UTF-8, got byte 0x{byte:02x} at {error.start}") from error
    except json.JSONDecodeError as error:
        raise MalformedError(f"JSON, but at character {error.pos}: {error.msg}") from error
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:  # Python bounds the time that reading an integer takes
        digits = sys.get_int_max_str_digits()
        raise MalformedError(f"JSON, its integers of at most {digits} digits") from error
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """One JSON object; Python's own keeps the last of two equal keys without a word."""
    members = dict(pairs)
    if len(members) < len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise MalformedError(f"JSON with every key once, got {twice[:64]!r} more than once")
    return members


def _refuse_deep(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise _too_deep()


def _too_deep() -> MalformedError:
    return MalformedError(f"JSON nested at most {DEEPEST} deep")


_DECODER = json.JSONDecoder(object_pairs_hook=_object)
