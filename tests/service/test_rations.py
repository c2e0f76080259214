"""Caps, cool-downs and what is due hold where decisions commit: whoever asks, however many at once,
on either database.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from service.ledger import group_commit
from service.settings import Settings
from tests.service.conftest import WORKFLOW, Client, Open, Time

CAPPED = """
  caps:
    - {name: two_costly, actions: [mail, call], at_most: 2, window_seconds: 1000}
"""
COOL = """
  cooldowns:
    - {name: calls_rest, actions: [call], seconds: 500}
"""
DUE = """
  required:
    - {name: wait_first, actions: [wait], every_seconds: 300}
"""
KEY = SecretStr("the draws of the tests of rations")
Declare = Callable[[str], None]


@pytest.fixture
def declare(settings: Settings) -> Declare:
    """Puts more guardrails into the workflow's file."""

    def put(more: str) -> None:
        path = settings.workflows / "help.yaml"
        path.write_text(WORKFLOW.replace("  safe_action: wait\n", f"  safe_action: wait\n{more}"))

    return put


async def served(client: Client, times: int, account: str = "a", **body: Any) -> list[Any]:
    return [(await client.decide(account, **body)).json() for _ in range(times)]


def costly(answers: list[Any]) -> int:
    return sum(one["action"] != "wait" for one in answers)


async def test_a_cap_holds_in_any_window_and_says_so(
    open_client: Open, declare: Declare, time: Time
) -> None:
    declare(CAPPED)
    async with open_client() as client:
        answers = await served(client, 3, actions=["mail"])
        assert [one["action"] for one in answers] == ["mail", "mail", "wait"]
        assert answers[2]["reason"] == "safe_action"
        assert answers[2]["limits"] == ["two_costly"]
        assert answers[2]["probability"] == 1.0
        (other,) = await served(client, 1, "b", actions=["mail"])
        assert other["action"] == "mail"
        time.pass_seconds(999.9)
        assert costly(await served(client, 1, actions=["mail"])) == 0
        time.pass_seconds(0.1)
        assert costly(await served(client, 3, actions=["mail"])) == 2
        assert await client.metric("acclimate_limits_applied_total") == 3


async def test_what_is_left_is_drawn_from_with_the_probability_that_is_logged(
    open_client: Open, declare: Declare
) -> None:
    declare(COOL)
    async with open_client() as client:
        await served(client, 1, actions=["call"])
        answers = await served(client, 300)
        counts = Counter(one["action"] for one in answers)
        assert counts["call"] == 0
        assert {one["reason"] for one in answers} == {"policy"}
        for action in ("mail", "wait"):
            (probability,) = {one["probability"] for one in answers if one["action"] == action}
            assert abs(counts[action] / 300 - probability) < 0.1
        shares = {one["action"]: one["probability"] for one in answers}
        assert sum(shares.values()) == pytest.approx(1)
        record = (await client.http.get(
            f"/v1/decisions/{answers[0]['decision_id']}", params={"rederive": True}
        )).json()  # fmt: skip
        assert record["actions_left"] == ["wait", "mail"]
        assert record["rederived"]["equal"]
        assert record["rederived"]["action_probabilities"]["call"] == 0


async def test_a_cool_down_begins_anew_with_every_use(
    open_client: Open, declare: Declare, time: Time
) -> None:
    declare(COOL)
    async with open_client() as client:
        for _ in range(3):
            (first, again) = await served(client, 2, actions=["call"])
            assert (first["action"], again["action"]) == ("call", "wait")
            assert again["limits"] == ["calls_rest"]
            time.pass_seconds(500)


async def test_what_is_due_is_served_whatever_was_asked_for_and_rests_then(
    open_client: Open, declare: Declare, time: Time
) -> None:
    declare(DUE)
    async with open_client() as client:
        first, *others = await served(client, 30, actions=["mail", "call"])
        assert (first["action"], first["limits"]) == ("wait", ["wait_first"])
        assert all(one["action"] in ("mail", "call") for one in others)
        time.pass_seconds(300)
        (due,) = await served(client, 1, actions=["mail", "call"])
        assert due["action"] == "wait"


async def test_a_limit_may_ask_what_the_account_is(
    open_client: Open, settings: Settings, time: Time
) -> None:
    facts = {
        "few": "account.interactions < 2 && action.id == 'call'",
        "young": "account.age_days < 1.0 && action.id == 'mail'",
        "well": "account.phase == 'adapted' && action.id == 'wait'",
        "spoilt": "account.recent_reward > 2.5 && action.id == 'mail'",
    }
    more = "".join(f'    - {{name: {name}, forbid: "{one}"}}\n' for name, one in facts.items())
    path = settings.workflows / "help.yaml"
    path.write_text(WORKFLOW.replace("  safe_action: wait\n", f"{more}  safe_action: wait\n"))
    async with open_client() as client:
        (new,) = await served(client, 1)
        assert (new["action"], new["limits"]) == ("wait", ["few", "young"])
        for _ in range(3):
            await client.interact(reward=3.0)
        (known,) = await served(client, 1)
        assert (known["action"], known["limits"]) == ("call", ["young", "well", "spoilt"])
        time.pass_seconds(86_400)
        (older,) = await served(client, 1)
        assert older["limits"] == ["well", "spoilt"]


async def test_the_fallback_is_held_to_them_too(
    open_client: Open, declare: Declare, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(CAPPED)
    async with open_client() as client:
        workflow = client.service.catalog.workflows["help"]
        monkeypatch.setattr(workflow, "probabilities", lambda *_: 1 / 0)
        answers = await served(client, 3)
        assert [one["action"] for one in answers] == ["mail", "mail", "wait"]
        assert [one["reason"] for one in answers] == ["policy_failed"] * 3
        assert answers[2]["limits"] == ["two_costly"]


async def test_a_retry_is_counted_once(open_client: Open, declare: Declare) -> None:
    declare(CAPPED)
    async with open_client() as client:
        same = [
            (await client.decide(decision_id="mine", actions=["mail"])).content for _ in range(4)
        ]
        assert len(set(same)) == 1
        assert costly(await served(client, 2, actions=["mail"])) == 1


async def test_a_hundred_at_once_on_two_replicas_never_exceed_a_cap(
    open_client: Open, declare: Declare, database: str
) -> None:
    declare(CAPPED)
    replica = {"ledger_url": database, "installation_key": KEY}
    async with open_client(**replica) as one, open_client(**replica) as other:
        for round_ in range(5):
            accounts = [f"{round_}-{n}" for n in range(4)]
            asked = [
                client.decide(account, actions=["mail", "call"])
                for _ in range(10)
                for client in (one, other)
                for account in accounts
            ]
            answers = [answer.json() for answer in await asyncio.gather(*asked)]
            assert all("action" in answer for answer in answers), answers
            for account in accounts:
                mine = [answer for answer in answers if answer["account_id"] == account]
                assert (len(mine), costly(mine)) == (20, 2)
        batch = [{"account_id": "batch", "context": {}, "actions": ["mail"]}] * 9
        body = {"decisions": [item | {"context": BATCH_CONTEXT} for item in batch]}
        both = await asyncio.gather(
            *(c.http.post("/v1/workflows/help/decisions/batch", json=body) for c in (one, other))
        )
        results = [item["decision"] for answer in both for item in answer.json()["results"]]
        assert costly(results) == 2


BATCH_CONTEXT = {"tenure": 50, "plan": "premium", "note": "calm", "age": 1}


async def test_two_at_once_are_counted_one_after_the_other(
    open_client: Open, declare: Declare, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second asks when the first has counted and has not written yet."""
    declare(COOL)
    replica = {"ledger_url": database, "installation_key": KEY}
    async with open_client(**replica) as one, open_client(**replica) as other:
        await served(one, 1, actions=["wait"])
        loop, store = asyncio.get_running_loop(), vars(group_commit)["store_rows"]
        begun: list[Future[Any]] = []

        def storing(*args: Any) -> None:
            if not begun:
                asked = other.decide(actions=["call"])
                begun.append(asyncio.run_coroutine_threadsafe(asked, loop))
                wait(begun, 1.0)
            store(*args)

        monkeypatch.setattr(group_commit, "store_rows", storing)
        (first,) = await served(one, 1, actions=["call"])
        second = (await asyncio.wrap_future(begun[0])).json()
        assert (first["action"], second["action"]) == ("call", "wait")
        assert second["limits"] == ["calls_rest"]


async def test_what_is_deferred_counts_once_it_is_activated_and_is_refused_when_too_many_are(
    open_client: Open, declare: Declare, database: str, time: Time
) -> None:
    declare(CAPPED)
    async with open_client(ledger_url=database, installation_key=KEY) as client:
        waiting = await served(client, 6, actions=["mail"], mode="defer")
        assert costly(waiting) == 6
        time.pass_seconds(10)

        async def activate(answer: Any) -> Any:
            return await client.http.post(f"/v1/decisions/{answer['decision_id']}/activate")

        answers = await asyncio.gather(*map(activate, waiting))
        statuses = Counter(answer.status_code for answer in answers)
        assert statuses == {200: 2, 409: 4}
        refused = next(answer for answer in answers if answer.status_code == 409)
        assert refused.json()["type"] == "urn:acclimate:problem:limit-reached"
        assert "two_costly" in refused.json()["detail"]
        assert costly(await served(client, 1, actions=["mail"])) == 0
        again = await asyncio.gather(*map(activate, waiting))
        assert Counter(answer.status_code for answer in again) == statuses
        time.pass_seconds(990)  # since the activation, not since the decision
        assert costly(await served(client, 1, actions=["mail"])) == 0
        time.pass_seconds(10)
        third = next(one for one, a in zip(waiting, answers, strict=True) if a.status_code == 409)
        assert (await activate(third)).status_code == 200
        assert costly(await served(client, 2, actions=["mail"])) == 1


async def test_a_cap_declared_later_counts_what_was_served_before(
    open_client: Open, declare: Declare, database: str, time: Time
) -> None:
    async with open_client(ledger_url=database, installation_key=KEY) as client:
        await served(client, 1, actions=["mail"])
        time.pass_seconds(900)
        await served(client, 1, actions=["call"])
        await served(client, 1, actions=["wait"])
        (waiting,) = await served(client, 1, actions=["mail"], mode="defer")
    declare(CAPPED)
    async with open_client(ledger_url=database, installation_key=KEY) as client:
        assert costly(await served(client, 1, actions=["mail"])) == 0
        activated = await client.http.post(f"/v1/decisions/{waiting['decision_id']}/activate")
        assert activated.status_code == 409
        time.pass_seconds(100)
        assert costly(await served(client, 2, actions=["mail"])) == 1
    declare(CAPPED.replace("at_most: 2, window_seconds: 1000", "at_most: 4, window_seconds: 5000"))
    async with open_client(ledger_url=database, installation_key=KEY) as client:
        assert costly(await served(client, 3, actions=["mail"])) == 1


async def test_feedback_and_a_reset_leave_the_count_alone_and_an_erasure_ends_it(
    open_client: Open, declare: Declare, database: str
) -> None:
    declare(CAPPED)
    async with open_client(ledger_url=database, installation_key=KEY) as client:
        for _ in range(2):
            await client.interact(actions=["mail"])
        path = "/v1/workflows/help/accounts/a"
        assert (await client.http.post(f"{path}/reset")).status_code == 200
        assert costly(await served(client, 1, actions=["mail"])) == 0
        assert (await client.http.delete(path)).status_code == 200
        count = text("SELECT count(*) FROM tallies")
        assert await client.service.ledger.read(lambda c: c.scalar(count)) == 0
        assert costly(await served(client, 3, actions=["mail"])) == 2


async def test_a_workflow_that_rations_nothing_locks_and_counts_nothing(client: Client) -> None:
    await served(client, 3)
    count = text("SELECT count(*) FROM tallies")
    assert await client.service.ledger.read(lambda c: c.scalar(count)) == 0
