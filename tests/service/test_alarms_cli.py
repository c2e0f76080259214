"""`acclimate alarms` against a running service: what is open, seen, ended, and how that exits."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from acclimate import main
from tests.e2e.events import settings_of
from tests.service.conftest import CONTEXT
from tests.service_process import ServiceProcess

Start = Callable[..., ServiceProcess]


@pytest.fixture
def service(service_process: Start, tmp_path: Path) -> ServiceProcess:
    """A service one of whose accounts earned well and then nothing."""
    running = service_process(**settings_of(tmp_path), alarm_interval_seconds=0.2)
    with httpx.Client(base_url=running.base_url, timeout=30) as http:
        for n in range(45):
            body = {"account_id": "a", "context": CONTEXT, "decision_id": f"d{n}"}
            http.post("/v1/workflows/help/decisions", json=body).raise_for_status()
            reward = 3 if n < 30 else -1
            http.post(f"/v1/decisions/d{n}/feedback", json={"reward": reward}).raise_for_status()
        for _ in range(200):
            if http.get("/v1/alarms").json()["alarms"]:
                break
            time.sleep(0.05)
    return running


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["alarms", *words], catch_exceptions=False)
    return result.exit_code, result.output


def test_an_alarm_is_listed_acknowledged_and_cleared(service: ServiceProcess) -> None:
    url = ("--url", service.base_url)
    status, text = run("list", "--json", *url)
    (alarm,) = json.loads(text)
    assert (status, alarm["kind"], alarm["account_id"]) == (1, "reward_shift", "a")
    status, text = run("list", *url)
    assert status == 1
    assert alarm["alarm_id"] in text
    status, text = run("acknowledge", alarm["alarm_id"], "--note", "seen", "--json", *url)
    assert (status, json.loads(text)["state"]) == (0, "acknowledged")
    status, text = run("clear", alarm["alarm_id"], *url)
    assert status == 0
    assert "cleared by" in text
    assert run("list", *url) == (0, "no alarms\n")
    status, text = run("list", "--all", "--json", *url)
    assert (status, json.loads(text)[0]["state"]) == (0, "cleared")
    status, text = run("clear", "nothing", *url)
    assert status == 2
    assert "alarm_id" in text


def test_a_service_that_is_not_there_exits_with_2() -> None:
    status, text = run("list", "--url", "http://127.0.0.1:1")
    assert status == 2
    assert "does not answer" in text
