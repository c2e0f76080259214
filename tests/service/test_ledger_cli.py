"""`acclimate ledger verify` and `rebuild`: exit codes, what they say, on every way in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from typer.testing import CliRunner, Result

from acclimate import main
from service.ledger.records import AccountKey, Head
from service.memory.store import StoredMemory
from service.settings import Settings
from tests.service.conftest import Client, Open
from tests.service_process import ServiceProcess

KEY = AccountKey("default", "help", "a")


async def cli(settings: Settings, *arguments: str) -> Result:
    """The command line in another thread, under the same settings."""
    environment = {
        "ACCLIMATE_DATA_DIR": str(settings.data_dir),
        "ACCLIMATE_WORKFLOWS": str(settings.workflows),
        "ACCLIMATE_POLICIES": str(settings.policies),
        "ACCLIMATE_LEDGER_URL": settings.ledger_url,
        "ACCLIMATE_REDIS_URL": settings.redis_url,
        "ACCLIMATE_MEMORY_TIMEOUT_SECONDS": "5",
        "COLUMNS": "200",
    }
    given = {name: value for name, value in environment.items() if value is not None}
    return await asyncio.to_thread(CliRunner().invoke, main, ["ledger", *arguments], env=given)


async def verify(settings: Settings, *arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit code and what was found."""
    result = await cli(settings, "verify", "--json", *arguments)
    assert result.exit_code in (0, 1), result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return result.exit_code, found


async def live(client: Client) -> None:
    for tenant in ("default", "t2"):
        for account in ("a", "b"):
            for n in range(3):
                decision_id = f"{account}{n}"
                await client.decide(account, decision_id=decision_id, tenant=tenant)
                await client.learn(decision_id, reward=3, tenant=tenant)


async def test_all_tenants_are_verified_while_the_service_runs(client: Client) -> None:
    await live(client)
    code, found = await verify(client.service.settings)
    assert (code, found["accounts"], found["interactions"], found["different"]) == (0, 4, 12, 0)
    assert found["memories"] == 0
    (note,) = found["notes"]
    assert "--url" in note  # in the embedded profile they are in the service's process
    code, found = await verify(client.service.settings, "--tenant", "t2", "--workflow", "help")
    assert (code, found["accounts"]) == (0, 2)


async def test_what_differs_is_named_and_the_exit_code_is_1(client: Client) -> None:
    await live(client)
    with client.service.ledger._engine.begin() as connection:
        connection.execute(text("UPDATE accounts SET phase = 'regressed' WHERE tenant = 't2'"))
    code, found = await verify(client.service.settings)
    assert code == 1
    assert [(one["key"]["tenant"], one["what"]) for one in found["differing"]] == [
        ("t2", "adaptation")
    ] * 2
    shown = await cli(client.service.settings, "verify")
    assert shown.exit_code == 1
    assert "adaptation of t2/help/a: regressed" in shown.stdout
    assert found["digest"] in shown.stdout


async def test_memories_in_redis_are_verified_and_rebuilt_beside_the_service(
    open_client: Open, redis_url: str, postgres_url: str
) -> None:
    async with open_client(
        redis_url=redis_url, ledger_url=postgres_url, memory_timeout_seconds=5.0
    ) as client:
        settings, service = client.service.settings, client.service
        await live(client)
        code, before = await verify(settings)
        assert (code, before["memories"], before["notes"]) == (0, 4, [])
        identity = service.catalog.workflows["help"].policy.identity
        stored = await service.memories.get(KEY, identity)
        assert stored is not None
        blank = service.catalog.workflows["help"].blank()
        await service.memories.put(KEY, identity, StoredMemory(blank, stored.head))
        code, found = await verify(settings)
        assert (code, found["different"], found["digest"]) == (1, 1, before["digest"])
        result = await cli(settings, "rebuild", "--json")
        rebuilt = json.loads(result.stdout)
        assert (rebuilt["accounts"], rebuilt["different"]) == (4, 1)
        assert rebuilt["digest"] == before["digest"]
        assert await verify(settings) == (0, before)
        await service.memories.put(KEY, identity, StoredMemory(blank, Head(0, 1)))
        one = await cli(settings, "rebuild", "--workflow", "help", "--account", "a", "--json")
        assert json.loads(one.stdout)["interactions"] == 3
        assert await verify(settings) == (0, before)


def test_a_running_service_is_verified_and_rebuilt_over_rest(
    service_process: Callable[..., ServiceProcess], tmp_path: Path
) -> None:
    service = service_process()
    import httpx

    with httpx.Client(base_url=service.base_url) as http:
        context = {
            "tenure_months": 20,
            "plan": "premium",
            "trigger": "rival",
            "usage": 0.2,
            "offers_lately": 1,
            "cancelled": False,
            "season_sin": 0,
            "season_cos": 1,
            "region": "south",
            "in_dispute": False,
        }
        for n in range(6):
            body = {"account_id": f"a{n % 3}", "context": context, "decision_id": f"d{n}"}
            assert http.post("/v1/workflows/retention-offer/decisions", json=body).is_success
            assert http.post(f"/v1/decisions/d{n}/feedback", json={"reward": 1}).is_success
    invoke = CliRunner().invoke
    url = ["--url", service.base_url, "--json"]
    found = invoke(main, ["ledger", "verify", *url])
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout)
    assert (told["accounts"], told["interactions"], told["memories"]) == (3, 6, 3)
    rebuilt = json.loads(invoke(main, ["ledger", "rebuild", *url]).stdout)
    assert (rebuilt["accounts"], rebuilt["different"]) == (3, 0)
    assert rebuilt["digest"] == told["digest"]
    other = json.loads(invoke(main, ["ledger", "verify", *url, "--tenant", "t2"]).stdout)
    assert other["accounts"] == 0
    account = ["--workflow", "retention-offer", "--account", "a1"]
    assert json.loads(invoke(main, ["ledger", "rebuild", *url, *account]).stdout)["accounts"] == 1
    refused = invoke(main, ["ledger", "verify", *url, "--workflow", "none"])
    assert refused.exit_code == 2
    assert "workflow: expected one of" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["verify", "--data-dir", "nowhere"], "the ledger cannot be opened"),
        (["verify", "--workflow", "none"], "--workflow: expected one of ['help'], got 'none'"),
        (["verify", "--url", "http://127.0.0.1:1"], "does not answer"),
        (["rebuild"], "expected --url"),
        (["rebuild", "--account", "a"], "--account: expected --workflow too"),
    ],
)
async def test_what_cannot_be_opened_is_said_and_the_exit_code_is_2(
    client: Client, arguments: list[str], expected: str
) -> None:
    result = await cli(client.service.settings, *arguments)
    assert result.exit_code == 2
    assert expected in result.stderr
    assert not result.stdout
