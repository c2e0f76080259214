"""Is it alive, is it ready, what does it measure."""

from __future__ import annotations

from typing import Any

import onnxruntime as ort
from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from sqlalchemy import text

from service.api.routes import Running
from service.ledger.records import LedgerUnavailableError
from service.memory.store import MemoryUnavailableError

router = APIRouter(tags=["operations"])


@router.get("/livez")
async def live() -> dict[str, str]:
    """The process answers."""
    return {"status": "alive"}


@router.get("/readyz", responses={503: {"description": "The same report; not ready."}})
async def ready(service: Running) -> JSONResponse:
    """Every bundle passed its parity vectors here, the pipeline is warm, the ledger answers.

    A memory store that is down is reported, not fatal: the fallback decides until it is back.
    """
    report: dict[str, Any] = {
        "status": "ready",
        "onnxruntime": ort.__version__,
        "ledger": "ok",
        "memory": "ok",
        "policies": {
            workflow.spec.policy: {
                "parity_difference": workflow.policy.parity.difference,
                "kernel_fingerprint": workflow.policy.parity.fingerprint,
            }
            for workflow in service.catalog.workflows.values()
        },
    }
    try:
        await service.memories.ping()
    except MemoryUnavailableError:
        report |= {"status": "degraded", "memory": "unavailable"}
    try:
        await service.ledger.read(lambda connection: connection.scalar(text("SELECT 1")))
    except LedgerUnavailableError:
        report |= {"status": "unready", "ledger": "unavailable"}
        return JSONResponse(report, 503)
    return JSONResponse(report)


@router.get("/metrics", response_class=Response)
async def metrics(service: Running) -> Response:
    """OpenMetrics text."""
    return Response(
        service.metrics.exposition(),
        media_type="application/openmetrics-text; version=1.0.0; charset=utf-8",
    )
