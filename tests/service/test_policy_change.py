"""Another policy version: an account's memory is replayed before the new one decides for it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from service.ledger.records import AccountKey, Head
from service.settings import Settings
from tests.bundles import write_counting_bundle
from tests.service.conftest import WORKFLOW, Client, Open
from tests.service.pasts import KEY, same


@pytest.fixture
def two_versions(tmp_path: Path) -> Path:
    """A directory with two versions of the counting policy."""
    home = tmp_path / "two"
    for version in (1, 2):
        write_counting_bundle(home, version=version)
    return home


def switch(settings: Settings, version: int) -> None:
    """Has the workflow name this version of the policy."""
    text = WORKFLOW.replace("policy: counting/1", f"policy: counting/{version}")
    (settings.workflows / "help.yaml").write_text(text)


async def decided(client: Client, account: str = "a") -> dict[str, Any]:
    answer = await client.decide(account)
    assert answer.status_code == 200, answer.text
    assert answer.json()["reason"] == "policy"
    return dict(answer.json())


async def brought_over(client: Client) -> None:
    await asyncio.gather(*client.service.recall._bringing.values())


async def test_until_its_memory_is_brought_over_an_account_is_served_by_the_policy_before(
    open_client: Open, settings: Settings, two_versions: Path, redis_url: str
) -> None:
    """On Redis, as a rolling upgrade has it: the memories of the policy before are still there."""
    async with open_client(policies=two_versions, redis_url=redis_url) as client:
        for _ in range(5):
            await client.interact("a")
    switch(settings, 2)
    async with open_client(policies=two_versions, redis_url=redis_url) as client:
        first = await decided(client)
        assert (first["policy"], first["memory_position"]) == ("counting/1", 5)
        assert await client.metric("acclimate_policy_not_ready_total") == 1
        await brought_over(client)
        second = await decided(client)
        assert (second["policy"], second["memory_position"]) == ("counting/2", 5)
        await client.learn(second["decision_id"], reward=3)
        third = await decided(client)
        assert (third["policy"], third["memory_position"]) == ("counting/2", 6)
        # Both versions' memories lie side by side, and the new one is the fold of the whole past.
        new = client.service.catalog.workflows["help"]
        assert new.before is not None
        stored = await client.service.recall.stored([(new, KEY), (new.before, KEY)])
        replayed = await client.service.recall.fresh(new, KEY)
        assert same(stored[0].memory, replayed.memory.memory)  # type: ignore[union-attr]
        assert stored[1].head == Head(0, 5)  # type: ignore[union-attr]


async def test_feedback_on_the_way_over_is_known_to_the_next_decision(
    open_client: Open,
    settings: Settings,
    two_versions: Path,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_client(policies=two_versions, redis_url=redis_url) as client:
        for _ in range(5):
            await client.interact("a")
    switch(settings, 2)
    async with open_client(policies=two_versions, redis_url=redis_url) as client:
        go = asyncio.Event()
        replay = type(client.service.recall)._replay

        async def slow(self: Any, workflow: Any, *rest: Any) -> Any:
            if workflow.policy_name == "counting/2":
                await go.wait()
            return await replay(self, workflow, *rest)

        monkeypatch.setattr(type(client.service.recall), "_replay", slow)
        for position in range(5, 9):
            answer = await decided(client)
            assert (answer["policy"], answer["memory_position"]) == ("counting/1", position)
            await client.learn(answer["decision_id"], reward=3)
        go.set()
        await brought_over(client)
        answer = await decided(client)
        assert (answer["policy"], answer["memory_position"]) == ("counting/2", 9)


async def test_new_accounts_and_those_without_a_memory_start_on_the_new_policy(
    open_client: Open, settings: Settings, two_versions: Path
) -> None:
    """In this process, where a restart forgets all memories: the replay is waited for."""
    async with open_client(policies=two_versions) as client:
        for _ in range(5):
            await client.interact("a")
    switch(settings, 2)
    async with open_client(policies=two_versions) as client:
        old, new = await decided(client, "a"), await decided(client, "newcomer")
        assert (old["policy"], old["memory_position"]) == ("counting/2", 5)
        assert (new["policy"], new["memory_position"]) == ("counting/2", 0)
        assert await client.metric("acclimate_policy_not_ready_total") == 0


async def test_going_back_to_the_policy_before_keeps_what_was_learned_since(
    open_client: Open, settings: Settings, two_versions: Path, redis_url: str
) -> None:
    for version in (1, 2, 1):
        switch(settings, version)
        async with open_client(policies=two_versions, redis_url=redis_url) as client:
            for _ in range(3):
                await client.interact("a")
                await brought_over(client)
    async with open_client(policies=two_versions, redis_url=redis_url) as client:
        answer = await decided(client)
        assert (answer["policy"], answer["memory_position"]) == ("counting/1", 9)
        workflow = client.service.catalog.workflows["help"]
        (stored,) = await client.service.recall.stored([(workflow, KEY)])
        replayed = await client.service.recall.fresh(workflow, KEY)
        assert same(stored.memory, replayed.memory.memory)  # type: ignore[union-attr]


async def test_a_policy_before_that_is_gone_costs_a_replay_and_nothing_else(
    open_client: Open, settings: Settings, two_versions: Path, redis_url: str
) -> None:
    async with open_client(policies=two_versions, redis_url=redis_url) as client:
        await client.interact("a")
    for file in (two_versions / "counting" / "1").iterdir():
        file.unlink()
    switch(settings, 2)
    async with open_client(policies=two_versions, redis_url=redis_url) as client:
        assert client.service.catalog.workflows["help"].before is None
        answer = await decided(client)
        assert (answer["policy"], answer["memory_position"]) == ("counting/2", 1)
        key = AccountKey("default", "help", "a")
        assert (await client.service.ledger.past(key, None)).head == Head(0, 1)
