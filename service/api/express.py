"""The way in for the routes that are called most: what FastAPI does for them, and nothing else.

Whatever is the least bit out of the ordinary takes FastAPI's way, where the same functions answer
and what is wrong is said. So the two ways cannot differ but in time.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Annotated, Any, NamedTuple, get_type_hints

from fastapi import Response
from fastapi.routing import APIRoute
from pydantic import StringConstraints, TypeAdapter, ValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.access.roles import ForbiddenError, Holder, Needs
from service.api.access import holder_of, needs_of
from service.api.problems import EXPECTED_ERRORS, refusal_of
from service.api.schemas import TENANT, TENANT_HEADER
from service.api.strict import parse
from service.runtime import Service

_TENANT = TENANT_HEADER.lower().encode()
_TENANT_NAME = TypeAdapter(Annotated[str, StringConstraints(pattern=TENANT)])
_JSON = {b"application/json", b"application/json; charset=utf-8"}


class _Stop(NamedTuple):
    """One route: where it is, what it calls, and what that takes besides the service."""

    route: APIRoute
    matches: Callable[[str], Any]
    endpoint: Callable[..., Coroutine[Any, Any, Response]]
    body: TypeAdapter[Any]
    places: dict[str, TypeAdapter[str]]
    """What the path names."""
    needs: Needs


class Express:
    """ASGI middleware: answers POST requests to `routes`, hands everything else on.

    Their functions take `service`, `who`, `body` and what their paths name. A body has to
    arrive in one piece.
    """

    def __init__(self, app: ASGIApp, service: Service, routes: Sequence[APIRoute]) -> None:
        self._app = app
        self._service = service
        self._stops = [_stop(route) for route in routes]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, or hands on with the body as it came."""
        stop, place = self._find(scope)
        if stop is None:
            await self._app(scope, receive, send)
            return
        message = await receive()
        arguments = _read(stop, place, holder_of(scope), scope["headers"], message)
        if arguments is None:
            await self._app(scope, _first(message, receive), send)
            return
        try:
            response = await stop.endpoint(service=self._service, **arguments)
        except Exception as error:
            await refusal_of(error).response()(scope, receive, send)
            if not isinstance(error, EXPECTED_ERRORS):  # a mistake of ours, for the server's log
                raise
            return
        await response(scope, receive, send)

    def _find(self, scope: Scope) -> tuple[_Stop | None, dict[str, str]]:
        if scope["type"] == "http" and scope["method"] == "POST" and not scope.get("root_path"):
            path = scope["path"]
            for stop in self._stops:
                match = stop.matches(path)
                if match is not None:
                    scope["route"] = stop.route  # as a router leaves it
                    return stop, match.groupdict()
        return None, {}


def _stop(route: APIRoute) -> _Stop:
    hints = get_type_hints(route.endpoint, include_extras=True)
    needs = needs_of(route)
    assert needs is not None, f"{route.path}: the express way is for those with a key"
    return _Stop(
        route=route,
        matches=route.path_regex.match,
        endpoint=route.endpoint,
        body=TypeAdapter(hints["body"]),
        places={name: TypeAdapter(hints[name]) for name in route.param_convertors},
        needs=needs,
    )


def _read(
    stop: _Stop,
    place: dict[str, str],
    holder: Holder,
    headers: list[tuple[bytes, bytes]],
    message: Message,
) -> dict[str, Any] | None:
    """What the function takes; None when anything about the request wants a closer look."""
    tenants, types = [], []
    for name, value in headers:
        if name == _TENANT:
            tenants.append(value)
        elif name == b"content-type":
            types.append(value)
    if len(types) != 1 or types[0] not in _JSON or len(tenants) > 1 or message.get("more_body"):
        return None
    try:
        tenant = None
        if tenants:
            tenant = _TENANT_NAME.validate_python(tenants[0].decode("latin-1"))
        who = stop.needs.admit(holder, tenant)
        arguments = {
            name: stop.places[name].validate_python(value) for name, value in place.items()
        }
        body = stop.body.validate_python(parse(message["body"]))
    except (ForbiddenError, ValidationError, HTTPException, KeyError):
        return None
    return {**arguments, "who": who, "body": body}


def _first(message: Message, receive: Receive) -> Receive:
    """`receive`, with a message before what is still to come."""
    kept: list[Message] = [message]

    async def replay() -> Message:
        return kept.pop() if kept else await receive()

    return replay
