"""Several pieces of feedback for one decision, in time and late, as the workflow declares them."""

from __future__ import annotations

from typing import Any

import pytest

from service.ledger.records import Head
from service.settings import Settings
from tests.service.conftest import Client, Open, Time
from tests.service.pasts import account_of, agree, decided_from, declare, past_of, rewards_of

FOLDED = ("folded", "revised")


async def learn(client: Client, decision_id: str, reward: float, n: int, **more: Any) -> Any:
    answer = await client.learn(decision_id, reward=reward, feedback_id=f"f{n}", **more)
    assert answer.status_code == 200, answer.text
    return answer.json()


# aggregation, rewards as they come, the folded reward after each, the generation after each
CASES = [
    ("earliest", (1, 3, -1), (1, 1, 1), (0, 0, 0)),
    ("latest", (1, 3, 3, -1), (1, 3, 3, -1), (0, 1, 1, 2)),
    ("sum", (1, 1, 2, -1), (1, 2, 3, 3), (0, 1, 2, 2)),  # 4 and 3: clipped, then not
    ("sum", (3, 3, -1), (3, 3, 3), (0, 0, 0)),  # 6 and 5 are both clipped
    ("sum", (-1, -1, 2), (-1, -1, 0), (0, 0, 1)),  # what was clipped away is still counted
    ("mean", (1, 3, 2, -1), (1, 2, 2, 1.25), (0, 1, 1, 2)),
    ("mean", (2, 2, -1), (2, 2, 1), (0, 0, 1)),  # the one that changed nothing counts
    ("min", (1, 3, -1), (1, 1, -1), (0, 0, 1)),
    ("max", (1, -1, 3), (1, 1, 3), (0, 0, 1)),
]


@pytest.mark.parametrize(("aggregation", "given", "folded", "generations"), CASES)
async def test_every_piece_revises_the_interaction_at_its_own_place(
    open_client: Open,
    settings: Settings,
    aggregation: str,
    given: tuple[float, ...],
    folded: tuple[float, ...],
    generations: tuple[int, ...],
) -> None:
    declare(settings, f"aggregation: {aggregation}")
    async with open_client() as client:
        await client.interact("a", reward=2, actions=["wait"])
        await client.decide("a", decision_id="d", actions=["mail"])
        before = 0
        for n, (reward, whole, generation) in enumerate(
            zip(given, folded, generations, strict=True)
        ):
            answer = await learn(client, "d", reward, n)
            changed = n == 0 or generation > before
            assert (answer["status"] in FOLDED) is changed
            assert answer["status"] == "recorded" or changed
            assert answer["memory_position"] == (2 if changed else None)
            assert answer["reward"] == reward
            head = Head(generation, 2 + n)
            assert (await account_of(client)).head == head
            assert (await rewards_of(client))[:2] == [("wait", 2), ("mail", whole)]
            await agree(client)
            assert await decided_from(client) == head  # the very next decision knows it
            await client.interact("a", reward=1, actions=["call"])
            before = generation
        assert (await rewards_of(client))[2:] == [("call", 1)] * len(given)
        account = await account_of(client)
        rewards = [reward for _, reward in await rewards_of(client)]
        assert account.adaptation.recent == tuple(rewards[-3:])
        assert account.adaptation.interactions == len(rewards)


async def test_a_piece_that_comes_again_counts_once(open_client: Open, settings: Settings) -> None:
    declare(settings, "aggregation: sum")
    async with open_client() as client:
        await client.decide("a", decision_id="d", actions=["mail"])
        for n in (0, 1):
            await learn(client, "d", 1, n)
            assert (await learn(client, "d", 1, n))["status"] == "duplicate"
        refused = await client.learn("d", reward=2, feedback_id="f1")
        assert refused.status_code == 422
        assert await rewards_of(client) == [("mail", 2)]
        await agree(client)


async def test_pieces_mixed_over_decisions_and_episodes_keep_to_their_own(
    open_client: Open, settings: Settings
) -> None:
    """Three journeys open at once, their feedback out of order, their ends in a second piece."""
    declare(settings, "aggregation: sum", "episodes: multi_step\n")
    async with open_client() as client:
        for i, action in enumerate(("wait", "mail", "call")):
            await client.decide("a", decision_id=f"d{i}", episode_id=f"e{i}", actions=[action])
        for n, (i, reward, end) in enumerate(
            [(2, 1, False), (0, -1, False), (2, 1, True), (1, 2, True), (0, 1, False), (2, 0, True)]
        ):
            await learn(client, f"d{i}", reward, n, episode_end=end)
            await agree(client)
        found = [(one.action, one.reward, one.episode_end) for one in await past_of(client)]
        assert found == [("call", 2, True), ("wait", 0, False), ("mail", 2, True)]
        assert (await account_of(client)).head == Head(2, 3)


async def test_an_end_that_comes_with_an_equal_reward_still_revises(
    open_client: Open, settings: Settings
) -> None:
    declare(settings, "aggregation: max", "episodes: multi_step\n")
    async with open_client() as client:
        await client.decide("a", decision_id="d", actions=["mail"])
        await learn(client, "d", 3, 0)
        assert (await learn(client, "d", 1, 1, episode_end=True))["status"] in FOLDED
        assert [one.episode_end for one in await past_of(client)] == [True]
        await agree(client)


# What late feedback comes to

FIRST = [("call", 1.0)]
DEFAULT = ("mail", -1.0)
# late, default, rewards that come late, the past after them, its generation
LATE: list[tuple[str, str, tuple[float, ...], list[tuple[str, float]], int]] = [
    ("ignore", "-1", (3,), [DEFAULT, *FIRST], 0),
    ("ignore", "null", (3,), FIRST, 0),
    ("apply", "-1", (3, 2), [DEFAULT, *FIRST, ("mail", 3)], 0),
    ("apply", "null", (3, 2), [*FIRST, ("mail", 3)], 0),
    ("rebuild", "-1", (3,), [("mail", 3), *FIRST], 1),
    ("rebuild", "-1", (3, 2), [("mail", 2), *FIRST], 2),
    ("rebuild", "-1", (-1,), [DEFAULT, *FIRST], 0),  # it changes nothing
    ("rebuild", "-1", (-1, 2), [("mail", 2), *FIRST], 1),
    ("rebuild", "null", (3, 2), [*FIRST, ("mail", 2)], 1),
]


@pytest.mark.parametrize(("late", "default", "given", "past", "generation"), LATE)
async def test_late_feedback_after_the_default_was_folded_by_the_job(
    open_client: Open,
    settings: Settings,
    time: Time,
    late: str,
    default: str,
    given: tuple[float, ...],
    past: list[tuple[str, float]],
    generation: int,
) -> None:
    declare(settings, f"aggregation: latest, late: {late}, default_reward: {default}")
    async with open_client() as client:
        await client.decide("a", decision_id="d", actions=["mail"])
        time.pass_seconds(101)
        await client.service.jobs.fold_defaults()
        await client.interact("a", reward=1, actions=["call"])
        for n, reward in enumerate(given):
            assert (await learn(client, "d", reward, n))["late"]
            await agree(client)
        assert await rewards_of(client) == past
        assert (await account_of(client)).head == Head(generation, len(past))
        assert await client.service.jobs.fold_defaults() == 0
        assert await decided_from(client) == Head(generation, len(past))


@pytest.mark.parametrize(("late", "default", "given", "past", "generation"), LATE)
async def test_late_feedback_that_folds_the_default_itself(
    open_client: Open,
    settings: Settings,
    time: Time,
    late: str,
    default: str,
    given: tuple[float, ...],
    past: list[tuple[str, float]],
    generation: int,
) -> None:
    """The scheduler was not there yet: what was due is folded with what came, at the same place in
    the order as if it had been."""
    declare(settings, f"aggregation: latest, late: {late}, default_reward: {default}")
    async with open_client() as client:
        await client.decide("a", decision_id="d", actions=["mail"])
        time.pass_seconds(101)
        await learn(client, "d", given[0], 0)
        await agree(client)
        await client.interact("a", reward=1, actions=["call"])
        for n, reward in enumerate(given[1:], start=1):
            await learn(client, "d", reward, n)
        assert sorted(await rewards_of(client)) == sorted(past)
        assert (await account_of(client)).head == Head(generation, len(past))
        await agree(client)
        assert await client.service.jobs.fold_defaults() == 0


async def test_late_pieces_add_up_with_those_in_time_only_where_the_workflow_rebuilds(
    open_client: Open, settings: Settings, time: Time
) -> None:
    for late, whole in (("ignore", 1), ("apply", 1), ("rebuild", 3)):
        declare(settings, f"aggregation: sum, late: {late}, default_reward: -1")
        account = f"of-{late}"
        async with open_client() as client:
            await client.decide(account, decision_id=late, actions=["mail"])
            await learn(client, late, 1, 0)
            time.pass_seconds(101)
            await learn(client, late, 2, 1)
            key = (await client.service.ledger.decision("default", late)).key  # type: ignore[union-attr]
            assert await rewards_of(client, key) == [("mail", whole)]
            await agree(client, key)


async def test_the_earliest_of_what_is_late_counts_whatever_the_clocks_said(
    open_client: Open, settings: Settings, time: Time
) -> None:
    """The first equals the default and is only kept; the second comes with an earlier clock."""
    declare(settings, "late: rebuild, default_reward: -1")
    async with open_client() as client:
        await client.decide("a", decision_id="d", actions=["mail"])
        time.pass_seconds(201)
        await learn(client, "d", -1, 0)
        time.pass_seconds(-50)
        await learn(client, "d", 3, 1)
        await learn(client, "d", 2, 2)
        assert await rewards_of(client) == [("mail", -1)]
        assert (await account_of(client)).head == Head(0, 1)
        await agree(client)


async def test_a_revision_can_adapt_an_account_and_make_it_regress(
    open_client: Open, settings: Settings
) -> None:
    declare(settings, "aggregation: latest")
    async with open_client() as client:
        for i in range(3):
            await client.decide("a", decision_id=f"d{i}")
            await learn(client, f"d{i}", 3 if i else -1, 0)
        assert (await account_of(client)).adaptation.phase == "adapting"
        await learn(client, "d0", 3, 1)
        account = await account_of(client)
        assert (account.adaptation.phase, account.adaptation.adapted_at) == ("adapted", 3)
        for i in range(3):
            await learn(client, f"d{i}", -1, 2)
        account = await account_of(client)
        assert (account.adaptation.phase, account.adaptation.adapted_at) == ("regressed", 3)
