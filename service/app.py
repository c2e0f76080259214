"""The ASGI application over a running service."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.routing import APIRoute

from service.api import batch, health, problems, routes
from service.api.body_limit import BodyLimit
from service.api.express import Express
from service.runtime import Service


def create_app(service: Service) -> FastAPI:
    """The application: its only state is the service, and whether that is stopping."""
    app = FastAPI(
        title="Acclimate",
        version="1",
        summary="Decisions that adapt to each account within a handful of interactions.",
        redirect_slashes=False,  # a redirect would drop the body
    )
    app.state.service = service
    problems.install(app)
    hot = [one for one in (*routes.hot.routes, *batch.router.routes) if isinstance(one, APIRoute)]
    app.add_middleware(Express, service=service, routes=hot)
    app.add_middleware(BodyLimit, max_bytes=service.settings.max_body_bytes)
    for router in (routes.hot, batch.router, routes.router):
        app.include_router(router)
    app.include_router(health.router)
    return app
