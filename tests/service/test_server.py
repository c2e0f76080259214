"""The process ends in order, its health is told, and what it answers is what it documents."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import psutil
import pytest
from pydantic import BaseModel
from sqlalchemy import Connection

import service.server
from contract.spec import SpecError
from service.api import (
    account_schemas,
    alarm_schemas,
    alarms,
    batch,
    keys,
    rollout_schemas,
    schemas,
)
from service.app import create_app
from service.ledger.alarms import Alarm, Page, write_page
from service.ledger.keys import KeyRow, add_key
from service.ledger.records import AccountKey, LedgerUnavailableError
from service.logs import Discreet
from service.runtime import Service, open_service
from service.server import FINISH_SECONDS, RefusedToStartError, serve
from service.settings import Settings
from tests.processes import free_port, wait_until
from tests.service.conftest import CONTEXT, Client, Open
from tests.service_process import ServiceProcess

Start = Callable[..., ServiceProcess]

BODY = json.dumps({"decision_id": "d", "account_id": "a", "context": CONTEXT}).encode()


@pytest.fixture
def start(service_process: Start, settings: Settings) -> Start:
    """Starts the service as a process on the workflow `help`."""

    def start_one(**changes: object) -> ServiceProcess:
        return service_process(policies=settings.policies, workflows=settings.workflows, **changes)

    return start_one


def begin(process: ServiceProcess) -> socket.socket:
    """A request that the process has the head and half the body of."""
    head = (
        "POST /v1/workflows/help/decisions HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", process.port), timeout=10)
    connection.sendall(head.encode() + BODY[:10])
    time.sleep(0.3)
    return connection


def finish(connection: socket.socket) -> tuple[int, Any]:
    """The answer to the request, once the rest of its body is sent."""
    connection.sendall(BODY[10:])
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return answer.status, json.loads(answer.read())


def signalled(process: ServiceProcess, number: signal.Signals) -> int:
    """The process's id, after the signal was sent."""
    assert process.pid is not None
    os.kill(process.pid, number)
    return process.pid


def status_at_end(process: ServiceProcess, *, timeout_seconds: float = 15) -> int | None:
    """Its exit status, once it has ended by itself."""
    assert process.pid is not None
    child = psutil.Process(process.pid)
    assert wait_until(
        lambda: child.status() == psutil.STATUS_ZOMBIE, timeout_seconds=timeout_seconds
    ), process.log_tail()
    return process.terminate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_in_flight_is_answered_before_the_process_ends(
    start: Start, number: signal.Signals
) -> None:
    process = start()
    with begin(process) as connection:
        signalled(process, number)
        assert wait_until(lambda: not process.ready(), timeout_seconds=5)
        status, answer = finish(connection)
    assert (status, answer["account_id"]) == (200, "a")
    assert status_at_end(process) == 0
    assert "Traceback" not in process.log_tail()
    process.start()
    with begin(process) as connection:
        assert finish(connection) == (200, answer)  # it was in the ledger


def test_a_process_that_drains_serves_on_while_it_says_that_it_is_stopping(start: Start) -> None:
    process = start(drain_seconds=2)
    signalled(process, signal.SIGTERM)
    assert wait_until(lambda: not process.ready(), timeout_seconds=1)
    asked = http.client.HTTPConnection("127.0.0.1", process.port, timeout=5)
    asked.request("GET", "/readyz")
    answer = asked.getresponse()
    assert (answer.status, json.loads(answer.read())["status"]) == (503, "stopping")
    asked.close()
    with begin(process) as connection:
        assert finish(connection)[0] == 200
    assert status_at_end(process) == 0


def test_a_second_signal_waits_for_no_request(start: Start) -> None:
    process = start(drain_seconds=60)
    with begin(process):
        signalled(process, signal.SIGTERM)
        assert wait_until(lambda: not process.ready(), timeout_seconds=5)
        signalled(process, signal.SIGTERM)
        assert status_at_end(process, timeout_seconds=FINISH_SECONDS - 2) == 0


@pytest.fixture
def own_signals() -> Iterator[None]:
    """SIGTERM ends no test; what was installed before is installed again."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("own_signals")
def test_a_signal_that_comes_while_it_starts_ends_it_in_order(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    @contextlib.asynccontextmanager
    async def interrupted(settings: Settings) -> AsyncIterator[Service]:
        async with open_service(settings) as running:
            os.kill(os.getpid(), signal.SIGTERM)
            yield running
            steps.append("served")
        steps.append("closed")

    monkeypatch.setattr(service.server, "open_service", interrupted)
    serve(settings.model_copy(update={"port": free_port()}))
    assert steps == ["served", "closed"]


def test_a_traceback_in_the_log_shows_places_and_types_and_no_texts() -> None:
    def fail() -> None:
        try:
            raise KeyError("household-17")
        except KeyError as error:
            raise ValueError("household-17 is unknown") from error

    try:
        fail()
    except ValueError:
        record = logging.LogRecord("a", logging.ERROR, "", 1, "%s failed", ("job",), sys.exc_info())
    text = Discreet("%(name)s: %(message)s").format(record)
    assert text.startswith("a: job failed\n")
    assert "in fail\n" in text
    assert text.index("KeyError") < text.index("and from it") < text.rindex("ValueError")
    assert "household-17" not in text.replace('raise KeyError("household-17")', "").replace(
        'raise ValueError("household-17 is unknown")', ""
    )


def test_the_server_logs_by_that_format(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured: dict[str, Any] = {}
    monkeypatch.setattr(logging, "basicConfig", lambda **given: configured.update(given))
    (settings.workflows / "help.yaml").unlink()
    with pytest.raises(RefusedToStartError) as refused:
        serve(settings)
    assert isinstance(refused.value.__cause__, SpecError)
    assert [type(one.formatter) for one in configured["handlers"]] == [Discreet]


@pytest.mark.parametrize("path", ["/livez", "/startupz", "/readyz"])
async def test_health_may_be_asked_for_by_head(client: Client, path: str) -> None:
    asked = await client.http.get(path)
    head = await client.http.head(path)
    assert head.status_code == asked.status_code == 200
    assert head.headers["content-type"] == asked.headers["content-type"]


async def test_readiness_tells_what_is_not_there(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: object) -> None:
        raise LedgerUnavailableError("no")

    monkeypatch.setattr(client.service.ledger, "read", fail)
    answer = await client.http.get("/readyz")
    assert answer.status_code == 503
    report = answer.json()
    assert (report["status"], report["ledger"]) == ("unready", "unavailable")
    assert (await client.http.get("/livez")).json() == {"status": "alive"}


ACCOUNT = "/v1/workflows/{workflow}/accounts/{account_id}"
PICTURE = ("post", "/v1/workflows/{workflow}/decisions/picture")
KEY_ID = "0123456789abcdef"
ALARM_ID = 2 * KEY_ID
ROLLOUT = {
    "workflow": "help",
    "policy": "counting/1",
    "against": "fallback",
    "why": "to see",
    "schedule": {
        "stages": [
            {"percent": 50, "min_accounts": 0, "bake_interactions": 0, "approval": True},
            {"percent": 100},
        ]
    },
}
ANSWERS: dict[tuple[str, str], tuple[str, Any, type[BaseModel] | None]] = {
    ("post", "/v1/workflows/{workflow}/decisions"): (
        "/v1/workflows/help/decisions",
        {"decision_id": "e", "account_id": "a", "context": CONTEXT, "actions": ["wait", "mail"]},
        schemas.DecisionAnswer,
    ),
    ("post", "/v1/decisions/{decision_id}/feedback"): (
        "/v1/decisions/d/feedback",
        {"feedback_id": "2", "outcome": "solved"},
        schemas.FeedbackAnswer,
    ),
    ("get", "/v1/decisions/{decision_id}"): (
        "/v1/decisions/d?rederive=true",
        None,
        account_schemas.AuditRecord,
    ),
    ("post", "/v1/decisions/{decision_id}/activate"): (
        "/v1/decisions/d/activate",
        None,
        account_schemas.ActivationAnswer,
    ),
    ("post", "/v1/workflows/{workflow}/decisions/batch"): (
        "/v1/workflows/help/decisions/batch",
        {"decisions": [{"account_id": "a", "context": CONTEXT}, {"account_id": "a b"}]},
        batch.DecisionResults,
    ),
    ("post", "/v1/feedback/batch"): (
        "/v1/feedback/batch",
        {"feedback": [{"decision_id": "e", "reward": 1}, {"decision_id": "none", "reward": 1}]},
        batch.FeedbackResults,
    ),
    ("get", "/v1/workflows/{workflow}/accounts/{account_id}"): (
        "/v1/workflows/help/accounts/a",
        None,
        schemas.AccountRecord,
    ),
    ("post", f"{ACCOUNT}/rebuild"): (
        "/v1/workflows/help/accounts/a/rebuild",
        None,
        account_schemas.RebuildAnswer,
    ),
    ("get", f"{ACCOUNT}/export"): (
        "/v1/workflows/help/accounts/a/export",
        None,
        account_schemas.AccountExport,
    ),
    ("get", "/v1/workflows/{workflow}/verification"): (
        "/v1/workflows/help/verification?limit=1&after=0",
        None,
        account_schemas.VerificationPage,
    ),
    ("post", "/v1/workflows/{workflow}/rebuild"): (
        "/v1/workflows/help/rebuild",
        None,
        account_schemas.RebuildPage,
    ),
    ("post", f"{ACCOUNT}/reset"): (
        "/v1/workflows/help/accounts/a/reset",
        None,
        schemas.AccountRecord,
    ),
    ("delete", ACCOUNT): (
        "/v1/workflows/help/accounts/a",
        None,
        account_schemas.ErasureAnswer,
    ),
    ("get", "/v1/alarms"): ("/v1/alarms?state=all&limit=1", None, alarms.AlarmList),
    ("get", "/v1/alarms/{alarm_id}"): (
        f"/v1/alarms/{ALARM_ID}",
        None,
        alarm_schemas.AlarmRecord,
    ),
    ("post", "/v1/alarms/{alarm_id}/acknowledge"): (
        f"/v1/alarms/{ALARM_ID}/acknowledge",
        {"note": "rates changed on Monday"},
        alarm_schemas.AlarmRecord,
    ),
    ("post", "/v1/alarms/{alarm_id}/clear"): (
        f"/v1/alarms/{ALARM_ID}/clear",
        None,
        alarm_schemas.AlarmRecord,
    ),
    ("get", "/v1/rollouts"): ("/v1/rollouts", None, rollout_schemas.RolloutList),
    ("get", "/v1/rollouts/{rollout_id}"): (
        "/v1/rollouts/{rollout}",
        None,
        rollout_schemas.WholeRolloutRecord,
    ),
    **{
        ("post", f"/v1/rollouts/{{rollout_id}}/{action}"): (
            f"/v1/rollouts/{{rollout}}/{action}",
            {"why": "to see"},
            rollout_schemas.RolloutRecord,
        )
        for action in ("approve", "pause", "resume", "advance", "roll-back")
    },
    ("post", "/v1/rollouts"): ("/v1/rollouts", ROLLOUT, rollout_schemas.RolloutRecord),
    ("get", "/v1/kill-switch"): ("/v1/kill-switch", None, rollout_schemas.SwitchList),
    ("put", "/v1/kill-switch"): (
        "/v1/kill-switch",
        {"on": True, "workflow": "help", "why": "to see"},
        rollout_schemas.SwitchList,
    ),
    ("get", "/v1/audit"): ("/v1/audit?limit=2", None, rollout_schemas.AuditTrail),
    ("get", "/v1/workflows"): ("/v1/workflows", None, schemas.WorkflowList),
    ("get", "/v1/workflows/{workflow}"): ("/v1/workflows/help", None, schemas.WorkflowRecord),
    ("post", "/v1/keys"): ("/v1/keys", {"name": "checkout"}, keys.NewKeyRecord),
    ("get", "/v1/keys"): ("/v1/keys", None, keys.KeyList),
    ("post", "/v1/keys/{key_id}/rotate"): (
        f"/v1/keys/{KEY_ID}/rotate",
        {"overlap_days": 1.0},
        keys.Rotation,
    ),
    ("post", "/v1/keys/{key_id}/revoke"): (
        f"/v1/keys/{KEY_ID}/revoke",
        None,
        keys.KeyRecord,
    ),
    ("get", "/livez"): ("/livez", None, schemas.Liveness),
    ("get", "/startupz"): ("/startupz", None, schemas.Startup),
    ("get", "/readyz"): ("/readyz", None, schemas.Readiness),
    ("get", "/metrics"): ("/metrics", None, None),
}


def add_alarm(tenant: str) -> Callable[[Connection], None]:
    """An open alarm about all accounts of the workflow."""

    def add(connection: Connection) -> None:
        crowd = AccountKey(tenant, "help", "")
        about = ("reward_shift", "workflow", "", "", "test/1", "alert")
        told = Alarm(
            ALARM_ID, *crowd[:2], *about, 0, 1, "a cause", "a suggestion", {"after": 0.1}, 1
        )
        page = Page({}, {}, [told], [], 1)
        assert write_page(connection, page) == [told]

    return add


async def test_every_route_answers_what_it_documents(client: Client) -> None:
    await client.decide("a", decision_id="d", episode_id="e")
    await client.learn("d", reward=1, feedback_id="1", occurred_at="2027-01-15T09:00:00+01:00")
    row = KeyRow(KEY_ID, "test", "caller", "default", "0" * 64, client.service.clock(), "test")
    await client.service.ledger.change(add_key(row))
    await client.service.ledger.change(add_alarm("default"))
    begun = (await client.http.post("/v1/rollouts", json=ROLLOUT)).json()
    await client.service.rollouts.evaluate(client.service.recall, client.service.clock())
    described = (await client.http.get("/openapi.json")).json()
    routes = {(method, path) for path, methods in described["paths"].items() for method in methods}
    assert routes - {PICTURE} == set(ANSWERS)  # that one needs another workflow: test_pictures.py
    for (method, path), (address, sent, model) in ANSWERS.items():
        place = address.replace("{rollout}", begun["rollout_id"])
        answer = await client.http.request(method, place, json=sent)
        responses = described["paths"][path][method]["responses"]
        [given] = [status for status in responses if status in ("200", "201")]
        assert answer.status_code == int(given), answer.text
        documented = {
            name.split(";")[0]: body for name, body in responses[given]["content"].items()
        }
        body = documented[answer.headers["content-type"].split(";")[0]]
        if model is None:
            continue
        assert len(documented) == 1
        name = body["schema"]["$ref"].removeprefix("#/components/schemas/")
        assert name == model.__name__
        properties = described["components"]["schemas"][name]["properties"]
        assert set(answer.json()) == set(properties), path
        read = model.model_validate_json(answer.content)
        assert read.model_dump(mode="json", by_alias=True, exclude_unset=True) == answer.json()


def test_every_documented_example_of_a_body_is_valid() -> None:
    for model in (
        schemas.DecisionBody,
        schemas.FeedbackBody,
        batch.FeedbackItem,
        batch.DecisionBatch,
        batch.FeedbackBatch,
    ):
        schema = model.model_json_schema()
        assert schema["examples"]
        for whole in schema["examples"]:
            model.model_validate(whole)
            for name, described in schema["properties"].items():
                for example in described.get("examples", []):
                    model.model_validate(whole | {name: example})


async def test_every_documented_status_is_one_that_is_given(open_client: Open) -> None:
    async with open_client() as client:
        paths = create_app(client.service).openapi()["paths"]
    statuses = {
        f"{method} {path}": set(operation["responses"])
        for path, operations in paths.items()
        for method, operation in operations.items()
    }
    for route, given in statuses.items():
        if " /v1/" in route:  # what every route with a key may give
            common = {"401", "403", "429"} | ({"413"} if route.startswith("post") else set())
            assert common <= given, route
            statuses[route] = given - common
    reads = {"200", "404", "422", "503", "default"}
    assert statuses == {
        "post /v1/workflows/{workflow}/decisions": reads | {"400", "410"},
        "post /v1/decisions/{decision_id}/feedback": reads | {"400", "409", "410"},
        "post /v1/workflows/{workflow}/decisions/batch": reads | {"400"},
        "post /v1/feedback/batch": {"200", "400", "422", "503", "default"},
        "post /v1/decisions/{decision_id}/activate": reads | {"409", "410"},
        "get /v1/decisions/{decision_id}": reads | {"410"},
        f"post {ACCOUNT}/reset": reads,
        f"post {ACCOUNT}/rebuild": reads,
        f"delete {ACCOUNT}": reads,
        f"get {ACCOUNT}/export": reads,
        "get /v1/workflows/{workflow}/verification": reads,
        "post /v1/workflows/{workflow}/rebuild": reads,
        "get /v1/workflows/{workflow}/accounts/{account_id}": reads,
        "post /v1/rollouts": reads - {"200"} | {"201", "400", "409"},
        "get /v1/rollouts": reads - {"404"},
        "get /v1/rollouts/{rollout_id}": reads,
        **{
            f"post /v1/rollouts/{{rollout_id}}/{action}": reads | {"400", "409"}
            for action in ("approve", "pause", "resume", "advance", "roll-back")
        },
        "get /v1/alarms": reads - {"404"},
        "get /v1/alarms/{alarm_id}": reads,
        "post /v1/alarms/{alarm_id}/acknowledge": reads | {"400"},
        "post /v1/alarms/{alarm_id}/clear": reads,
        "get /v1/kill-switch": reads - {"404", "503"},
        "put /v1/kill-switch": reads | {"400", "413"},
        "get /v1/audit": reads - {"404"},
        "get /v1/workflows": {"200", "422", "default"},
        "get /v1/workflows/{workflow}": {"200", "404", "422", "default"},
        " ".join(PICTURE): reads | {"410"},
        "post /v1/keys": {"201", "400", "422", "503", "default"},
        "get /v1/keys": {"200", "422", "503", "default"},
        "post /v1/keys/{key_id}/rotate": reads | {"400"},
        "post /v1/keys/{key_id}/revoke": reads,
        "get /livez": {"200", "default"},
        "get /startupz": {"200", "default"},
        "get /readyz": {"200", "503", "default"},
        "get /metrics": {"200", "default"},
    }
    for operations in paths.values():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                content = response["content"].get("application/problem+json", {})
                if "example" in content:
                    assert content["example"]["status"] == int(status)
                    assert set(content["example"]) == set(content["schema"]["properties"])
