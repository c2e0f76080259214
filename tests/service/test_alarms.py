"""Alarms in a running service: raised, followed, acknowledged, cleared; and never for nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.bundle import sha256_of
from contract.memory_reference import FILE, MemoryReference, save_reference
from contract.policy import Memory
from contract.spec import parse_workflow
from service.asked import DecisionRequest
from service.holds import Holds
from service.learn import FeedbackRequest
from service.ledger.alarms import Alarm, read_marks, read_streams
from service.ledger.records import Decision, Head
from service.memory.store import StoredMemory
from service.settings import Settings
from tests.bundles import edit_manifest, write_counting_bundle
from tests.service.conftest import CONTEXT, WORKFLOW, Client, Open, Time
from tests.service.pasts import KEY, account_of, agree, stored_of


def say(settings: Settings, more: str) -> None:
    """The workflow with `more` at its end."""
    (settings.workflows / "help.yaml").write_text(WORKFLOW + more)


async def live(client: Client, rewards: list[float], account: str = "a", **body: Any) -> None:
    """One interaction for each reward."""
    for reward in rewards:
        await client.interact(account, reward, **body)


async def live_at_once(
    client: Client, reward: float, context: dict[str, Any], actions: list[str] | None = None
) -> None:
    """One interaction of each of fifty accounts that are always in this context."""
    service = client.service
    accounts = [f"{context['plan']}-{n}" for n in range(50)]
    asked = [DecisionRequest("default", account, context, actions=actions) for account in accounts]
    decided = await service.decider.decide_many(service.catalog.workflows["help"], asked)
    given = [
        FeedbackRequest("default", one.decision_id, reward, None, None, False, None)
        for one in decided
        if isinstance(one, Decision)
    ]
    assert len(given) == len(await service.learner.learn_many(given)) == 50


async def look(client: Client) -> list[dict[str, Any]]:
    """The open alarms after the job has looked."""
    await client.service.scheduler.run_job("alarms")
    await client.service.scheduler.run_job("holds")
    answer = await client.http.get("/v1/alarms")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["alarms"]
    return found


async def test_a_fall_of_an_accounts_rewards_is_told_with_its_cause(client: Client) -> None:
    await live(client, [3.0] * 30)
    assert await look(client) == []
    await live(client, [-1.0] * 15)
    (alarm,) = await look(client)
    assert (alarm["kind"], alarm["scope"], alarm["account_id"]) == ("reward_shift", "account", "a")
    assert (alarm["consequence"], alarm["state"]) == ("alert", "open")
    assert alarm["numbers"]["before"] == 1.0
    assert alarm["numbers"]["after"] == 0.0
    assert alarm["numbers"]["began"] == 31
    assert 31 < alarm["position"] <= 45
    assert alarm["cause"]
    assert alarm["suggestion"]
    # Looking again, and again with nothing kept, finds the same and raises nothing.
    assert await look(client) == [alarm]
    await client.service.watch.look({})
    assert await look(client) == [alarm]
    assert await client.metric("acclimate_alarms_raised_total") == 1
    assert await client.metric("acclimate_alarms_open") == 1
    assert (await client.decide("a")).json()["reason"] == "policy"


async def test_an_alarm_ends_when_most_of_the_fall_is_made_good(client: Client) -> None:
    await live(client, [3.0] * 30 + [-1.0] * 15)
    assert len(await look(client)) == 1
    await live(client, [3.0] * 25)
    assert await look(client) == []
    answer = await client.http.get("/v1/alarms", params={"state": "all"})
    (alarm,) = answer.json()["alarms"]
    assert (alarm["state"], alarm["cleared_by"]) == ("cleared", "recovery")


async def test_falling_back_lasts_until_an_operator_ends_it(
    open_client: Open, settings: Settings
) -> None:
    say(settings, "alarms: {reward_shift: {account: fall_back}}\n")
    async with open_client() as client:
        await live(client, [3.0] * 30 + [-1.0] * 15)
        await live(client, [3.0] * 5, account="b")
        (alarm,) = await look(client)
        decided = (await client.decide("a")).json()
        assert (decided["reason"], decided["action"], decided["probability"]) == (
            "alarm",
            "mail",
            1,
        )
        assert (await client.decide("b")).json()["reason"] == "policy"
        await live(client, [3.0] * 25)  # the fallback earns: the account learns all the same
        assert len(await look(client)) == 1
        await agree(client)
        path = f"/v1/alarms/{alarm['alarm_id']}"
        seen = (await client.http.post(f"{path}/acknowledge", json={"note": "looking"})).json()
        assert (seen["state"], seen["note"]) == ("acknowledged", "looking")
        assert seen["acknowledged_by"]
        assert (await client.decide("a")).json()["reason"] == "alarm"
        ended = (await client.http.post(f"{path}/clear")).json()
        assert ended["state"] == "cleared"
        assert (await client.decide("a")).json()["reason"] == "policy"
        assert await look(client) == []
        rederived = await client.http.get(
            f"/v1/decisions/{decided['decision_id']}", params={"rederive": True}
        )
        assert rederived.json()["rederived"]["equal"]


async def test_what_is_held_stays_so_after_a_restart(open_client: Open, settings: Settings) -> None:
    say(settings, "alarms: {reward_shift: {account: fall_back}}\n")
    async with open_client() as client:
        await live(client, [3.0] * 30 + [-1.0] * 15)
        await look(client)
    async with open_client() as client:
        assert (await client.decide("a")).json()["reason"] == "alarm"


async def test_a_reset_that_follows_is_an_event_and_happens_once(
    open_client: Open, settings: Settings, database: str
) -> None:
    say(settings, "alarms: {reward_shift: {account: reset_memory}}\n")
    async with open_client(ledger_url=database) as client:
        await live(client, [3.0] * 30 + [-1.0] * 15)
        assert await look(client) == []
        account = await account_of(client)
        assert (account.head, account.base_generation) == (Head(1, 0), 1)
        exported = (await client.http.get("/v1/workflows/help/accounts/a/export")).json()
        assert [one["reason"] for one in exported["generations"]] == ["reset"]
        assert [one["kind"] for one in exported["alarms"]] == ["reward_shift"]
        answer = await client.http.get("/v1/alarms", params={"state": "all"})
        (alarm,) = answer.json()["alarms"]
        assert alarm["acted_at"] is not None
        assert alarm["cleared_by"] == "the reset of its memory"
        await look(client)
        assert (await account_of(client)).base_generation == 1
        await live(client, [3.0] * 5)
        assert await look(client) == []
        await agree(client)


async def test_one_bucket_falls_and_the_others_go_on(open_client: Open, settings: Settings) -> None:
    say(
        settings,
        "buckets: {plan: values}\nalarms:\n"
        "  reward_shift: {account: 'off', bucket: fall_back}\n"
        "  exploration_collapse: {account: 'off', workflow: 'off', bucket: 'off'}\n",
    )
    basic, premium = CONTEXT | {"plan": "basic"}, CONTEXT
    async with open_client() as client:
        for _ in range(40):
            await live_at_once(client, 3.0, basic)
            await live_at_once(client, 3.0, premium)
        assert await look(client) == []
        for _ in range(8):
            await live_at_once(client, -1.0, basic)
        found = {(one["scope"], one["bucket"]): one for one in await look(client)}
        assert set(found) == {("bucket", "plan=basic"), ("workflow", None)}
        assert found["workflow", None]["consequence"] == "alert"
        assert "plan=basic" in found["workflow", None]["cause"]
        assert (await client.decide("new", context=basic)).json()["reason"] == "alarm"
        assert (await client.decide("new", context=premium)).json()["reason"] == "policy"
        text = (await client.http.get("/metrics")).text
        assert 'acclimate_alarms_open{bucket="plan=basic",kind="reward_shift"' in text
        assert 'new"' not in text


async def test_what_the_fallback_earns_resets_no_memory(
    open_client: Open, settings: Settings
) -> None:
    say(settings, "alarms: {reward_shift: {account: reset_memory}}\n")
    async with open_client() as client:
        await live(client, [3.0] * 30)
        switch = {"on": True, "why": "a wrong price list"}
        assert (await client.http.put("/v1/kill-switch", json=switch)).status_code == 200
        await live(client, [-1.0] * 15)
        assert await look(client) == []
        assert (await account_of(client)).base_generation == 0


async def test_an_account_held_for_lost_exploration_stays_so_until_it_is_cleared(
    open_client: Open, settings: Settings
) -> None:
    say(settings, "alarms: {exploration_collapse: {account: fall_back}}\n")
    async with open_client() as client:
        await live(client, [-1.0] * 30, actions=["mail"])
        (alarm,) = await look(client)
        assert (alarm["kind"], alarm["consequence"]) == ("exploration_collapse", "fall_back")
        for _ in range(3):
            decided = (await client.decide("a")).json()
            assert decided["reason"] == "alarm"
            await client.learn(decided["decision_id"], reward=-1.0)
            assert [one["alarm_id"] for one in await look(client)] == [alarm["alarm_id"]]
        await client.http.post(f"/v1/alarms/{alarm['alarm_id']}/clear")
        assert (await client.decide("a")).json()["reason"] == "policy"


async def test_a_crowds_lost_exploration_is_not_told_again_of_the_same_decisions(
    open_client: Open, settings: Settings
) -> None:
    say(settings, "alarms: {exploration_collapse: {workflow: fall_back, account: 'off'}}\n")
    async with open_client() as client:
        for n in range(12):
            assert await look(client) == []
            await live_at_once(client, 0.0, CONTEXT, ["mail"] if n >= 8 else None)
        (alarm,) = await look(client)
        assert (alarm["kind"], alarm["scope"]) == ("exploration_collapse", "workflow")
        assert (await client.decide("new")).json()["reason"] == "alarm"
        await client.http.post(f"/v1/alarms/{alarm['alarm_id']}/clear")
        assert (await client.decide("new")).json()["reason"] == "policy"
        await live_at_once(client, 0.0, CONTEXT, ["mail"])
        assert await look(client) == []


def test_another_policy_is_not_held_for_what_one_did() -> None:
    about = ("exploration_collapse", "workflow", "", "", "counting/2", "fall_back")
    holds = Holds()
    holds.see([Alarm("id", "default", "help", *about, 0, 1, "", "", {}, 1)])
    spec = parse_workflow(WORKFLOW)
    assert holds.hold(spec, "counting/2", KEY, CONTEXT)
    assert not holds.hold(spec, "counting/1", KEY, CONTEXT)


def sick_policies(home: Path) -> Path:
    """The counting policy with a reference: wins and pulls of an account of some age."""
    bundle = write_counting_bundle(home)
    ages = np.array([1, 10, 100])
    half = ages[:, None] / 2.0
    reference = MemoryReference(
        positions=ages,
        shared_mean=np.tile(ages[:, None], (1, 2)).astype(np.float32),
        shared_std=np.tile(half, (1, 2)).astype(np.float32),
        row_mean=np.tile(ages[:, None] / 3.0, (1, 2)).astype(np.float32),
        row_std=np.tile(half, (1, 2)).astype(np.float32),
        shared_bounded=np.zeros(2, bool),
        row_bounded=np.zeros(2, bool),
        usual=np.array([[2.0, 0, 2], [20, 0, 2], [200, 0, 2]], np.float32),
        accounts=1,
    )
    save_reference(reference, bundle)
    files = {name: sha256_of(bundle / name) for name in ("decide.onnx", "learn.onnx", "parity.npz")}
    edit_manifest(bundle, sha256=files | {FILE: sha256_of(bundle / FILE)})
    return home


async def test_a_memory_unlike_training_is_told_until_it_is_well(
    open_client: Open, tmp_path: Path
) -> None:
    async with open_client(policies=sick_policies(tmp_path / "sick")) as client:
        await live(client, [3.0] * 10)
        assert await look(client) == []
        stored = await stored_of(client)
        assert stored is not None
        await live(client, [3.0])
        large = Memory(stored.memory.shared + 900, stored.memory.rows)
        identity = client.service.catalog.workflows["help"].policy.identity
        await client.service.memories.put(KEY, identity, StoredMemory(large, Head(0, 11)))
        (alarm,) = await look(client)
        assert (alarm["kind"], alarm["account_id"]) == ("memory_health", "a")
        assert alarm["numbers"]["found"] > alarm["numbers"]["limit"]
        await client.http.post("/v1/workflows/help/accounts/a/rebuild")
        await live(client, [3.0])
        assert await look(client) == []


async def test_two_looks_at_once_count_nothing_twice(open_client: Open, postgres_url: str) -> None:
    async with (
        open_client(ledger_url=postgres_url) as one,
        open_client(ledger_url=postgres_url) as other,
    ):
        await live(one, [3.0] * 30 + [-1.0] * 15)
        await asyncio.gather(*(it.service.watch.look({}) for it in (one, other, one, other)))
        assert len(await look(one)) == 1
        streams = await one.service.ledger.read(read_streams("default", "help", "counting/1"))
        (stream,) = streams.values()
        assert stream.body["pending"]["settled"][-1] == 25
        assert stream.body["pending"]["young"][-1] == 20


async def test_an_erased_account_leaves_no_alarm_behind(client: Client) -> None:
    await live(client, [3.0] * 30 + [-1.0] * 15)
    assert len(await look(client)) == 1
    assert (await client.http.delete("/v1/workflows/help/accounts/a")).status_code == 200
    assert await look(client) == []
    marks = await client.service.ledger.read(read_marks([KEY]))
    assert marks == {}
    answer = await client.http.get("/v1/alarms", params={"state": "all"})
    assert answer.json()["alarms"] == []


async def test_other_tenants_alarms_are_nobodys_business(client: Client) -> None:
    for reward in [3.0] * 30 + [-1.0] * 15:
        decided = (await client.decide("a", tenant="shop")).json()
        await client.learn(decided["decision_id"], tenant="shop", reward=reward)
    assert await look(client) == []
    theirs = await client.http.get("/v1/alarms", headers={"X-Acclimate-Tenant": "shop"})
    (alarm,) = theirs.json()["alarms"]
    answer = await client.http.post(f"/v1/alarms/{alarm['alarm_id']}/clear")
    assert answer.status_code == 404
    assert answer.json()["errors"][0]["field"] == "alarm_id"


@pytest.mark.parametrize(
    ("query", "field"),
    [({"kind": "noise"}, "kind"), ({"after": "x"}, "after"), ({"limit": "0"}, "limit")],
)
async def test_a_list_that_makes_no_sense_is_refused_by_field(
    client: Client, query: dict[str, str], field: str
) -> None:
    answer = await client.http.get("/v1/alarms", params=query)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == field


async def test_pages_of_alarms_are_walked_from_the_newest(client: Client, time: Time) -> None:
    for account in ("a", "b", "c"):
        await live(client, [3.0] * 30 + [-1.0] * 15, account=account)
        time.pass_seconds(1)
        await look(client)
    found, after = [], None
    for _ in range(3):
        query = {"limit": "1"} | ({"after": after} if after else {})
        page = (await client.http.get("/v1/alarms", params=query)).json()
        found += [one["account_id"] for one in page["alarms"]]
        after = page["next"]
    assert found == ["c", "b", "a"]
