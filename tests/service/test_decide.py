"""Decisions: drawn from what the guardrails left, durable, the same under retry."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from contract.draw import draw, sample
from contract.policy import Memory
from service.catalog import Workflow
from service.ledger.records import Head
from service.memory.in_process import InProcessMemoryStore
from service.memory.store import MemoryUnavailableError, StoredMemory
from tests.service.conftest import CONTEXT, Client, Open, Time


async def test_an_answer_says_what_was_chosen_how_likely_it_was_and_why(client: Client) -> None:
    answer = (await client.decide("a")).json()
    assert answer["action"] in ("wait", "mail", "call")
    assert 0 < answer["probability"] < 1
    assert (answer["reason"], answer["policy"]) == ("policy", "counting/1")
    assert (answer["memory_position"], answer["memory_generation"]) == (0, 0)
    assert answer["created_at"] == "2027-01-15T08:00:00Z"
    assert answer["expires_at"] == "2027-01-15T08:01:40Z"


async def test_one_feedback_changes_the_very_next_decision_of_that_account_only(
    client: Client,
) -> None:
    before = (await client.decide("a", actions=["mail"])).json()
    await client.learn(before["decision_id"], reward=3)
    after = (await client.decide("a")).json()
    other = (await client.decide("b")).json()
    assert (after["memory_position"], other["memory_position"]) == (1, 0)
    workflow = client.service.catalog.workflows["help"]
    blank = workflow.blank()
    won = Memory(blank.shared, blank.rows.copy())
    won.rows[0, 1] = (1, 1)  # one win in one pull of `mail`
    for answer, memory, position in ((after, won, 1), (other, blank, 0)):
        mask = workflow.limits.allow(CONTEXT, None).mask
        stored = StoredMemory(memory, Head(0, position))
        (expected,) = workflow.probabilities([stored], [CONTEXT], mask[None])
        row = workflow.spec.action_ids.index(answer["action"])
        assert answer["probability"] == pytest.approx(float(expected[row]), abs=1e-6)


async def test_the_same_id_and_body_get_the_same_bytes_even_after_the_memory_moved(
    client: Client,
) -> None:
    first = await client.decide("a", decision_id="d1")
    for _ in range(5):
        await client.interact("a")
    again = await client.decide("a", decision_id="d1")
    assert again.content == first.content
    account = (await client.http.get("/v1/workflows/help/accounts/a")).json()
    assert account["decisions"] == 6


async def test_the_same_id_with_another_body_is_refused_and_changes_nothing(
    client: Client,
) -> None:
    await client.decide("a", decision_id="d1")
    for change in (
        {"context": CONTEXT | {"tenure": 51}},
        {"actions": ["mail"]},
        {"episode_id": "e"},
    ):
        refused = await client.decide("a", decision_id="d1", **change)
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["field"] == "decision_id"
    assert (await client.decide("b", decision_id="d1")).status_code == 422
    assert (await client.http.get("/v1/workflows/help/accounts/b")).status_code == 404


async def test_the_logged_probability_is_that_of_the_action_served_under_the_mask(
    client: Client,
) -> None:
    counts: Counter[str] = Counter()
    probability: dict[str, float] = {}
    context = CONTEXT | {"plan": "basic", "tenure": 100}
    for i in range(600):  # 600 accounts, all blank: one distribution
        answer = (await client.decide(f"a{i}", context=context)).json()
        counts[answer["action"]] += 1
        probability[answer["action"]] = answer["probability"]
        assert answer["limits"] == ["cheap_only"]
    assert set(counts) == {"wait", "mail"}
    assert sum(probability.values()) == pytest.approx(1.0, abs=1e-6)
    for action, count in counts.items():
        expected = 600 * probability[action]
        assert abs(count - expected) < 4 * (expected * (1 - probability[action])) ** 0.5


async def test_the_action_is_the_one_that_the_keyed_draw_picks(client: Client) -> None:
    workflow = client.service.catalog.workflows["help"]
    key = client.service.settings.draw_key()
    for i in range(50):
        answer = (await client.decide("a", decision_id=f"d{i}")).json()
        u = draw(key, "default", "help", "a", f"d{i}")
        mask = workflow.limits.allow(CONTEXT, None).mask
        blank = StoredMemory(workflow.blank(), Head())
        (expected,) = workflow.probabilities([blank], [CONTEXT], mask[None])
        assert answer["action"] == workflow.spec.action_ids[int(sample(expected, u))]
        record = (await client.http.get(f"/v1/decisions/d{i}")).json()
        assert record["draw"] == u


async def test_a_retry_gets_its_answer_even_when_the_workflow_has_changed_since(
    open_client: Open,
) -> None:
    async with open_client() as client:
        first = await client.decide("a", decision_id="d")
        path = client.service.settings.workflows / "help.yaml"
    path.write_text(path.read_text().replace("max: 100}", "max: 40}"))
    async with open_client() as client:
        assert (await client.decide("a", decision_id="d")).content == first.content
        assert (await client.decide("a", decision_id="other")).status_code == 422
        changed = CONTEXT | {"tenure": 60}
        refused = await client.decide("a", decision_id="d", context=changed)
        assert refused.json()["errors"][0]["field"] == "decision_id"


async def test_when_all_that_was_asked_for_is_forbidden_the_safe_action_is_served(
    client: Client,
) -> None:
    context = CONTEXT | {"plan": "basic"}
    answer = (await client.decide("a", context=context, actions=["call"])).json()
    assert (answer["action"], answer["reason"]) == ("wait", "safe_action")
    assert answer["limits"] == ["cheap_only"]


async def test_limits_that_leave_nothing_serve_the_safe_action_and_say_so(client: Client) -> None:
    answer = (await client.decide("a", context=CONTEXT | {"age": 9})).json()
    assert (answer["action"], answer["probability"]) == ("wait", 1.0)
    assert (answer["reason"], answer["limits"]) == ("safe_action", ["leave_alone"])


async def test_a_clipped_value_is_counted_and_the_raw_one_kept(client: Client) -> None:
    answer = await client.decide("a", decision_id="d", context=CONTEXT | {"age": 99})
    assert answer.json()["reason"] == "safe_action"
    assert (await client.http.get("/v1/decisions/d")).json()["context"]["age"] == 99
    assert await client.metric("acclimate_context_clipped_total") == 1


async def test_a_memory_store_that_is_down_leaves_the_decision_to_the_fallback(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.interact("a")

    async def down(*_: object) -> None:
        raise MemoryUnavailableError("down")

    with monkeypatch.context() as broken:
        broken.setattr(InProcessMemoryStore, "get", down)
        broken.setattr(InProcessMemoryStore, "get_many", down)
        calm = (await client.decide("a", decision_id="d1")).json()
        angry = (await client.decide("a", context=CONTEXT | {"note": "angry"})).json()
        masked = await client.decide("a", context=CONTEXT | {"note": "angry", "plan": "basic"})
        learned = await client.learn("d1", reward=3)
        assert learned.json()["status"] == "folded"
        assert (await client.http.get("/readyz")).status_code == 200
    assert (calm["action"], calm["probability"]) == ("mail", 1.0)
    assert (calm["reason"], calm["memory_position"]) == ("memory_unavailable", 1)
    assert angry["action"] == "call"
    assert masked.json()["action"] == "mail"  # `call` is over the limit for the basic plan
    back = (await client.decide("a")).json()
    assert (back["reason"], back["memory_position"]) == ("policy", 2)
    assert await client.metric("acclimate_fallbacks_total") == 3


async def test_a_policy_that_breaks_while_serving_leaves_the_decision_to_the_fallback(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_a_number(self: Workflow, *arguments: object) -> object:
        return np.full((1, 3), np.nan)

    def fails(*_: object) -> object:
        raise RuntimeError("out of memory")

    for broken, reason in ((not_a_number, "policy_unsound"), (fails, "policy_failed")):
        with monkeypatch.context() as patch:
            patch.setattr(Workflow, "probabilities", broken)
            answer = (await client.decide("a")).json()
        assert (answer["action"], answer["reason"]) == ("mail", reason)


async def test_an_account_and_a_decision_of_another_tenant_are_not_found(client: Client) -> None:
    answer = await client.decide("a", tenant="one", decision_id="d")
    await client.learn("d", tenant="one", reward=3)
    assert (await client.http.get("/v1/decisions/d")).status_code == 404
    assert (await client.learn("d", tenant="two", reward=3)).status_code == 404
    other = await client.decide("a", tenant="two", decision_id="d")
    assert other.json()["memory_position"] == 0
    headers = {"X-Acclimate-Tenant": "one"}
    record = (await client.http.get("/v1/decisions/d", headers=headers)).json()
    assert record["action"] == answer.json()["action"]


async def test_a_decision_record_tells_the_whole_story(client: Client, time: Time) -> None:
    await client.decide("a", decision_id="d", episode_id="e", actions=["mail", "call"])
    time.pass_seconds(5)
    await client.learn(
        "d", outcome="solved", occurred_at="2027-01-15T09:00:01+01:00", feedback_id="f"
    )
    record = (await client.http.get("/v1/decisions/d")).json()
    assert record["context"] == CONTEXT
    assert record["asked_for"] == ["mail", "call"]
    assert (record["episode_id"], record["spec_version"]) == ("e", 1)
    assert record["feedback"] == [
        {
            "feedback_id": "f",
            "kind": "received",
            "reward": 3.0,
            "outcome": "solved",
            "episode_end": False,
            "late": False,
            "memory_position": 1,
            "memory_generation": 0,
            "folded_reward": 3.0,
            "occurred_at": "2027-01-15T08:00:01Z",
            "received_at": "2027-01-15T08:00:05Z",
        }
    ]


async def test_workflows_are_listed_with_their_whole_spec(client: Client) -> None:
    listed = (await client.http.get("/v1/workflows")).json()["workflows"]
    one = (await client.http.get("/v1/workflows/help")).json()
    assert listed == [one]
    assert one["actions"] == ["wait", "mail", "call"]
    assert one["spec"]["guardrails"]["limits"][0]["name"] == "cheap_only"
