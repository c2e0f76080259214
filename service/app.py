"""The ASGI application over a running service."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

from service.api import (
    access,
    accounts,
    alarms,
    batch,
    console,
    console_alarms,
    console_rollouts,
    console_sign_in,
    describe,
    health,
    keys,
    pictures,
    problems,
    rollouts,
    routes,
)
from service.api.body_limit import BodyLimit
from service.api.console_session import ConsoleSession
from service.api.express import Express
from service.api.gate import Gate
from service.api.headers import Headers
from service.api.requests import Requests
from service.console import pages
from service.runtime import Service

ROUTERS = (
    routes.hot,
    batch.router,
    routes.router,
    pictures.router,
    accounts.router,
    keys.router,
    alarms.router,
    health.router,
    rollouts.router,
    describe.router,
    console.router,
    console_alarms.router,
    console_rollouts.router,
    console_sign_in.router,
)


OPENAPI = "/openapi.json"
PARTS = {
    "/docs/{asset}": ("/docs/", describe.ASSETS),
    "/console/assets/{name}": ("/console/assets/", pages.ASSETS),
}
"""Open paths that stand for several: how each begins, and how it may go on."""


class App(FastAPI):
    """FastAPI behind the gate, a cap on bodies and the express way: what is called most passes
    nothing else.

    Its only state is the service, and whether that is stopping. Raises UndeclaredError where a
    route does not say who may use it.
    """

    def __init__(self, service: Service) -> None:
        super().__init__(
            title="Acclimate",
            version="1",
            summary="Decisions that adapt to each account within a handful of interactions.",
            docs_url=None,  # its pages load scripts from elsewhere; service.api.describe has ours
            redoc_url=None,
            redirect_slashes=False,  # a redirect would drop the body
        )
        self.state.service = service
        self._settings = service.settings
        problems.install(self)
        for router in ROUTERS:
            self.include_router(router)
        self.needs = [(one, access.needs_of(one)) for router in ROUTERS for one in router.routes]
        """What every route needs: one that does not say so is never served."""
        hot = (*routes.hot.routes, *batch.router.routes)
        express = Express(
            super().__call__, service, [one for one in hot if isinstance(one, APIRoute)]
        )
        gate = Gate(
            BodyLimit(express, service.settings.max_body_bytes),
            service.keyring,
            service.rates,
            {OPENAPI, *self._open_paths()},
        )
        session = ConsoleSession(gate, service.settings.draw_key())
        headers = Headers(session, service.metrics.observe_status)
        self._door = Requests(
            headers, service.metrics, service.settings.log_requests, service.tracing
        )

    def _open_paths(self) -> Iterator[str]:
        locked = {"/metrics"} if self._settings.metrics_need_key else set()
        for route, needs in self.needs:
            if needs is None and isinstance(route, APIRoute) and route.path not in locked:
                yield from [route.path] if not route.param_convertors else self._parts(route)

    @staticmethod
    def _parts(route: APIRoute) -> Iterator[str]:
        """What an open path stands for: only what there is."""
        before, parts = PARTS[route.path]
        for part in parts:
            yield f"{before}{part}"

    def openapi(self) -> dict[str, Any]:
        """What the API is, with who may use each route."""
        if self.openapi_schema is None:
            schema = super().openapi()
            refusals = {str(k): v for k, v in problems.documented(401, 403, 413, 429).items()}
            refusals.pop("default")
            access.describe(schema, self.needs, refusals)
        assert self.openapi_schema is not None
        return self.openapi_schema

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, by the way it takes."""
        await self._door(scope, receive, send)


def create_app(service: Service) -> FastAPI:
    """The application."""
    return App(service)
