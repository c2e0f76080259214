"""The log names requests and decisions, in lines for people and for machines, and quotes nothing
that a request held."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.correlation import ASKING, TOGETHER, Asking, Item
from service.logs import Discreet, json_lines
from tests.service.conftest import CONTEXT, WORKFLOW, Client, Open
from tests.service.test_metrics import families
from tests.service_process import ServiceProcess

SECRET = "sentinel-of-a-customer"
KEY = "a-key-that-nobody-may-read-anywhere-0123"


class Lines(logging.Handler):
    """Keeps what a formatter makes of each record, when it is made."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def lines() -> Iterator[Lines]:
    """The service's log as JSON lines."""
    handler = Lines(json_lines())
    root = logging.getLogger("service")
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler
    root.removeHandler(handler)
    root.setLevel(before)


def requests(handler: Lines) -> list[dict[str, Any]]:
    """The lines about requests."""
    read = [json.loads(line) for line in handler.lines]
    return [line for line in read if line["logger"] == "service.api.requests"]


async def test_a_request_has_an_id_and_gets_it_back(client: Client) -> None:
    answers = [await client.http.get("/livez") for _ in range(2)]
    first, second = (answer.headers["x-request-id"] for answer in answers)
    assert first != second
    assert len(first) == 16
    given = await client.http.get("/v1/nowhere", headers={"X-Request-ID": "shop.17~a_b-c"})
    assert given.headers["x-request-id"] == "shop.17~a_b-c"


@pytest.mark.parametrize("unfit", ["", "a b", "x" * 65, 'a"b', "a\tb", "ä"])
async def test_an_id_that_is_unfit_for_a_log_is_replaced(client: Client, unfit: str) -> None:
    headers = [(b"X-Request-ID", unfit.encode("latin-1"))]
    answer = await client.http.get("/livez", headers=headers)
    assert answer.headers["x-request-id"] != unfit
    assert len(answer.headers["x-request-id"]) == 16


async def test_every_request_is_a_line_with_its_ids_where_all_are_wanted(
    open_client: Open, lines: Lines
) -> None:
    async with open_client(log_requests="all") as client:
        answer = await client.decide("a", decision_id="d-1")
        await client.learn("d-1", reward=1)
        await client.decide("a", context={})
        await client.http.get("/v1/workflows/help/accounts/a")
        await client.http.get("/v1/decisions/d-1")
    decided, learned, refused, read, audited = requests(lines)
    assert decided["request_id"] == answer.headers["x-request-id"]
    assert decided["decision_id"] == learned["decision_id"] == "d-1"
    assert (decided["status"], refused["status"]) == (200, 422)
    assert (decided["workflow"], decided["reason"]) == ("help", "policy")
    assert decided["milliseconds"] > 0
    assert decided["route"] == "/v1/workflows/{workflow}/decisions"
    assert learned["route"] == "/v1/decisions/{decision_id}/feedback"
    assert read["route"] == "/v1/workflows/{workflow}/accounts/{account_id}"
    assert audited["route"] == "/v1/decisions/{decision_id}"
    assert decided["level"] == "info"
    assert decided["at"].endswith("Z")


async def test_what_failed_is_a_line_and_what_went_well_is_none(
    client: Client, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.decide()
    await client.decide(context={})
    assert not requests(lines)

    async def fail(*_: object) -> None:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(client.service.decider, "decide", fail)
    answer = await client.decide()
    assert answer.status_code == 500
    (line,) = requests(lines)
    assert (line["status"], line["request_id"]) == (500, answer.headers["x-request-id"])


async def test_what_is_logged_in_work_for_many_names_them_all() -> None:
    class Asked:
        def __init__(self, decision_id: str, request_id: str) -> None:
            self.decision_id = decision_id
            self.asking = Asking(request_id)

    many: list[Item] = [Asked(f"d-{i}", f"r-{i // 2}") for i in range(12)]
    record = logging.LogRecord("a", logging.WARNING, "", 1, "%s failed", ("job",), None)
    token = TOGETHER.set(many)
    try:
        line = json.loads(json_lines().format(record))
        text = Discreet("%(message)s").format(record)
    finally:
        TOGETHER.reset(token)
    assert line["decision_ids"] == [f"d-{i}" for i in range(10)]
    assert line["request_ids"] == [f"r-{i}" for i in range(5)]
    assert text.startswith("job failed [request_ids=['r-0', 'r-1'")


def test_a_line_for_people_says_whom_it_is_about() -> None:
    asking = Asking("r-1")
    asking.decision_id = "d-1"
    token = ASKING.set(asking)
    record = logging.LogRecord("a", logging.WARNING, "", 1, "it failed", (), None)
    try:
        assert Discreet("%(message)s").format(record) == (
            "it failed [request_id=r-1 decision_id=d-1]"
        )
    finally:
        ASKING.reset(token)


def test_an_exceptions_text_is_in_no_json_line() -> None:
    try:
        raise ValueError(SECRET[:8] + SECRET[8:])
    except ValueError:
        record = logging.LogRecord("a", logging.ERROR, "", 1, "it failed", (), sys.exc_info())
    line = json.loads(json_lines().format(record))
    assert line["exception"].endswith("ValueError")
    assert "test_logs.py" in line["exception"]
    assert SECRET not in json.dumps(line)
    assert "exc_info" not in line


@pytest.mark.parametrize("style", ["text", "json"])
def test_no_context_value_and_no_key_is_ever_logged(
    tmp_path: Path, counting_policies: Path, style: str
) -> None:
    """Everything that goes right and wrong, in a real process, with every request logged."""
    workflows = tmp_path / "workflows"
    workflows.mkdir()
    (workflows / "help.yaml").write_text(
        WORKFLOW.replace("values: [calm, angry]", f"values: [calm, angry, {SECRET}]")
    )
    process = ServiceProcess(
        tmp_path / "data",
        workflows=workflows,
        policies=counting_policies,
        log_format=style,
        log_requests="all",
        admin_key=KEY,
        access="keys",
        max_body_bytes=2_000,
    )
    process.start()
    good = {"account_id": f"{SECRET}-account", "context": CONTEXT | {"note": SECRET}}
    try:
        with httpx.Client(base_url=process.base_url) as http:
            path = "/v1/workflows/help/decisions"
            assert http.post(path, json=good).status_code == 401
            wrong = {"Authorization": f"Bearer acclimate_0123_{KEY}"}
            assert http.post(path, json=good, headers=wrong).status_code == 401
            http.headers["Authorization"] = f"Bearer {KEY}"
            made = http.post(path, json=good)
            assert made.status_code == 200
            decision_id = made.json()["decision_id"]
            for body in (
                good | {"context": CONTEXT | {"plan": f"{SECRET}-2"}},
                good | {"context": CONTEXT | {SECRET: 1}},
                good | {"actions": [SECRET]},
                {SECRET: SECRET},
                good | {"decision_id": decision_id, "account_id": SECRET},
            ):
                assert http.post(path, json=body).status_code == 422
            as_json = {"Content-Type": "application/json"}
            assert http.post(path, content=SECRET.encode(), headers=as_json).status_code == 400
            assert http.post(path, content=(SECRET * 200).encode()).status_code == 413
            assert http.post(f"{path}/batch", json={"decisions": [good, {}]}).status_code == 200
            assert http.get(f"/v1/{SECRET}").status_code == 404
            assert http.get(f"/v1/workflows/help/accounts/{SECRET}-account").status_code == 200
            learned = f"/v1/decisions/{decision_id}/feedback"
            assert http.post(learned, json={"reward": 1, "feedback_id": "f"}).status_code == 200
            assert http.post(learned, json={"outcome": SECRET}).status_code == 422
            assert http.put(path, json=good).status_code == 405
            assert http.request(SECRET.upper()[:8], path).status_code == 400
    finally:
        process.terminate()
    logged = process.log.read_text()
    assert decision_id in logged
    assert made.headers["x-request-id"] in logged
    assert SECRET not in logged
    assert SECRET.upper()[:8] not in logged
    assert KEY not in logged
    assert "Bearer" not in logged
    if style == "json":
        read = [json.loads(line) for line in logged.splitlines()]
        assert {line["status"] for line in read if "status" in line} == {
            200, 400, 401, 404, 405, 413, 422,
        }  # fmt: skip


async def test_requests_are_counted_by_route_and_status(client: Client) -> None:
    await client.interact()
    await client.decide(context={})
    await client.http.get("/v1/nowhere")
    text = (await client.http.get("/metrics")).text
    counted = {
        (one.labels["route"], one.labels["status"]): one.value
        for one in families(text)["acclimate_requests"].samples
    }
    assert counted == {
        ("/v1/workflows/{workflow}/decisions", "200"): 1,
        ("/v1/workflows/{workflow}/decisions", "422"): 1,
        ("/v1/decisions/{decision_id}/feedback", "200"): 1,
        ("", "404"): 1,
    }
