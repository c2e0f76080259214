"""Traces by OpenTelemetry: HTTP → guard → memory → infer → ledger, one trace a request.

What is done for many requests at once is a span in the trace of each of them, with how many shared
it. Spans name routes, ids and reasons, never a value of a context. Sampling, where spans go and
what else there is to set are OpenTelemetry's own variables (OTEL_…).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import Scope

from service.correlation import Asking, Item
from service.steps import Step

_W3C = TraceContextTextMapPropagator()
_CARRIED = (b"traceparent", b"tracestate")


class Tracing:
    """Records spans while a service is open."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("acclimate")

    def begin(self, scope: Scope, asking: Asking) -> None:
        """A request has come: its span is noted in `asking`, where it is one that is recorded."""
        headers = {
            name.decode(): value.decode("latin-1")
            for name, value in scope["headers"]
            if name in _CARRIED
        }
        span = self._tracer.start_span(
            "HTTP", _W3C.extract(headers) if headers else None, kind=SpanKind.SERVER
        )
        if span.is_recording():
            asking.span = span

    def end(self, asking: Asking, method: str, route: str, status: int | None) -> None:
        """The request is over; `status` is None where nobody was there any more."""
        span = asking.span
        if span is None:
            return
        span.update_name(f"{method} {route}".rstrip())
        span.set_attribute("http.request.method", method)
        span.set_attribute("http.route", route)
        if status is not None:
            span.set_attribute("http.response.status_code", status)
            if status >= 500:
                span.set_status(StatusCode.ERROR)
        for name in ("request_id", "decision_id", "workflow", "reason"):
            value = getattr(asking, name)
            if value is not None:
                span.set_attribute(f"acclimate.{name}", value)
        span.end()

    def record(self, steps: Iterable[Step], items: Sequence[Item]) -> None:
        """What was done, in the trace of each request that it was done for."""
        askings = {id(one.asking): one.asking for one in items if one.asking is not None}
        traced = [one for one in askings.values() if one.span is not None]
        if not traced:
            return
        zero_ns = time.time_ns() - time.perf_counter_ns()
        for step in steps:
            began, ended = (zero_ns + round(1e9 * at) for at in (step.began, step.ended))
            for asking in traced:
                span = self._tracer.start_span(
                    step.name,
                    set_span_in_context(asking.span),
                    start_time=began,
                    attributes={"acclimate.together": len(items)},
                )
                span.end(ended)

    def close(self) -> None:
        """Sends what is left."""
        self._provider.shutdown()


def open_tracing() -> Tracing:
    """Spans go to a collector that speaks OTLP over HTTP (OTEL_EXPORTER_OTLP_ENDPOINT)."""
    own = Resource({SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME", "acclimate")})
    provider = TracerProvider(resource=Resource.create().merge(own))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)
