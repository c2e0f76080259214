"""Traces of real requests, as a collector gets them over OTLP, and what exemplars make of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.service.conftest import CONTEXT, Client, Open

SECRET = "sentinel-of-a-customer"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = PARENT[:-1] + "0"


class Collector:
    """A receiver of OTLP over HTTP in this process."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                outer.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def spans(self) -> list[Span]:
        """What came, in the order it ended in."""
        found: list[Span] = []
        for body in self.bodies:
            read = ExportTraceServiceRequest.FromString(body)
            found += [
                span
                for resource in read.resource_spans
                for scope in resource.scope_spans
                for span in scope.spans
            ]
        return found


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    collector = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    yield collector
    collector.server.shutdown()
    collector.server.server_close()


def attributes(span: Span) -> dict[str, Any]:
    return {one.key: one.value.string_value or one.value.int_value for one in span.attributes}


def trees(spans: list[Span]) -> dict[str, tuple[Span, list[Span]]]:
    """Each request's span with its steps in order, by the id of its trace."""
    found = {}
    for root in (one for one in spans if one.kind == Span.SPAN_KIND_SERVER):
        steps = [one for one in spans if one.parent_span_id == root.span_id]
        steps.sort(key=lambda one: one.start_time_unix_nano)
        found[root.trace_id.hex()] = (root, steps)
    return found


async def test_a_decision_and_its_feedback_are_a_trace_each(
    open_client: Open, collector: Collector
) -> None:
    async with open_client(traces="otlp") as client:
        await client.decide("a", decision_id="d-1", context=CONTEXT)
        await client.learn("d-1", reward=1)
        text = (await client.http.get("/metrics")).text
    found = trees(collector.spans())
    (decided,) = (one for one in found.values() if one[0].name.endswith("/decisions"))
    (learned,) = (one for one in found.values() if one[0].name.endswith("/feedback"))
    assert decided[0].name == "POST /v1/workflows/{workflow}/decisions"
    assert [one.name for one in decided[1]] == ["guard", "memory", "infer", "ledger"]
    assert [one.name for one in learned[1]] == ["ledger", "memory"]
    told = attributes(decided[0])
    assert told["acclimate.decision_id"] == "d-1"
    assert told["acclimate.reason"] == "policy"
    assert told["http.response.status_code"] == 200
    assert attributes(learned[0])["acclimate.decision_id"] == "d-1"
    for root, steps in (decided, learned):
        assert steps[0].start_time_unix_nano >= root.start_time_unix_nano
        assert steps[-1].end_time_unix_nano <= root.end_time_unix_nano
        for before, after in pairwise(steps):
            assert before.end_time_unix_nano == after.start_time_unix_nano
    # The histograms lead to these very traces.
    linked = {
        family.name: sample.exemplar.labels["trace_id"]
        for family in text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
        for sample in family.samples
        if sample.exemplar
    }
    assert linked == {
        "acclimate_decision_seconds": decided[0].trace_id.hex(),
        "acclimate_feedback_seconds": learned[0].trace_id.hex(),
    }


async def test_a_trace_goes_on_from_the_callers_and_is_left_out_with_it(
    open_client: Open, collector: Collector
) -> None:
    async with open_client(traces="otlp") as client:
        for parent, account in ((PARENT, "a"), (UNSAMPLED, "b")):
            await client.http.post(
                "/v1/workflows/help/decisions",
                json={"account_id": account, "context": CONTEXT},
                headers={"traceparent": parent},
            )
    ((trace, (root, steps)),) = trees(collector.spans()).items()
    assert trace == PARENT.split("-")[1]
    assert root.parent_span_id.hex() == PARENT.split("-")[2]
    assert len(steps) == 4


async def test_what_many_requests_share_is_in_the_trace_of_each(
    open_client: Open, collector: Collector
) -> None:
    async with open_client(traces="otlp") as client:
        await asyncio.gather(*(client.decide(f"a{i}") for i in range(5)))
        batch = {"decisions": [{"account_id": f"b{i}", "context": CONTEXT} for i in range(3)]}
        await client.http.post("/v1/workflows/help/decisions/batch", json=batch)
    found = trees(collector.spans())
    assert len(found) == 6
    shared = set()
    for root, steps in found.values():
        assert [one.name for one in steps] == ["guard", "memory", "infer", "ledger"]
        (together,) = {attributes(one)["acclimate.together"] for one in steps}
        if root.name.endswith("/batch"):
            assert together == 3
        else:
            shared.add(together)
    assert max(shared) > 1, "five at once are made together"


async def test_spans_hold_no_context_and_failures_are_marked(
    open_client: Open, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_client(traces="otlp") as client:
        await client.decide(f"{SECRET}-account", context=CONTEXT | {"plan": SECRET})
        await client.http.get(f"/v1/workflows/help/accounts/{SECRET}")

        async def fail(*_: object) -> None:
            raise RuntimeError(SECRET)

        monkeypatch.setattr(client.service.ledger, "record_decisions", fail)
        assert (await client.decide(SECRET)).status_code == 500
    assert not any(SECRET.encode() in body for body in collector.bodies)
    statuses = {
        attributes(root)["http.response.status_code"]: root.status.code
        for root, _ in trees(collector.spans()).values()
    }
    assert statuses == {422: 0, 404: 0, 500: 2}
    (steps,) = (
        [one.name for one in steps]
        for root, steps in trees(collector.spans()).values()
        if root.status.code
    )
    assert steps == ["guard", "memory", "infer"], "it failed before the ledger was done"


async def test_without_tracing_nothing_of_it_is_there(client: Client, collector: Collector) -> None:
    await client.interact()
    assert client.service.tracing is None
    assert " # {" not in (await client.http.get("/metrics")).text
    assert collector.bodies == []


async def test_the_steps_of_decisions_are_timed(client: Client) -> None:
    for _ in range(3):
        await client.interact()
    text = (await client.http.get("/metrics")).text
    counts = {
        sample.labels["step"]: sample.value
        for family in text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
        for sample in family.samples
        if sample.name == "acclimate_decision_step_seconds_count"
    }
    assert counts == {"guard": 3, "memory": 3, "infer": 3, "ledger": 3}
