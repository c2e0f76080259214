"""The service as a process of its own: it survives a kill, ends in order, and its log is shown."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.bundles import write_counting_bundle
from tests.processes import ProcessError
from tests.service_process import AUTHORIZATION, ServiceProcess, environment

Start = Callable[..., ServiceProcess]

WORKFLOW = """
schema: 1
workflow: greet
policy: counting/1
horizon: {interactions: 20, floor: 0.1}
actions: [{id: wave}, {id: nod}]
reward: {min: 0, max: 1}
feedback: {window_seconds: 100, default_reward: 0, late: apply}
fallback: {action: wave}
adaptation: {target: 0.5, window: 3, level: 0.8, hysteresis: 0.1}
"""


@pytest.fixture
def shop(tmp_path: Path) -> dict[str, Path]:
    """Settings that point to one workflow and its bundle."""
    write_counting_bundle(tmp_path / "policies")
    workflows = tmp_path / "workflows"
    workflows.mkdir()
    (workflows / "greet.yaml").write_text(WORKFLOW)
    return {"policies": tmp_path / "policies", "workflows": workflows}


def decide(service: ServiceProcess, decision_id: str) -> Any:
    body = {"decision_id": decision_id, "account_id": "ada", "context": {}}
    request = urllib.request.Request(
        f"{service.base_url}/v1/workflows/greet/decisions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", **AUTHORIZATION},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def test_it_answers_the_same_at_the_same_address_after_a_kill(
    service_process: Start, shop: dict[str, Path]
) -> None:
    service = service_process(**shop)
    before, address, pid = decide(service, "d1"), service.base_url, service.pid
    service.kill()
    assert not service.ready()
    service.start()
    assert service.base_url == address
    assert service.pid != pid
    assert decide(service, "d1") == before


def test_it_ends_in_order_and_restarts_on_its_data(
    service_process: Start, shop: dict[str, Path]
) -> None:
    service = service_process(**shop)
    before = decide(service, "d1")
    service.restart()
    assert decide(service, "d1") == before
    pid = service.pid
    assert service.terminate() == 0
    assert pid is not None
    assert not psutil.pid_exists(pid)


def test_the_production_profile_runs_on_real_servers(
    service_process: Start, shop: dict[str, Path], redis_url: str, postgres_url: str
) -> None:
    key = "the same for both"
    shared = shop | {"redis_url": redis_url, "ledger_url": postgres_url, "installation_key": key}
    one, other = service_process(**shared), service_process(**shared)
    assert decide(one, "d1") == decide(other, "d1")


def test_a_service_that_refuses_to_start_shows_why(
    service_process: Start, shop: dict[str, Path]
) -> None:
    (shop["workflows"] / "greet.yaml").write_text("schema: 1\n")
    with pytest.raises(ProcessError, match=r"(?s)ended with 2.*greet\.yaml"):
        service_process(**shop)
    refused = service_process(start=False, **shop).run()
    assert refused.returncode == 2
    assert "greet.yaml" in refused.stdout


def test_settings_of_whoever_runs_the_tests_do_not_reach_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ACCLIMATE_REDIS_URL", "redis://elsewhere")
    assert environment({"port": "1"})["ACCLIMATE_PORT"] == "1"
    assert "ACCLIMATE_REDIS_URL" not in environment({})
