"""The exploration budget is counted where decisions commit, and spent visibly."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from guardrails.conservative import Spent
from service.settings import Settings
from tests.service.conftest import WORKFLOW, Client, Open, Time

KEY = SecretStr("the draws of the tests of exploration")
Declare = Callable[[str], None]


@pytest.fixture
def declare(settings: Settings) -> Declare:
    """Gives the workflow an exploration budget."""

    def put(exploration: str) -> None:
        path = settings.workflows / "help.yaml"
        more = f"  safe_action: wait\n  exploration: {exploration}\n"
        path.write_text(WORKFLOW.replace("  safe_action: wait\n", more))

    return put


def budget(*scopes: str, at_most: int = 3) -> str:
    each = (f"{{per: {one}, at_most: {at_most}, window_seconds: 1000}}" for one in scopes)
    return f"{{fallback_reward: 1, budgets: [{', '.join(each)}]}}"


CONSERVATIVE = "{fallback_reward: 1, conservative: {alpha: 0.1, credit: 1.0, level: 0.9}}"


async def decided(client: Client, times: int, account: str = "a", **body: Any) -> list[Any]:
    answers = [await client.decide(account, **body) for _ in range(times)]
    assert all(one.status_code == 200 for one in answers), answers[0].text
    return [one.json() for one in answers]


def deviated(answers: list[Any]) -> int:
    """The fallback's action is `mail`, in this context."""
    return sum(one["action"] != "mail" for one in answers)


async def deviations(client: Client, count: int, account: str = "a", **body: Any) -> list[Any]:
    """So many decisions that deviate; those that do not come between them."""
    found: list[Any] = []
    while len(found) < count:
        found += [one for one in await decided(client, 1, account, **body) if deviated([one])]
    return found


def tally(account: str) -> Callable[[Any], Any]:
    query = text("SELECT body FROM tallies WHERE account_id = :account")

    def read(connection: Any) -> Any:
        body = connection.scalar(query, {"account": account})
        return None if body is None else json.loads(body)

    return read


async def test_a_spent_budget_means_the_fallback_and_the_answer_says_so(
    open_client: Open, declare: Declare, time: Time
) -> None:
    declare(budget("account"))
    async with open_client() as client:
        answers = await decided(client, 40)
        assert deviated(answers) == 3
        spent = [one for one in answers if one["reason"] == "exploration_budget"]
        assert spent
        assert {(one["action"], one["probability"]) for one in spent} == {("mail", 1.0)}
        assert all(one["limits"] == ["exploration.account"] for one in spent)
        assert answers.index(spent[0]) > max(
            i for i, one in enumerate(answers) if one["action"] != "mail"
        )
        assert await client.metric("acclimate_deviations_total") == 3
        assert await client.metric("acclimate_exploration_budget_decisions") == 3
        record = (await client.http.get(
            f"/v1/decisions/{spent[0]['decision_id']}", params={"rederive": True}
        )).json()  # fmt: skip
        assert record["deviates"] is False
        assert record["rederived"]["equal"]
        assert deviated(await decided(client, 40, "b")) == 3
        time.pass_seconds(1_020)
        assert deviated(await decided(client, 40)) == 3


async def test_a_tenant_s_and_a_workflow_s_budget_are_shared_by_accounts_and_replicas(
    open_client: Open, declare: Declare, database: str
) -> None:
    declare(
        "{fallback_reward: 1, budgets: [{per: tenant, at_most: 5, window_seconds: 1000}, "
        "{per: workflow, at_most: 8, window_seconds: 1000}]}"
    )
    replica = {"ledger_url": database, "installation_key": KEY}
    async with open_client(**replica) as one, open_client(**replica) as other:
        asked = [
            client.decide(f"account-{n}", tenant=tenant)
            for n in range(12)
            for client in (one, other)
            for tenant in ("default", "theirs")
            for _ in range(2)
        ]
        answers = await asyncio.gather(*asked)
        assert {answer.status_code for answer in answers} == {200}
        tenants = [answer.request.headers["X-Acclimate-Tenant"] for answer in answers]
        counts = dict.fromkeys(("default", "theirs"), 0)
        for tenant, answer in zip(tenants, answers, strict=True):
            counts[tenant] += answer.json()["action"] != "mail"
        assert sum(counts.values()) == 8
        assert max(counts.values()) <= 5
        said = {name for answer in answers for name in answer.json()["limits"]}
        assert "exploration.workflow" in said


async def test_an_account_that_is_sure_to_do_better_spends_nothing(
    open_client: Open, declare: Declare
) -> None:
    """What is drawn is the same in every run: budgets of 3 would be spent many times over."""
    declare(budget("account", "tenant"))
    async with open_client(installation_key=KEY) as client:
        for _ in range(3):
            await client.interact(reward=3.0, actions=["mail"])
        asked = [await client.decide("a", decision_id=f"sure-{n}") for n in range(200)]
        answers = [one.json() for one in asked]
        assert deviated(answers) > 6
        assert all(one["reason"] == "policy" for one in answers)
        body = await client.service.ledger.read(tally("a"))
        assert body is None or "explored" not in body


async def test_what_deviations_earn_lets_an_account_go_on(
    open_client: Open, declare: Declare, database: str
) -> None:
    """μ is scaled to 0.5: a credit of 1 is for two deviations that earn nothing."""
    declare(CONSERVATIVE)
    async with open_client(ledger_url=database, installation_key=KEY) as client:
        bad = await decided(client, 60, actions=["wait", "mail"])
        # Every decision of the fallback's pays in a twentieth, a deviation takes 0.45.
        assert 2 <= deviated(bad) <= 2 + 60 * 0.05 / 0.45 + 1
        last = [one for one in bad if one["reason"] == "exploration_budget"]
        assert last[0]["limits"] == ["exploration.conservative"]
        for n in range(30):
            (one,) = await deviations(client, 1, "good")
            await client.learn(one["decision_id"], reward=3.0)
            assert (await client.service.ledger.read(tally("good")))["spent"][2] == n + 1
        free = await decided(client, 8, "good")
        assert {one["reason"] for one in free} == {"policy"}
        assert deviated(free) > 1


async def test_what_a_deviation_earned_is_revised_as_its_reward_is(
    open_client: Open, settings: Settings, declare: Declare, time: Time
) -> None:
    declare(CONSERVATIVE)
    path = settings.workflows / "help.yaml"
    path.write_text(path.read_text().replace("late: apply}", "late: rebuild, aggregation: latest}"))
    async with open_client() as client:

        async def spent() -> Spent:
            return Spent(*(await client.service.ledger.read(tally("a")))["spent"])

        (one,) = await deviations(client, 1)
        fallbacks = (await spent()).fallbacks
        assert await spent() == Spent(fallbacks, 1, 0.0)
        for reward, feedback_id, earned in ((3.0, "x", 1.0), (1.0, "y", 0.5), (-1.0, "z", 0.0)):
            await client.learn(one["decision_id"], reward=reward, feedback_id=feedback_id)
            await client.learn(one["decision_id"], reward=reward, feedback_id=feedback_id)
            assert await spent() == Spent(fallbacks, 1, earned)
        (late,) = await deviations(client, 1)
        time.pass_seconds(101)
        assert await client.service.jobs.fold_defaults() >= 1
        assert (await spent())[1:] == (2, 0.0)
        await client.learn(late["decision_id"], reward=3.0)
        assert (await spent())[1:] == (2, 1.0)


async def test_a_late_reward_that_is_applied_takes_the_place_of_the_default(
    open_client: Open, declare: Declare, time: Time
) -> None:
    declare(CONSERVATIVE)
    async with open_client() as client:
        (one,) = await deviations(client, 1)
        time.pass_seconds(101)
        await client.learn(one["decision_id"], reward=1.0)
        assert (await client.service.ledger.read(tally("a")))["spent"][1:] == [1, 0.5]


async def test_a_deferred_deviation_is_counted_and_judged_at_its_activation(
    open_client: Open, declare: Declare, database: str
) -> None:
    declare(budget("account", "workflow", at_most=1))
    async with open_client(ledger_url=database, installation_key=KEY) as client:
        waiting = await deviations(client, 3, mode="defer")
        statuses = [
            (await client.http.post(f"/v1/decisions/{one['decision_id']}/activate"))
            for one in waiting
        ]
        assert [one.status_code for one in statuses] == [200, 409, 409]
        assert "exploration.account, exploration.workflow" in statuses[1].json()["detail"]
        assert deviated(await decided(client, 10)) == 0


async def test_the_safe_action_and_the_fallback_s_own_choice_spend_nothing(
    open_client: Open, declare: Declare
) -> None:
    declare(budget("account"))
    old = {"tenure": 50, "plan": "premium", "note": "calm", "age": 9}
    angry = {"tenure": 50, "plan": "premium", "note": "angry", "age": 1}
    async with open_client() as client:
        safe = await decided(client, 5, context=old)
        assert {one["reason"] for one in safe} == {"safe_action"}
        calls = await decided(client, 5, context=angry, actions=["call"])
        assert {one["action"] for one in calls} == {"call"}
        assert await client.service.ledger.read(tally("a")) is None
