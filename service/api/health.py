"""Is it alive, is it ready, what does it measure."""

from __future__ import annotations

import onnxruntime as ort
from fastapi import APIRouter, Request, Response
from sqlalchemy import text

from service.api.access import OPEN
from service.api.problems import documented
from service.api.routes import Running
from service.api.schemas import Liveness, PolicyHealth, Readiness, Startup
from service.ledger.records import LedgerUnavailableError
from service.memory.store import MemoryUnavailableError

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT = "text/plain; version=0.0.4; charset=utf-8"

router = APIRouter(tags=["operations"], dependencies=[OPEN])


@router.head("/livez", include_in_schema=False)
@router.get("/livez", responses=documented())
async def live() -> Liveness:
    """The process answers."""
    return Liveness()


@router.head("/startupz", include_in_schema=False)
@router.get("/startupz", responses=documented())
async def started() -> Startup:
    """The ledger is of this release's version, every bundle passed its parity vectors, the pipeline
    is warm: nobody listens before. Whether it may be sent requests now, /readyz says."""
    return Startup()


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz",
    responses={**documented(), 503: {"model": Readiness, "description": "Not ready."}},
)
async def ready(service: Running, request: Request, response: Response) -> Readiness:
    """Every bundle passed its parity vectors here, the pipeline is warm, the ledger answers.

    A memory store that is down is reported, not fatal: the fallback decides until it is back.
    """
    report = Readiness(
        status="ready",
        onnxruntime=ort.__version__,
        ledger="ok",
        memory="ok",
        policies={
            workflow.policy_name: PolicyHealth(
                parity_difference=workflow.policy.parity.difference,
                kernel_fingerprint=workflow.policy.parity.fingerprint,
            )
            for name in service.catalog.workflows
            for workflow in service.catalog.serving(name)
        },
    )
    try:
        await service.memories.ping()
    except MemoryUnavailableError:
        report.status, report.memory = "degraded", "unavailable"
    try:
        await service.ledger.read(lambda connection: connection.scalar(text("SELECT 1")))
    except LedgerUnavailableError:
        report.status, report.ledger = "unready", "unavailable"
    if is_stopping(request):
        report.status = "stopping"
    if report.status in ("unready", "stopping"):
        response.status_code = 503
    return report


def is_stopping(request: Request) -> bool:
    """Whether the server has been asked to end: it finishes what it has and wants no more."""
    return getattr(request.app.state, "stopping", False)


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        **documented(),
        200: {"content": {one: {"schema": {"type": "string"}} for one in (OPENMETRICS, TEXT)}},
    },
)
async def metrics(service: Running, request: Request) -> Response:
    """OpenMetrics text, with exemplars; Prometheus's plain text where only that is accepted."""
    text, media_type = service.metrics.exposition(request.headers.get("accept", ""))
    return Response(text, headers={"Content-Type": media_type})
