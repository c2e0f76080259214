"""What an operator does with accounts: activate, reset, rebuild, erase, export, rederive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest
import redis.asyncio
from sqlalchemy import text

from contract.draw import draw
from contract.policy import Memory
from service.api.account_schemas import AccountExport
from service.ledger.records import AccountKey, Decision, Head
from service.ledger.settle import DecisionWrite
from service.memory.store import MemoryUnavailableError, StoredMemory
from tests.service.conftest import CONTEXT, WORKFLOW, Client, Open, Time

KEY = AccountKey("default", "help", "a")
ACCOUNT = "/v1/workflows/help/accounts/a"


@pytest.fixture(params=["sqlite", "postgresql"])
async def either(request: pytest.FixtureRequest, open_client: Open) -> AsyncIterator[Client]:
    """The service on each of the databases."""
    url = None if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    async with open_client(ledger_url=url) as client:
        yield client


async def stored(client: Client, key: AccountKey = KEY) -> StoredMemory | None:
    workflow = client.service.catalog.workflows["help"]
    return await client.service.memories.get(key, workflow.policy.identity)


async def defer(client: Client, time: Time, decision_id: str = "d") -> None:
    """A deferred decision, as the decide path commits it."""
    workflow = client.service.catalog.workflows["help"]
    key = client.service.settings.draw_key()
    decision = Decision(
        key=KEY,
        decision_id=decision_id,
        episode_id=None,
        spec_version=workflow.version,
        policy=workflow.spec.policy,
        context=CONTEXT,
        asked_for=["mail"],
        action="mail",
        probability=1.0,
        draw=draw(key, *KEY, decision_id),
        reason="policy",
        limits=[],
        head=Head(),
        request_sha256="0" * 64,
        created_at_us=time(),
        expires_at_us=time() + 100_000_000,
        mode="defer",
    )
    await client.service.ledger.record_decision(DecisionWrite(decision, False, has_default=False))


async def post(client: Client, path: str, tenant: str = "default") -> httpx.Response:
    return await client.http.post(path, headers={"X-Acclimate-Tenant": tenant})


async def test_a_deferred_decision_counts_from_when_it_is_activated(
    client: Client, time: Time
) -> None:
    await defer(client, time)
    refused = await client.learn("d", reward=3)
    assert refused.status_code == 409
    assert refused.json()["type"] == "urn:acclimate:problem:not-active"
    assert refused.json()["errors"] == [
        {"field": "decision_id", "expected": "an activated decision"}
    ]
    time.pass_seconds(1_000)
    assert await client.service.jobs.fold_defaults() == 0  # never activated: no default
    first = await post(client, "/v1/decisions/d/activate")
    assert first.status_code == 200
    assert first.json()["mode"] == "defer"
    time.pass_seconds(50)
    again = await post(client, "/v1/decisions/d/activate")
    assert again.content == first.content
    learned = (await client.learn("d", reward=3)).json()
    assert (learned["status"], learned["late"]) == ("folded", False)


async def test_a_decision_that_was_served_is_active_from_the_start(client: Client) -> None:
    decided = (await client.decide("a", decision_id="d")).json()
    answer = (await post(client, "/v1/decisions/d/activate")).json()
    assert answer == {
        "decision_id": "d",
        "mode": "serve",
        "activated_at": None,
        "expires_at": decided["expires_at"],
    }


async def test_only_the_tenants_own_decision_is_activated(client: Client, time: Time) -> None:
    await defer(client, time)
    for path, tenant in (("d", "other"), ("none", "default")):
        answer = await post(client, f"/v1/decisions/{path}/activate", tenant)
        assert answer.status_code == 404


async def test_a_reset_account_starts_anew_and_keeps_its_past_on_record(either: Client) -> None:
    for _ in range(4):
        await either.interact("a")
    answer = await post(either, f"{ACCOUNT}/reset")
    assert answer.status_code == 200
    record = answer.json()
    assert (record["interactions"], record["generation"], record["decisions"]) == (0, 1, 4)
    assert (record["phase"], record["recent_reward"]) == ("adapting", None)
    assert record == (await either.http.get(ACCOUNT)).json()
    memory = await stored(either)
    assert memory is not None
    assert memory.head == Head(1, 0)
    assert not memory.memory.rows.any()
    decided = (await either.decide("a")).json()
    assert (decided["memory_position"], decided["memory_generation"]) == (0, 1)
    await either.interact("a", actions=["mail"])
    assert (await stored(either)).memory.rows[0].tolist() == [[0, 0], [1, 1], [0, 0]]  # type: ignore[union-attr]


@pytest.mark.parametrize("what", ["reset", "rebuild", "export"])
async def test_an_account_that_nobody_knows_is_not_found(client: Client, what: str) -> None:
    await client.decide("a", tenant="other")
    method = "GET" if what == "export" else "POST"
    answer = await client.http.request(method, f"{ACCOUNT}/{what}")
    assert answer.status_code == 404
    assert answer.json()["errors"] == [
        {"field": "account_id", "expected": "an account that has had a decision"}
    ]
    elsewhere = f"/v1/workflows/none/accounts/a/{what}"
    assert (await client.http.request(method, elsewhere)).json()["errors"][0]["field"] == "workflow"


async def test_a_rebuild_says_whether_what_was_stored_was_the_fold_of_the_past(
    either: Client,
) -> None:
    for n in range(5):
        await either.interact("a", reward=(-1, 3, 1)[n % 3])
    first = (await post(either, f"{ACCOUNT}/rebuild")).json()
    assert first.pop("seconds") >= 0
    digest = first.pop("digest")
    assert len(digest) == 64
    assert first == {
        "account_id": "a",
        "policy": "counting/1",
        "interactions": 5,
        "position": 5,
        "generation": 0,
        "was_equal": True,
        "complete": True,
    }
    whole = await stored(either)
    assert whole is not None
    identity = either.service.catalog.workflows["help"].policy.identity
    rows = whole.memory.rows.copy()
    rows[0, 0, 0] = np.nextafter(rows[0, 0, 0], np.float32(9))  # one bit
    bent = StoredMemory(Memory(whole.memory.shared, rows), whole.head)
    await either.service.memories.put(KEY, identity, bent)
    second = (await post(either, f"{ACCOUNT}/rebuild")).json()
    assert (second["was_equal"], second["digest"]) == (False, digest)
    healed = await stored(either)
    assert healed is not None
    assert healed.memory.rows.tobytes() == whole.memory.rows.tobytes()
    await either.service.memories.delete(KEY, identity)
    third = (await post(either, f"{ACCOUNT}/rebuild")).json()
    assert (third["was_equal"], third["digest"]) == (None, digest)


async def test_erasing_an_account_leaves_nothing_of_it_but_refusals(
    either: Client, time: Time
) -> None:
    for n in range(3):
        await either.decide("a", decision_id=f"d{n}")
        await either.learn(f"d{n}", reward=3)
    await defer(either, time, "waiting")
    await either.interact("b")
    answer = await either.http.delete(ACCOUNT)
    assert answer.status_code == 200
    assert answer.json() == {"account_id": "a", "decisions": 4, "feedback": 3}
    assert await stored(either) is None
    for refused in (
        await either.learn("d0", reward=3),
        await either.learn("d0", reward=1, feedback_id="late"),
        await post(either, "/v1/decisions/waiting/activate"),
        await either.http.get("/v1/decisions/d0"),
        await either.decide("a", decision_id="d0"),
    ):
        assert refused.status_code == 410, refused.text
        assert refused.json()["type"] == "urn:acclimate:problem:erased"
        assert refused.json()["errors"][0]["field"] == "decision_id"
    for gone in (await either.http.get(ACCOUNT), await either.http.delete(ACCOUNT)):
        assert gone.status_code == 404
    decided = (await either.decide("a")).json()
    assert (decided["memory_position"], decided["memory_generation"]) == (0, 1)
    await either.interact("a")
    assert (await either.http.get(ACCOUNT)).json()["interactions"] == 1
    assert (await either.http.get("/v1/workflows/help/accounts/b")).json()["interactions"] == 1


async def test_other_tenants_erase_nothing(client: Client) -> None:
    await client.decide("a", decision_id="d")
    answer = await client.http.delete(ACCOUNT, headers={"X-Acclimate-Tenant": "other"})
    assert answer.status_code == 404
    assert (await client.http.get("/v1/decisions/d")).status_code == 200


async def test_nothing_is_erased_while_the_memory_store_cannot_be(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.decide("a", decision_id="d")

    async def down(*_: object) -> None:
        raise MemoryUnavailableError("down")

    monkeypatch.setattr(client.service.memories, "delete", down)
    answer = await client.http.delete(ACCOUNT)
    assert answer.status_code == 503
    assert answer.json()["type"] == "urn:acclimate:problem:memory-unavailable"
    assert (await client.http.get("/v1/decisions/d")).status_code == 200


async def test_an_export_tells_what_came_of_a_decision_in_the_order_in_which_it_came(
    either: Client, time: Time
) -> None:
    await either.decide("a", decision_id="d")
    for name in ("second-by-name", "first-by-name", "a"):
        time.pass_seconds(1)
        await either.learn("d", reward=1, feedback_id=name)
    exported = (await either.http.get(f"{ACCOUNT}/export")).json()
    record = (await either.http.get("/v1/decisions/d")).json()
    for told in (exported["decisions"][0], record):
        names = [one["feedback_id"] for one in told["feedback"]]
        assert names == ["second-by-name", "first-by-name", "a"]


async def test_an_export_holds_everything_that_is_known_of_an_account(
    either: Client, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.api.account_export.PAGE", 3)
    for n in range(7):
        time.pass_seconds(1)
        await either.decide("a", decision_id=f"d{9 - n}", actions=["mail", "wait"])
        await either.learn(f"d{9 - n}", reward=1)
    await either.learn("d9", outcome="solved", feedback_id="more")
    await post(either, f"{ACCOUNT}/reset")
    await defer(either, time, "waiting")
    await either.interact("b")
    answer = await either.http.get(f"{ACCOUNT}/export")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-disposition"] == 'attachment; filename="account.json"'
    export = AccountExport.model_validate_json(answer.content)
    assert export.model_dump(mode="json", by_alias=True) == answer.json()
    assert [one.decision_id for one in export.decisions] == [
        *(f"d{9 - n}" for n in range(7)),
        "waiting",
    ]
    assert [one.kind for one in export.decisions[0].feedback] == ["received"] * 2
    assert export.decisions[0].context == CONTEXT
    assert export.decisions[0].asked_for == ["mail", "wait"]
    assert export.decisions[-1].mode == "defer"
    assert [(one.reason, one.head_position) for one in export.generations] == [("reset", 7)]
    assert (export.account.decisions, export.account.generation) == (8, 1)
    assert list(export.specs) == ["1"]
    assert export.specs["1"] == either.service.catalog.workflows["help"].spec


async def rederived(client: Client, decision_id: str) -> dict[str, Any]:
    answer = await client.http.get(f"/v1/decisions/{decision_id}?rederive=true")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["rederived"]
    return found


async def test_a_decision_is_rederived_from_its_past_whatever_came_later(either: Client) -> None:
    for n in range(6):
        await either.decide("a", decision_id=f"d{n}")
        await either.learn(f"d{n}", reward=(-1, 3, 1)[n % 3])
    assert (await either.http.get("/v1/decisions/d3")).json()["rederived"] is None
    await post(either, f"{ACCOUNT}/reset")
    await either.interact("a")
    for n in range(6):
        record = (await either.http.get(f"/v1/decisions/d{n}")).json()
        found = await rederived(either, f"d{n}")
        assert (found["equal"], found["complete"], found["reason"]) == (True, True, None)
        assert (found["from_generation"], found["from_position"]) == (0, n)
        assert (found["action"], found["difference"]) == (record["action"], 0.0)
        assert found["probability"] == record["probability"]
        assert sum(found["action_probabilities"].values()) == pytest.approx(1)
        assert found["action_probabilities"][record["action"]] == record["probability"]


async def test_a_decision_is_rederived_against_the_past_as_it_was_before_a_revision(
    open_client: Open, settings: Any
) -> None:
    spec = WORKFLOW.replace("late: apply", "late: apply, aggregation: latest")
    (settings.workflows / "help.yaml").write_text(spec)
    async with open_client(snapshot_every=2) as client:
        for n in range(5):
            await client.decide("a", decision_id=f"d{n}")
            await client.learn(f"d{n}", reward=3, feedback_id="first")
        before = {n: await rederived(client, f"d{n}") for n in range(5)}
        await client.learn("d1", reward=-1, feedback_id="second")
        await client.decide("a", decision_id="after")
        assert (await client.http.get(ACCOUNT)).json()["generation"] == 1
        for n in range(5):
            assert await rederived(client, f"d{n}") == before[n]
            assert before[n]["equal"]
        after = await rederived(client, "after")
        assert (after["equal"], after["from_generation"], after["from_position"]) == (True, 1, 5)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"context": CONTEXT | {"plan": "basic"}}, "policy"),
        ({"context": CONTEXT | {"plan": "basic"}, "actions": ["call"]}, "safe_action"),
        ({"context": CONTEXT | {"age": 9}}, "safe_action"),
        ({"context": CONTEXT | {"age": 99}, "actions": ["mail"]}, "safe_action"),
    ],
)
async def test_the_guardrails_are_evaluated_anew(
    client: Client, body: dict[str, Any], reason: str
) -> None:
    await client.interact("a")
    decided = (await client.decide("a", decision_id="d", **body)).json()
    assert decided["reason"] == reason
    found = await rederived(client, "d")
    assert (found["equal"], found["reason"]) == (True, None)
    if reason == "safe_action":
        assert found["action_probabilities"] == {"wait": 1, "mail": 0, "call": 0}
    else:
        assert found["action_probabilities"]["call"] == 0


async def test_the_fallbacks_choice_is_rederived_and_its_cause_named(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.interact("a")

    async def down(*_: object, **__: object) -> None:
        raise MemoryUnavailableError("down")

    with monkeypatch.context() as outage:
        outage.setattr(client.service.memories, "get_many", down)
        decided = (await client.decide("a", decision_id="d")).json()
        angry = CONTEXT | {"note": "angry"}
        await client.decide("a", decision_id="e", context=angry)
    assert (decided["reason"], decided["action"]) == ("memory_unavailable", "mail")
    for decision_id, action in (("d", "mail"), ("e", "call")):
        found = await rederived(client, decision_id)
        assert (found["equal"], found["action"], found["probability"]) == (True, action, 1.0)
        assert "memory_unavailable" in found["reason"]


async def test_what_was_tampered_with_is_not_equal(client: Client) -> None:
    for n in range(3):
        await client.decide("a", decision_id=f"d{n}")
        await client.learn(f"d{n}", reward=3)
    await change(client, "UPDATE decisions SET probability = 0.999 WHERE decision_id = 'd0'")
    await change(client, "UPDATE decisions SET draw = 0.5 WHERE decision_id = 'd1'")
    await change(
        client, "UPDATE decisions SET limits = '[\"cheap_only\"]' WHERE decision_id = 'd2'"
    )
    assert [(await rederived(client, f"d{n}"))["equal"] for n in range(3)] == [False] * 3
    assert (await rederived(client, "d0"))["difference"] > 0.1


async def test_a_decision_of_a_policy_that_is_gone_says_so(client: Client) -> None:
    await client.decide("a", decision_id="d")
    await change(client, "UPDATE decisions SET policy = 'counting/0'")
    found = await rederived(client, "d")
    assert found["reason"] == "policy counting/0 is not loaded any more"
    assert (found["equal"], found["action_probabilities"]) == (None, None)


async def test_a_past_that_is_incomplete_says_so(client: Client) -> None:
    for n in range(3):
        await client.decide("a", decision_id=f"d{n}")
        await client.learn(f"d{n}", reward=3)
    await client.decide("a", decision_id="d")
    await change(client, "DELETE FROM feedback WHERE decision_id IN ('d0', 'd1')")
    await change(client, "DELETE FROM decisions WHERE decision_id IN ('d0', 'd1')")
    await change(client, "UPDATE accounts SET kept_above = 2")
    found = await rederived(client, "d")
    assert (found["complete"], found["equal"]) == (False, False)
    assert "missing" in found["reason"]


async def test_a_decision_under_an_older_spec_is_rederived_under_that(
    open_client: Open, settings: Any
) -> None:
    async with open_client() as client:
        await client.interact("a")
        await client.decide("a", decision_id="d", context=CONTEXT | {"plan": "basic"})
    gift = "  - id: gift\n    features: {cost: 2}\n"
    wider = WORKFLOW.replace("{cost: 5}\n", "{cost: 5}\n" + gift).replace("cost > 2", "cost > 0")
    (settings.workflows / "help.yaml").write_text(wider)
    async with open_client() as client:
        await client.interact("a")
        found = await rederived(client, "d")
        assert found["equal"]
        assert set(found["action_probabilities"]) == {"wait", "mail", "call"}


async def test_concurrent_rebuilds_resets_and_feedback_leave_a_memory_that_is_its_replay(
    client: Client,
) -> None:
    for n in range(10):
        await client.decide("a", decision_id=f"d{n}")
    await asyncio.gather(
        *(client.learn(f"d{n}", reward=3) for n in range(10)),
        *(post(client, f"{ACCOUNT}/rebuild") for _ in range(5)),
        post(client, f"{ACCOUNT}/reset"),
    )
    await client.decide("a")
    last = (await post(client, f"{ACCOUNT}/rebuild")).json()
    assert last["was_equal"]


async def change(client: Client, statement: str) -> None:
    """What nobody may do to a ledger."""
    with client.service.ledger._engine.begin() as connection:
        connection.execute(text(statement))


async def test_erasing_an_account_leaves_no_key_of_it_in_redis(
    open_client: Open, redis_url: str
) -> None:
    async with open_client(redis_url=redis_url, memory_timeout_seconds=5.0) as client:
        await client.interact("a")
        await client.interact("b")
        assert (await client.http.delete(ACCOUNT)).status_code == 200
        server = redis.asyncio.Redis.from_url(redis_url)
        keys = await server.keys("*")
        await server.aclose()
        assert ["|a}" in str(key) for key in keys] == [False]
