"""Feedback: folded once, in order, by the rules that the workflow declares."""

from __future__ import annotations

import asyncio

import numpy as np

from service.ledger.records import AccountKey
from tests.service.conftest import CONTEXT, Client, Open, Time


async def memory_of(client: Client, account: str = "a") -> tuple[list[float], list[list[float]]]:
    """The counting policy's memory: (done, context) and (wins, pulls) an action."""
    workflow = client.service.catalog.workflows["help"]
    key = AccountKey("default", "help", account)
    stored = await client.service.memories.get(key, workflow.policy.identity)
    assert stored is not None
    return stored.memory.shared[0].tolist(), stored.memory.rows[0].tolist()


async def test_a_reward_is_folded_on_the_scale_that_the_workflow_declares(client: Client) -> None:
    for reward in (3, -1, 1):  # scaled to wins: 1, 0, a half
        await client.interact("a", reward=reward, actions=["mail"])
    (done, _), rows = await memory_of(client)
    assert done == 3  # single-step episodes all end
    assert rows == [[0, 0], [1.5, 3], [0, 0]]


async def test_a_named_outcome_is_its_reward(client: Client) -> None:
    await client.decide("a", decision_id="d", actions=["call"])
    answer = (await client.learn("d", outcome="solved")).json()
    assert (answer["status"], answer["reward"]) == ("folded", 3.0)


async def test_the_same_feedback_five_times_at_once_is_folded_once(client: Client) -> None:
    await client.decide("a", decision_id="d", actions=["mail"])
    answers = await asyncio.gather(*(client.learn("d", reward=3) for _ in range(5)))
    assert sorted(one.json()["status"] for one in answers) == ["duplicate"] * 4 + ["folded"]
    assert {one.json()["memory_position"] for one in answers} == {1}
    assert (await memory_of(client))[1][1] == [1, 1]


async def test_without_a_feedback_id_a_decision_takes_one_feedback(client: Client) -> None:
    await client.decide("a", decision_id="d")
    await client.learn("d", reward=3)
    refused = await client.learn("d", reward=2)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "feedback_id"


async def test_a_second_feedback_of_its_own_id_is_recorded_and_not_folded(client: Client) -> None:
    await client.decide("a", decision_id="d")
    first = (await client.learn("d", reward=3, feedback_id="one")).json()
    second = (await client.learn("d", reward=2, feedback_id="two")).json()
    assert (first["status"], second["status"]) == ("folded", "recorded")
    assert second["memory_position"] is None
    record = (await client.http.get("/v1/decisions/d")).json()
    assert [one["feedback_id"] for one in record["feedback"]] == ["one", "two"]


async def test_many_decisions_in_flight_fold_in_the_order_of_their_feedback(
    client: Client,
) -> None:
    for i, action in enumerate(("wait", "mail", "call")):
        answer = await client.decide("a", decision_id=f"d{i}", actions=[action])
        assert answer.json()["memory_position"] == 0
    for place, i in enumerate((2, 0, 1), start=1):
        assert (await client.learn(f"d{i}", reward=3)).json()["memory_position"] == place
    assert (await memory_of(client))[1] == [[1, 1]] * 3


async def test_a_burst_of_concurrent_feedback_loses_nothing(client: Client) -> None:
    for i in range(40):
        await client.decide("a", decision_id=f"d{i}", actions=["mail"])
    answers = await asyncio.gather(*(client.learn(f"d{i}", reward=3) for i in range(40)))
    places = sorted(one.json()["memory_position"] for one in answers)
    assert places == list(range(1, 41))
    assert (await memory_of(client))[1][1] == [40, 40]


async def test_feedback_that_never_comes_is_the_default_reward_once(
    client: Client, time: Time
) -> None:
    await client.decide("a", decision_id="d", actions=["mail"])
    time.pass_seconds(100)
    assert await client.service.jobs.fold_defaults() == 0  # the window is still open
    time.pass_seconds(1)
    assert await client.service.jobs.fold_defaults() == 1
    assert await client.service.jobs.fold_defaults() == 0
    assert (await memory_of(client))[1][1] == [0, 1]
    record = (await client.http.get("/v1/decisions/d")).json()
    assert [(one["kind"], one["reward"]) for one in record["feedback"]] == [("default", -1.0)]


async def test_late_feedback_is_one_interaction_more_where_the_workflow_applies_it(
    client: Client, time: Time
) -> None:
    await client.decide("a", decision_id="d", actions=["mail"])
    time.pass_seconds(101)
    answer = (await client.learn("d", reward=3)).json()
    assert (answer["status"], answer["late"], answer["memory_position"]) == ("folded", True, 2)
    assert await client.service.jobs.fold_defaults() == 0  # what was due was folded before it
    assert (await memory_of(client))[1][1] == [1, 2]
    assert await client.metric("acclimate_feedback_late_total") == 1


async def test_a_default_that_came_first_makes_any_feedback_late_whatever_the_clock_says(
    client: Client, time: Time
) -> None:
    await client.decide("a", decision_id="d", actions=["mail"])
    time.pass_seconds(101)
    await client.service.jobs.fold_defaults()
    time.pass_seconds(-50)  # another replica's clock
    answer = (await client.learn("d", reward=3)).json()
    assert (answer["status"], answer["late"], answer["memory_position"]) == ("folded", True, 2)


async def test_late_feedback_never_makes_more_than_one_interaction_more(
    client: Client, time: Time
) -> None:
    await client.decide("a", decision_id="d", actions=["mail"])
    assert (await client.learn("d", reward=3, feedback_id="f")).json()["status"] == "folded"
    time.pass_seconds(101)
    for i in range(5):
        answer = (await client.learn("d", reward=3, feedback_id=f"f{i}")).json()
        assert (answer["status"], answer["late"]) == ("recorded", True)
    assert (await memory_of(client))[1][1] == [1, 1]


async def test_a_default_folded_with_late_feedback_is_counted(client: Client, time: Time) -> None:
    await client.decide("a", decision_id="d")
    time.pass_seconds(101)
    await client.learn("d", reward=3)
    assert await client.metric("acclimate_feedback_total") == 2
    assert await client.metric("acclimate_reward_scaled_total") == 1  # 0 and then 1


async def test_late_feedback_is_only_recorded_where_the_workflow_ignores_it(
    open_client: Open, time: Time
) -> None:
    async with open_client() as before:
        path = before.service.settings.workflows / "help.yaml"
    path.write_text(path.read_text().replace("late: apply", "late: ignore"))
    async with open_client() as client:
        await client.decide("a", decision_id="d", actions=["mail"])
        time.pass_seconds(101)
        answer = (await client.learn("d", reward=3)).json()
        assert (answer["status"], answer["memory_position"]) == ("recorded", None)
        assert (await memory_of(client))[1][1] == [0, 1]  # the default


async def test_a_decision_keeps_the_reward_range_of_the_spec_it_was_made_under(
    open_client: Open,
) -> None:
    async with open_client() as client:
        await client.decide("a", decision_id="old", actions=["mail"])
        path = client.service.settings.workflows / "help.yaml"
    path.write_text(path.read_text().replace("max: 3", "max: 7").replace("solved: 3", "solved: 7"))
    async with open_client() as client:
        await client.decide("a", decision_id="new", actions=["mail"])
        assert (await client.learn("old", reward=7)).status_code == 422
        await client.learn("old", outcome="solved")
        await client.learn("new", reward=7)
        assert (await memory_of(client))[1][1] == [2, 2]  # both a whole win
        record = (await client.http.get("/v1/decisions/new")).json()
        assert record["spec_version"] == 2


async def test_an_added_action_starts_blank_and_the_others_keep_what_was_learned(
    open_client: Open,
) -> None:
    async with open_client() as client:
        await client.interact("a", actions=["mail"])
        path = client.service.settings.workflows / "help.yaml"
    grown = path.read_text().replace(
        "context:\n", "  - id: visit\n    features: {cost: 2}\ncontext:\n", 1
    )
    path.write_text(grown)
    async with open_client() as client:
        await client.interact("a", actions=["visit"])
        assert (await memory_of(client))[1] == [[0, 0], [1, 1], [0, 0], [1, 1]]


async def test_a_spec_that_goes_back_to_fewer_actions_lets_the_others_rest(
    open_client: Open,
) -> None:
    async with open_client() as client:
        path = client.service.settings.workflows / "help.yaml"
    shorter = path.read_text()
    path.write_text(
        shorter.replace("context:\n", "  - id: visit\n    features: {cost: 2}\ncontext:\n", 1)
    )
    async with open_client() as client:
        await client.interact("a", actions=["visit"])
        await client.interact("a", actions=["mail"])
    path.write_text(shorter)
    async with open_client() as client:  # replayed under a spec that does not know `visit`
        await client.interact("a", actions=["mail"])
        assert (await memory_of(client))[1] == [[0, 0], [2, 2], [0, 0], [1, 1]]


async def test_episodes_of_several_steps_end_when_their_feedback_says_so(
    open_client: Open,
) -> None:
    async with open_client() as client:
        path = client.service.settings.workflows / "help.yaml"
    path.write_text(path.read_text() + "episodes: multi_step\n")
    async with open_client() as client:
        for i, end in enumerate((False, False, True)):
            await client.decide("a", decision_id=f"d{i}", episode_id="e")
            await client.learn(f"d{i}", reward=3, episode_end=end)
        (done, _), _ = await memory_of(client)
        assert done == 1


async def test_an_account_adapts_regresses_and_is_counted(client: Client) -> None:
    async def phase() -> tuple[str, int | None]:
        account = (await client.http.get("/v1/workflows/help/accounts/a")).json()
        return account["phase"], account["adapted_at"]

    await client.interact("a", reward=-1)
    assert await phase() == ("adapting", None)
    for _ in range(3):
        await client.interact("a", reward=3)
    assert await phase() == ("adapted", 4)
    for _ in range(3):
        await client.interact("a", reward=-1)
    assert await phase() == ("regressed", 4)
    assert await client.metric("acclimate_adaptation_interactions_count") == 1
    assert await client.metric("acclimate_adaptation_interactions_sum") == 4
    await client.service.jobs.count_accounts()
    text = (await client.http.get("/metrics")).text
    assert 'acclimate_accounts{phase="regressed",workflow="help"} 1.0' in text


async def test_the_context_that_feeds_rules_alone_never_reaches_the_memory(
    client: Client,
) -> None:
    for account, context in (("a", CONTEXT), ("b", CONTEXT | {"note": "angry", "age": 2})):
        await client.interact(account, context=context, actions=["mail"])
    assert await memory_of(client, "a") == await memory_of(client, "b")
    (_, summed), _ = await memory_of(client, "a")
    assert np.isclose(summed, 1.0)  # tenure 50 of 100 is 0, premium's one-hot is 1
