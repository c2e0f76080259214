"""The ASGI application over a running service."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

from service.api import accounts, batch, health, problems, routes
from service.api.body_limit import BodyLimit
from service.api.express import Express
from service.runtime import Service


class App(FastAPI):
    """FastAPI behind a cap on bodies and the express way: what is called most passes nothing else.

    Its only state is the service, and whether that is stopping.
    """

    def __init__(self, service: Service) -> None:
        super().__init__(
            title="Acclimate",
            version="1",
            summary="Decisions that adapt to each account within a handful of interactions.",
            redirect_slashes=False,  # a redirect would drop the body
        )
        self.state.service = service
        problems.install(self)
        for router in (
            routes.hot,
            batch.router,
            routes.router,
            accounts.router,
            health.router,
        ):
            self.include_router(router)
        hot = (*routes.hot.routes, *batch.router.routes)
        self._door = BodyLimit(
            Express(super().__call__, service, [one for one in hot if isinstance(one, APIRoute)]),
            service.settings.max_body_bytes,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, by the way it takes."""
        await self._door(scope, receive, send)


def create_app(service: Service) -> FastAPI:
    """The application."""
    return App(service)
