"""schemathesis against the live service: no 5xx, no answer that is not documented, every error a
problem, whatever is sent and whoever sends it.

`make fuzz` runs the same for longer: FUZZ_EXAMPLES is how many requests fuzzing makes up for each
route, FUZZ_SEED another seed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from service.settings import Settings
from tests.service.test_pictures import SEEING
from tests.service_process import ADMIN_KEY, AUTHORIZATION, ROOT, ServiceProcess

EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "10")
SEED = os.environ.get("FUZZ_SEED", "1")

PLAIN = """
schema: 1
workflow: plain
policy: counting/1
actions: [{id: stay}, {id: go}]
fallback: {action: stay}
adaptation: {target: 0.5}
"""
SCHEDULE = {"stages": [{"percent": 50, "min_accounts": 0, "approval": True}, {"percent": 100}]}
ROLLOUT = {
    "workflow": "plain",
    "policy": "counting/1",
    "against": "fallback",
    "why": "to see",
    "schedule": SCHEDULE,
}


@pytest.fixture
def service(service_process: Callable[..., ServiceProcess], settings: Settings) -> ServiceProcess:
    """A service on its own, with workflows of every kind and something to ask for."""
    (settings.workflows / "plain.yaml").write_text(PLAIN)
    (settings.workflows / "seeing.yaml").write_text(SEEING)
    return service_process(
        workflows=settings.workflows,
        policies=settings.policies,
        admin_key=ADMIN_KEY,
        access="keys",
    )


def post(http: httpx.Client, path: str, body: object) -> dict[str, str]:
    answer = http.post(path, json=body)
    assert answer.is_success, answer.text
    found: dict[str, str] = answer.json()
    return found


@pytest.fixture
def what_is_there(service: ServiceProcess) -> dict[str, str]:
    """Some of everything that a path can name, as tests/service/schemathesis.toml names it; keys
    of two roles."""
    with httpx.Client(base_url=service.base_url, headers=AUTHORIZATION, timeout=30) as http:
        for number in range(1, 5):
            mode = "defer" if number == 4 else "serve"
            decision_id, account_id = f"d-{number}", f"a-{min(number, 3)}"
            body = {"account_id": account_id, "decision_id": decision_id, "mode": mode}
            post(http, "/v1/workflows/plain/decisions", body)
            if number < 3:
                post(http, f"/v1/decisions/{decision_id}/feedback", {"reward": 1.0})
        caller = post(http, "/v1/keys", {"name": "checkout"})
        other = post(http, "/v1/keys", {"name": "other", "tenant": "acme", "role": "operator"})
        rollout = post(http, "/v1/rollouts", ROLLOUT)
    return {
        "KEY_ID": caller["key_id"],
        "ROLLOUT_ID": rollout["rollout_id"],
        "caller": caller["key"],
        "operator": other["key"],
        "admin": ADMIN_KEY,
    }


@pytest.mark.parametrize("who", ["admin", "caller", "operator", "nobody"])
def test_whatever_is_sent_gets_an_answer_that_is_documented(
    service: ServiceProcess, what_is_there: dict[str, str], tmp_path: Path, who: str
) -> None:
    key = what_is_there.get(who)
    config = ROOT / "tests" / "service" / "schemathesis.toml"
    text = config.read_text()
    for name in ("KEY_ID", "ROLLOUT_ID"):
        text = text.replace(f"${{{name}}}", what_is_there[name])
    (tmp_path / "schemathesis.toml").write_text(text)
    run = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", "schemathesis.toml"),
            *("run", f"{service.base_url}/openapi.json"),
            *(() if key is None else ("--header", f"Authorization: Bearer {key}")),
            *("--phases", "examples,coverage,fuzzing,stateful"),
            *("--max-examples", EXAMPLES if who == "admin" else "2", "--seed", SEED),
            *("--suppress-health-check", "all", "--no-color"),
            *("--request-timeout", "20", "--no-shrink"),
        ],
        cwd=tmp_path,
        env=os.environ
        | {"SCHEMATHESIS_HOOKS": "tests.service.api_checks", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=3_600,
        check=False,
    )
    print(run.stdout[-1_500:])
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-2_000:]
    assert service.ready()
    log = service.log.read_text()
    assert "Traceback" not in log
    for role in ("admin", "caller", "operator"):
        assert what_is_there[role].split("_", 2)[-1] not in log
