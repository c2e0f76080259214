"""Batches: every item gets the answer it would have got by itself, for one inference and commit."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from service.ledger.records import LedgerUnavailableError
from tests.service.conftest import CONTEXT, Client, Open

DECISIONS = "/v1/workflows/help/decisions/batch"
FEEDBACK = "/v1/feedback/batch"


def item(account: str = "a", **changes: Any) -> dict[str, Any]:
    """One decision as asked for."""
    return {"account_id": account, "context": CONTEXT} | changes


async def decide(client: Client, *items: Any, tenant: str = "default") -> httpx.Response:
    return await client.http.post(
        DECISIONS, json={"decisions": items}, headers={"X-Acclimate-Tenant": tenant}
    )


async def learn(client: Client, *items: Any, tenant: str = "default") -> httpx.Response:
    return await client.http.post(
        FEEDBACK, json={"feedback": items}, headers={"X-Acclimate-Tenant": tenant}
    )


async def results(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["results"]
    return found


async def position(client: Client, account: str) -> int:
    answer = await client.http.get(f"/v1/workflows/help/accounts/{account}")
    return int(answer.json()["interactions"])


# Decisions


async def test_results_come_in_the_order_of_the_items_whosever_they_are(client: Client) -> None:
    await client.interact("b")
    accounts = [f"c{i}" for i in range(300)] + ["b", "a", "b"]
    answers = await results(await decide(client, *(item(one) for one in accounts)))
    assert [one["status"] for one in answers] == [200] * 303
    assert [one["decision"]["account_id"] for one in answers] == accounts
    positions = [one["decision"]["memory_position"] for one in answers]
    assert positions == [0] * 300 + [1, 0, 1]


async def test_a_batch_decides_as_its_items_would_one_by_one(
    open_client: Open, client: Client
) -> None:
    await client.interact("b")
    items = [
        item(account, decision_id=f"{account}{i}", context=CONTEXT | {"plan": plan, "tenure": i})
        for i, plan in enumerate(("basic", "premium", "premium"))
        for account in ("a", "b", "c")
    ]
    together = [one["decision"] for one in await results(await decide(client, *items))]
    apart = [(await client.decide(**_by_itself(one))).json() for one in items]
    assert together == apart  # the ids are known: these are the answers that were given
    other = [(await client.decide(**_by_itself(one), tenant="other")).json() for one in items[::3]]
    same = ("reason", "policy", "limits", "expires_at", "memory_generation")
    for one, twin in zip(together[::3], other, strict=True):
        assert {name: one[name] for name in same} == {name: twin[name] for name in same}


def _by_itself(one: dict[str, Any]) -> dict[str, Any]:
    return {"account" if name == "account_id" else name: value for name, value in one.items()}


async def test_a_batch_is_one_call_of_the_network_and_one_commit(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = client.service.catalog.workflows["help"].policy.onnx
    sizes: list[int] = []
    run = policy.decide

    def counted(memory: Any, **inputs: Any) -> Any:
        sizes.append(len(memory.rows))
        return run(memory, **inputs)

    monkeypatch.setattr(policy, "decide", counted)
    commits = await client.metric("acclimate_ledger_commit_seconds_count")
    await results(await decide(client, *(item(f"a{i}") for i in range(200))))
    assert sizes == [200]
    assert await client.metric("acclimate_ledger_commit_seconds_count") == commits + 1
    assert await client.metric("acclimate_decisions_total") == 200
    assert await client.metric("acclimate_decision_seconds_count") == 200


async def test_the_same_decision_twice_in_a_batch_is_one_decision(client: Client) -> None:
    one, other, conflict = await results(
        await decide(
            client,
            item(decision_id="d"),
            item(decision_id="d"),
            item(decision_id="d", actions=["mail"]),
        )
    )
    assert one == other
    assert conflict["status"] == 422
    assert conflict["problem"]["type"] == "urn:acclimate:problem:id-conflict"
    assert conflict["problem"]["errors"][0]["field"] == "decisions.2.decision_id"
    assert await client.metric("acclimate_decisions_total") == 1
    again = await results(await decide(client, item(decision_id="d")))
    assert again == [one]


WRONG = [
    ("decisions.1", 7, "body"),
    ("decisions.1", [], "body"),
    ("decisions.1.account_id", {"context": CONTEXT}, "account_id"),
    ("decisions.1.account_id", item("a/b"), "account_id"),
    ("decisions.1.extra", item(extra=1), "extra"),
    ("decisions.1.actions.0", item(actions=["Mail"]), "actions.0"),
    ("decisions.1.actions", item(actions=["fly"]), "actions"),
    ("decisions.1.context.plan", item(context=CONTEXT | {"plan": "gold"}), "context.plan"),
    ("decisions.1.context.mood", item(context=CONTEXT | {"mood": 1}), "context.mood"),
]


@pytest.mark.parametrize(("field", "wrong", "alone"), WRONG)
async def test_an_item_that_is_wrong_fails_alone_with_its_own_problem(
    client: Client, field: str, wrong: Any, alone: str
) -> None:
    before, refused, after = await results(await decide(client, item("b"), wrong, item("c")))
    assert (before["status"], after["status"]) == (200, 200)
    by_itself = await client.http.post("/v1/workflows/help/decisions", json=wrong)
    expected = by_itself.json()
    assert [one["field"] for one in expected["errors"]] == [alone]
    expected["errors"][0]["field"] = field
    expected["detail"] = expected["detail"].replace(alone, field, 1)
    assert refused == {"status": 422, "problem": expected}


@pytest.mark.parametrize(
    ("sent", "status", "field"),
    [
        ({"decisions": []}, 422, "decisions"),
        ({"decisions": [item()] * 1_001}, 422, "decisions"),
        ({"decisions": {}}, 422, "decisions"),
        ({}, 422, "decisions"),
        ({"decisions": [item()], "more": 1}, 422, "more"),
        ([item()], 422, "body"),
    ],
)
async def test_a_batch_that_is_none_is_refused_as_a_whole(
    client: Client, sent: Any, status: int, field: str
) -> None:
    answer = await client.http.post(DECISIONS, json=sent)
    assert answer.status_code == status
    assert [one["field"] for one in answer.json()["errors"]] == [field]
    nowhere = await client.http.post("/v1/workflows/nope/decisions/batch", json={"decisions": [1]})
    assert nowhere.status_code == 404
    twice = b'{"decisions": [{"account_id": "a", "account_id": "b"}]}'
    headers = {"Content-Type": "application/json"}
    assert (await client.http.post(DECISIONS, content=twice, headers=headers)).status_code == 400
    assert await client.metric("acclimate_decisions_total") == 0


async def test_a_thousand_items_are_taken(client: Client) -> None:
    answers = await results(await decide(client, *(item(f"a{i}") for i in range(1_000))))
    assert {one["status"] for one in answers} == {200}


async def test_an_account_that_is_behind_is_caught_up_and_holds_up_nobody(client: Client) -> None:
    for _ in range(3):
        await client.interact("b")
    await client.service.memories.close()  # all of them are gone
    answers = await results(await decide(client, item("a"), item("b"), item("b")))
    assert [one["decision"]["memory_position"] for one in answers] == [0, 3, 3]
    assert {one["decision"]["reason"] for one in answers} == {"policy"}


async def test_limits_and_exhaustion_are_each_items_own(client: Client) -> None:
    lean, none, free = await results(
        await decide(
            client,
            item("a", context=CONTEXT | {"plan": "basic"}),
            item("b", context=CONTEXT | {"age": 9}),
            item("c"),
        )
    )
    assert lean["decision"]["limits"] == ["cheap_only"]
    assert (none["decision"]["reason"], none["decision"]["probability"]) == ("safe_action", 1.0)
    assert (free["decision"]["reason"], free["decision"]["limits"]) == ("policy", [])


# Feedback


async def test_feedback_of_one_account_is_learned_in_the_order_of_the_batch(
    client: Client,
) -> None:
    for account in ("a", "b"):
        for i in range(3):
            await client.decide(account, decision_id=f"{account}{i}", actions=["mail"])
    order = ["a2", "b0", "a0", "b2", "b1", "a1"]
    answers = await results(await learn(client, *({"decision_id": d, "reward": 3} for d in order)))
    places = {one["feedback"]["decision_id"]: one["feedback"] for one in answers}
    assert [places[d]["memory_position"] for d in ("a2", "a0", "a1")] == [1, 2, 3]
    assert [places[d]["memory_position"] for d in ("b0", "b2", "b1")] == [1, 2, 3]
    assert await client.metric("acclimate_memory_rebuilds_total") == 0
    for account in ("a", "b"):
        assert (await client.decide(account)).json()["memory_position"] == 3


async def test_each_piece_of_feedback_gets_what_it_would_have_got_by_itself(
    client: Client,
) -> None:
    for i in range(4):
        await client.decide("a", decision_id=f"d{i}")
    sent: list[Any] = [
        {"decision_id": "d0", "reward": 3},
        {"decision_id": "d0", "reward": 3},
        {"decision_id": "d0", "reward": 2},
        {"decision_id": "d1", "outcome": "solved", "feedback_id": "f"},
        {"decision_id": "nobody", "reward": 3},
        {"decision_id": "d2", "reward": 4},
        {"decision_id": "d2"},
        {"decision_id": "d2", "reward": "3"},
        {"reward": 3},
        {"decision_id": "d3", "reward": -1},
    ]
    answers = await results(await learn(client, *sent))
    assert [one["status"] for one in answers] == [200, 200, 422, 200, 404, 422, 422, 422, 422, 200]
    kept = [one["feedback"]["status"] for one in answers if one["status"] == 200]
    assert kept == ["folded", "duplicate", "folded", "folded"]
    fields = [one["problem"]["errors"][0]["field"] for one in answers if one["status"] != 200]
    assert fields == [
        "feedback.2.feedback_id",
        "feedback.4.decision_id",
        "feedback.5.reward",
        "feedback.6.reward",
        "feedback.7.reward",
        "feedback.8.decision_id",
    ]
    assert await position(client, "a") == 3
    assert await client.metric("acclimate_feedback_dangling_total") == 1
    for one, answer in zip(sent, answers, strict=True):
        if "decision_id" not in one or answer["status"] == 200:
            continue
        alone = await client.learn(**one)
        assert alone.status_code == answer["status"]
        assert alone.json()["type"] == answer["problem"]["type"]


async def test_what_was_decided_and_learned_in_batches_is_found_one_by_one(client: Client) -> None:
    made = await results(await decide(client, item("a"), item("b"), tenant="one"))
    ids = [one["decision"]["decision_id"] for one in made]
    foreign = await results(
        await learn(client, *({"decision_id": one, "reward": 3} for one in ids), tenant="two")
    )
    assert [one["status"] for one in foreign] == [404, 404]
    await learn(client, *({"decision_id": one, "reward": 3} for one in ids), tenant="one")
    headers = {"X-Acclimate-Tenant": "one"}
    for one in made:
        found = await client.http.get(
            f"/v1/decisions/{one['decision']['decision_id']}", headers=headers
        )
        assert found.json()["feedback"][0]["reward"] == 3
        assert found.json().items() >= one["decision"].items()


@pytest.mark.parametrize(
    "sent", [{"feedback": []}, {"feedback": [{"decision_id": "d", "reward": 1}] * 1_001}, {}]
)
async def test_feedback_that_is_no_batch_is_refused_as_a_whole(client: Client, sent: Any) -> None:
    answer = await client.http.post(FEEDBACK, json=sent)
    assert answer.status_code == 422
    assert [one["field"] for one in answer.json()["errors"]] == ["feedback"]


# Either


async def test_a_ledger_that_cannot_commit_refuses_the_whole_batch(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.decide("a", decision_id="d")

    def full(*_: object) -> Any:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(client.service.ledger._commits._engine, "begin", full)
        for refused in (
            await decide(client, item("a"), item("b/c")),
            await learn(client, {"decision_id": "d", "reward": 3}),
        ):
            assert refused.status_code == 503
            assert refused.headers["Retry-After"] == "1"
            assert refused.json()["type"] == "urn:acclimate:problem:ledger-unavailable"
    assert await position(client, "a") == 0


async def test_an_item_that_the_ledger_did_not_take_says_so_when_others_were_taken(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = client.service.ledger.record_decisions

    async def half(writes: list[Any]) -> Any:
        return [*(await record(writes[:1])), LedgerUnavailableError("gone")]

    monkeypatch.setattr(client.service.ledger, "record_decisions", half)
    taken, refused = await results(await decide(client, item("a"), item("b")))
    assert (taken["status"], refused["status"]) == (200, 503)
    assert refused["problem"]["type"] == "urn:acclimate:problem:ledger-unavailable"


async def test_a_batch_of_refusals_is_not_large(client: Client) -> None:
    wrong = {name * 40: 1 for name in "abcdefghijkl"}
    answer = await decide(client, *([wrong] * 1_000))
    assert {one["status"] for one in await results(answer)} == {422}
    assert len(answer.content) < 4_096 * 1_000


async def test_batches_are_documented_with_their_items(client: Client) -> None:
    schema = (await client.http.get("/openapi.json")).json()
    for path, name, required in (
        ("/v1/workflows/{workflow}/decisions/batch", "decisions", ["account_id"]),
        ("/v1/feedback/batch", "feedback", ["decision_id"]),
    ):
        content = schema["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        whole = schema["components"]["schemas"][content["schema"]["$ref"].rsplit("/", 1)[1]]
        items = whole["properties"][name]
        assert items["items"]["required"] == required
        assert (items["minItems"], items["maxItems"]) == (1, 1_000)
