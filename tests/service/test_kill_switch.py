"""The kill switch: wherever it was thrown, the fallback decides everything until it is put back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection
from typer.testing import CliRunner

from acclimate import main
from service.ledger.records import AccountKey, LedgerUnavailableError
from service.rollouts.kill_switch import FILE, Thrown, merge
from service.rollouts.store import Event, audit, read_audit
from tests.service.conftest import CONTEXT, Client, Open


async def throw(client: Client, on: bool, status: int = 200, **body: Any) -> dict[str, Any]:
    whole = {"on": on, "why": "odd offers"} | body
    answer = await client.http.put("/v1/kill-switch", json=whole)
    assert answer.status_code == status, answer.text
    return dict(answer.json())


async def reason(client: Client, account: str = "a") -> str:
    return str((await client.decide(account)).json()["reason"])


async def trail(client: Client) -> Sequence[Event]:
    return await client.service.ledger.read(lambda one: read_audit(one, 10))


async def test_while_it_is_on_the_fallback_decides_and_accounts_learn(client: Client) -> None:
    await client.interact("a")
    await throw(client, True, by="ops")
    answer = (await client.decide("a")).json()
    assert (answer["reason"], answer["action"]) == ("kill_switch", "mail")
    body = {"decisions": [{"account_id": one, "context": CONTEXT} for one in ("a", "b")]}
    made = (await client.http.post("/v1/workflows/help/decisions/batch", json=body)).json()
    assert {one["decision"]["reason"] for one in made["results"]} == {"kill_switch"}
    await client.learn(answer["decision_id"], reward=3)
    assert await client.metric("acclimate_kill_switch") == 1
    await throw(client, False)
    after = (await client.decide("a")).json()
    assert (after["reason"], after["memory_position"]) == ("policy", 2)
    await client.service.kill_switch.sync()
    told = [(one.actor, one.action, one.subject, one.reason) for one in await trail(client)]
    assert told == [
        ("anyone", "kill_switch_off", "all workflows", "odd offers"),
        ("ops", "kill_switch_on", "all workflows", "odd offers"),
    ]


async def test_a_switch_of_one_workflow_is_no_others(client: Client) -> None:
    await throw(client, True, 404, workflow="nobody")
    await throw(client, True, workflow="help")
    assert client.service.traffic.killed == {"help"}
    assert await reason(client) == "kill_switch"
    refused = await throw(client, True, 422, why="")
    assert refused["errors"][0]["field"] == "why"


async def test_it_works_while_the_ledger_takes_nothing_and_is_audited_when_it_is_back(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: object) -> None:
        raise LedgerUnavailableError("no")

    with monkeypatch.context() as patched:
        patched.setattr(client.service.ledger, "alone", fail)
        patched.setattr(client.service.ledger, "read", fail)
        for on in (True, False, True):
            await throw(client, on)
            await client.service.kill_switch.sync()
        assert client.service.traffic.killed == {"*"}
    assert not await trail(client)
    for _ in range(2):  # once is enough
        await client.service.kill_switch.sync()
    switched = [one.action for one in await trail(client)]
    assert switched == ["kill_switch_on", "kill_switch_off", "kill_switch_on"]


async def test_it_outlives_a_restart_and_a_file_written_beside_is_seen(
    open_client: Open, settings: Any
) -> None:
    where = ["--data-dir", str(settings.data_dir), "--why", "nothing answers", "--json"]
    thrown = CliRunner().invoke(main, ["kill-switch", "on", *where])
    assert thrown.exit_code == 0, thrown.output
    assert json.loads(thrown.stdout)["on"]
    async with open_client() as client:  # from the first request on
        assert await reason(client) == "kill_switch"
        assert CliRunner().invoke(main, ["kill-switch", "off", *where]).exit_code == 0
        await client.service.jobs.follow()
        assert await reason(client) == "policy"
        assert len(await trail(client)) == 2
        (settings.data_dir / FILE).write_text("no switch of ours")
        await client.service.jobs.follow()
        assert await reason(client) == "policy"
        await throw(client, True)  # and the file is whole again
        assert json.loads((settings.data_dir / FILE).read_text())["switches"]["*"]["on"]


async def test_replicas_see_each_others_switches_in_redis(
    open_client: Open, redis_url: str, tmp_path: Path, postgres_url: str
) -> None:
    shared = {"redis_url": redis_url, "ledger_url": postgres_url}
    async with (
        open_client(**shared, data_dir=tmp_path / "one") as one,
        open_client(**shared, data_dir=tmp_path / "other") as other,
    ):
        await throw(one, True)
        await other.service.jobs.follow()
        assert await reason(other) == "kill_switch"
        await throw(other, False)
        await one.service.jobs.follow()
        assert await reason(one) == "policy"
        assert len(await trail(one)) == 2  # both wrote both down


async def test_without_redis_the_file_holds_and_redis_is_told_when_it_is_back(
    open_client: Open, redis_url: str, redis_server: Any, tmp_path: Path, postgres_url: str
) -> None:
    shared = {"redis_url": redis_url, "ledger_url": postgres_url}
    async with open_client(**shared, data_dir=tmp_path / "one") as one:
        redis_server.stop()
        try:
            await throw(one, True)
            assert await reason(one) == "kill_switch"
        finally:
            redis_server.start()
        await one.service.jobs.follow()
        async with open_client(**shared, data_dir=tmp_path / "other") as other:
            assert await reason(other) == "kill_switch"


async def test_what_can_be_kept_nowhere_is_refused(client: Client) -> None:
    path = client.service.settings.data_dir / FILE
    path.unlink(missing_ok=True)
    path.mkdir()
    refused = await throw(client, True, 503)
    assert refused["type"].endswith("switch-unavailable")


def test_of_two_places_what_was_done_last_holds() -> None:
    early, late = Thrown(True, 1, "a", "", "x"), Thrown(False, 2, "b", "", "y")
    for one, other in (({"*": early}, {"*": late}), ({"*": late}, {"*": early})):
        assert merge(one, other) == {"*": late}
    assert merge({"*": early}, {"help": late}) == {"*": early, "help": late}
    # Of two at the same moment the one that is safe holds.
    assert merge({"*": early}, {"*": late._replace(at_us=1)}) == {"*": early}


async def test_an_event_is_audited_once(client: Client) -> None:
    event = Event("e", 1, "ops", "kill_switch_on", "all workflows", "why")

    def twice(connection: Connection) -> None:
        audit(connection, [event, event])

    await client.service.ledger.alone(twice)
    assert await trail(client) == [event]


async def test_a_memory_learned_under_the_switch_is_the_fold_of_the_past(client: Client) -> None:
    await throw(client, True)
    for _ in range(3):
        await client.interact("a")
    workflow = client.service.catalog.workflows["help"]
    key = AccountKey("default", "help", "a")
    stored = await client.service.memories.get(key, workflow.policy.identity)
    assert stored is not None and stored.head.position == 3
