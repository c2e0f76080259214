"""A rollout on a real service over REST: begun, taken back by itself, and forward again."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import run
from typing import Any

import httpx
import pytest

from service.ledger.records import AccountKey
from service.runtime import open_service
from service.settings import Settings
from tests.bundles import write_counting_bundle
from tests.processes import wait_until
from tests.servers import Server
from tests.service.conftest import CONTEXT, WORKFLOW
from tests.service.pasts import same
from tests.service_process import ADMIN_KEY, AUTHORIZATION, ROOT, ServiceProcess, environment

ACCOUNTS = [f"account-{i}" for i in range(260)]
QUICK = {"min_accounts": 0, "bake_interactions": 0}

Start = Callable[..., ServiceProcess]


@pytest.fixture
def shop(tmp_path: Path, redis_url: str, postgres_url: str) -> dict[str, Any]:
    """One installation with two versions of a policy."""
    home = tmp_path / "shop"
    for version in (1, 2):
        write_counting_bundle(home / "policies", version=version)
    (home / "workflows").mkdir()
    (home / "workflows" / "help.yaml").write_text(WORKFLOW)
    return {
        "workflows": home / "workflows",
        "policies": home / "policies",
        "redis_url": redis_url,
        "ledger_url": postgres_url,
        "job_interval_seconds": 0.1,
    }


def schedule(tmp_path: Path, *stages: dict[str, Any]) -> Path:
    path = tmp_path / "schedule.json"
    path.write_text(json.dumps({"stages": [QUICK | one for one in stages], "holdout_percent": 2}))
    return path


def acclimate(process: ServiceProcess, *command: str, status: int = 0) -> Any:
    """What the command prints as JSON."""
    done = run(
        [sys.executable, "-m", "acclimate", *command, "--json"],
        env=environment({"url": process.base_url, "key": ADMIN_KEY}) | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout) if status == 0 else done.stderr


def interact(http: httpx.Client, candidates: float) -> dict[str, dict[str, Any]]:
    """One interaction of every account, better or worse on the second version; the decisions."""
    body = {"decisions": [{"account_id": one, "context": CONTEXT} for one in ACCOUNTS]}
    answer = http.post("/v1/workflows/help/decisions/batch", json=body)
    assert answer.status_code == 200, answer.text
    made = {one["decision"]["account_id"]: one["decision"] for one in answer.json()["results"]}
    told = [
        {
            "decision_id": one["decision_id"],
            "reward": candidates if one["policy"] == "counting/2" else 1.0,
        }
        for one in made.values()
    ]
    assert http.post("/v1/feedback/batch", json={"feedback": told}).status_code == 200
    return made


def of_version(made: dict[str, dict[str, Any]], version: int) -> set[str]:
    """Whose decisions that version made."""
    return {name for name, one in made.items() if one["policy"] == f"counting/{version}"}


def test_back_and_forward_again_leaves_every_memory_equal_to_its_replay(
    service_process: Start, tmp_path: Path, shop: dict[str, Any]
) -> None:
    process = service_process(**shop)
    path = schedule(tmp_path, {"percent": 50, "bake_interactions": 1_000}, {"percent": 100})
    start = ("rollout", "start", "counting/2", "--workflow", "help", "--why", "newer")
    with httpx.Client(base_url=process.base_url, timeout=60, headers=AUTHORIZATION) as http:
        for _ in range(3):
            interact(http, candidates=-1)
        begun = acclimate(process, *start, "--schedule", str(path))
        assert "one without a rollout on its way" in acclimate(process, *start, status=1)
        ident = begun["rollout_id"]

        def status() -> str:
            return str(http.get(f"/v1/rollouts/{ident}").json()["status"])

        # As good at first: nothing takes it back before the restart has been seen.
        assert wait_until(lambda: len(of_version(interact(http, 1), 2)) > 80, timeout_seconds=60)
        inside = of_version(interact(http, 1), 2)
        process.restart()
        assert of_version(interact(http, 1), 2) >= inside
        for _ in range(3):
            interact(http, -1)
        assert wait_until(lambda: status() == "rolled_back", timeout_seconds=60), process.log_tail()
        assert wait_until(lambda: not of_version(interact(http, 1), 2), timeout_seconds=30)
        shown = acclimate(process, "rollout", "show", ident)
        assert shown["transitions"][-1]["actor"] == "evaluator"
        assert shown["verdict"]["reason"] == "worse"

        again = acclimate(process, *start, "--schedule", str(path))["rollout_id"]
        acclimate(process, "rollout", "advance", again, "--why", "it was the rewards")
        whole = wait_until(lambda: len(of_version(interact(http, 1), 2)) > 240, timeout_seconds=60)
        assert whole
        listed = acclimate(process, "rollout", "list")["rollouts"]
        assert [one["status"] for one in listed] == ["rolled_back", "completed"]
        trail = acclimate(process, "rollout", "audit")["events"]
        assert [one["action"] for one in trail] == ["advance", "create", "create"]
    process.terminate()
    asyncio.run(memories_are_their_replays(process, shop))


async def memories_are_their_replays(process: ServiceProcess, shop: dict[str, Any]) -> None:
    """What lies in Redis, of either version, is bit for bit what the ledger folds to at its head;
    and those of the version that serves are at their accounts' heads."""
    settings = Settings(**shop, data_dir=process.data_dir)
    found = {"counting/1": 0, "counting/2": 0}
    async with open_service(settings, schedule=False) as service:
        for name in ACCOUNTS:
            key = AccountKey("default", "help", name)
            account = await service.ledger.account(key)
            assert account is not None
            for served in service.catalog.serving("help"):
                stored = await service.memories.get(key, served.policy.identity)
                if stored is None:
                    continue
                replayed = (await service.recall.fresh(served, key, stored.head)).memory
                assert same(stored.memory, replayed.memory)
                found[served.policy_name] += 1
                if served is service.catalog.workflows["help"]:
                    assert stored.head == account.head
    assert found["counting/2"] > 240 and found["counting/1"] > 240


def test_the_kill_switch_works_with_the_database_down_and_is_audited_when_it_is_back(
    service_process: Start, shop: dict[str, Any], postgres_server: Server
) -> None:
    process = service_process(**shop)
    with httpx.Client(base_url=process.base_url, timeout=60, headers=AUTHORIZATION) as http:
        interact(http, 1)
        postgres_server.stop()
        try:
            thrown = acclimate(process, "kill-switch", "on", "--why", "the database is odd")
            assert thrown["switches"][0]["on"]
            assert acclimate(process, "kill-switch", "show") == thrown
        finally:
            postgres_server.start()

        def decides() -> str:
            body = {"account_id": "account-1", "context": CONTEXT}
            answer = http.post("/v1/workflows/help/decisions", json=body)
            return str(answer.json().get("reason"))

        assert wait_until(lambda: decides() == "kill_switch", timeout_seconds=30)

        def audited() -> bool:
            answer = http.get("/v1/audit")
            events = answer.json()["events"] if answer.status_code == 200 else []
            return [one["action"] for one in events] == ["kill_switch_on"]

        assert wait_until(audited, timeout_seconds=30), process.log_tail()
        process.restart()
        assert decides() == "kill_switch"
        acclimate(process, "kill-switch", "off", "--why", "it is well again")
        assert decides() == "policy"


def test_what_is_refused_and_who_does_not_answer_end_differently(
    service_process: Start, tmp_path: Path, shop: dict[str, Any]
) -> None:
    process = service_process(**shop)
    start = ("rollout", "start", "--workflow", "help", "--why", "newer")
    assert "no such bundle" in acclimate(process, *start, "counting/9", status=1)
    down = schedule(tmp_path, {"percent": 50}, {"percent": 10}, {"percent": 100})
    said = acclimate(process, *start, "counting/2", "--schedule", str(down), status=2)
    assert "stages only go up" in said
    assert acclimate(process, "rollout", "list")["rollouts"] == []
    process.terminate()
    assert "does not answer" in acclimate(process, "rollout", "list", status=2)
