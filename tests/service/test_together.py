"""Feedback of several accounts at once: one call of the network, each gets what it had alone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from service.bundles import load_policy
from service.ledger.records import AccountKey, Head, Interaction
from service.together import Advance, Together
from tests.bundles import LEAKS, write_counting_bundle
from tests.service.conftest import CONTEXT, Client, Open
from tests.service.pasts import agree

ACCOUNTS = [f"account-{n}" for n in range(20)]


def counted_calls(client: Client, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that the network learns from here on."""
    onnx = client.service.catalog.workflows["help"].policy.onnx
    learn, sizes = type(onnx).learn, []

    def counting(self: object, memory: object, **inputs: object) -> object:
        sizes.append(len(inputs["action"]))  # type: ignore[arg-type]
        return learn(self, memory, **inputs)  # type: ignore[arg-type]

    monkeypatch.setattr(type(onnx), "learn", counting)
    return sizes


async def decided(client: Client) -> None:
    for account in ACCOUNTS:
        answer = await client.decide(account, decision_id=f"d-{account}")
        assert answer.status_code == 200, answer.text


async def test_what_is_fed_back_at_once_is_learned_by_one_call_of_the_network(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await decided(client)
    sizes = counted_calls(client, monkeypatch)
    given = [{"decision_id": f"d-{account}", "reward": 3} for account in ACCOUNTS]
    answer = await client.http.post("/v1/feedback/batch", json={"feedback": given})
    assert {one["feedback"]["status"] for one in answer.json()["results"]} == {"folded"}
    assert sizes == [20]
    for account in ACCOUNTS:
        await agree(client, AccountKey("default", "help", account))


async def test_accounts_named_twice_busy_or_without_a_memory_get_what_they_would_alone(
    client: Client,
) -> None:
    await decided(client)
    for account in ACCOUNTS[:5]:
        await client.decide(account, decision_id=f"e-{account}")
    twice = [
        {"decision_id": f"{which}-{account}", "reward": reward}
        for account in ACCOUNTS[:5]
        for which, reward in (("d", 3), ("e", -1))
    ]
    rest = [{"decision_id": f"d-{account}", "reward": 3} for account in ACCOUNTS[5:]]
    memories = client.service.memories
    before = memories._memories.copy()  # type: ignore[attr-defined]
    answers = await asyncio.gather(
        client.http.post("/v1/feedback/batch", json={"feedback": twice + rest[:8]}),
        *(client.learn(str(one["decision_id"]), reward=3) for one in rest[8:]),
        *(client.decide(account) for account in ACCOUNTS),
    )
    assert {answer.status_code for answer in answers} == {200}
    assert before == {}  # nothing had come of anybody yet
    for account in ACCOUNTS:
        key = AccountKey("default", "help", account)
        found = await client.service.ledger.account(key)
        assert found is not None
        assert found.head == Head(0, 2 if account in ACCOUNTS[:5] else 1)
        await agree(client, key)


async def test_a_network_that_learns_otherwise_in_company_learns_alone(
    open_client: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policies = tmp_path / "leaking"
    home = write_counting_bundle(policies, learn=LEAKS)
    assert load_policy(home).parity.batch == 1
    async with open_client(policies=policies) as client:
        await decided(client)
        sizes = counted_calls(client, monkeypatch)
        given = [{"decision_id": f"d-{account}", "reward": 3} for account in ACCOUNTS]
        await client.http.post("/v1/feedback/batch", json={"feedback": given})
        assert sizes == [1] * 20
        for account in ACCOUNTS:
            await agree(client, AccountKey("default", "help", account))


def test_a_policy_that_keeps_accounts_apart_learns_in_large_batches(
    counting_policies: Path,
) -> None:
    assert load_policy(counting_policies / "counting" / "1").parity.batch == 64
    assert load_policy(Path("policies/bandits/1")).parity.batch == 64


async def test_two_groups_that_name_accounts_in_another_order_do_not_wait_for_each_other(
    client: Client,
) -> None:
    """Nor where one of the accounts was let go a moment ago and promised to somebody."""
    await decided(client)
    recall, workflow = client.service.recall, client.service.catalog.workflows["help"]
    for account in ACCOUNTS[:2]:
        await client.learn(f"d-{account}", reward=3)
    b, c = (AccountKey("default", "help", account) for account in ACCOUNTS[:2])
    service = client.service
    together = Together(service.memories, recall, service.catalog, service.metrics)
    lock = recall.lock(b)
    await lock.acquire()
    waiter = asyncio.create_task(recall.at_head(workflow, b, Head(0, 1)))
    await asyncio.sleep(0)
    spec = workflow.version
    newest = Interaction(1, spec, dict(CONTEXT), "mail", 3.0, True)
    one, other = (Advance(workflow, key, Head(0, 1), newest) for key in (b, c))
    groups = [asyncio.create_task(together.advance(each)) for each in ([one, other], [other, one])]
    lock.release()  # only now, so that both find it free, before whoever waits for it has run
    async with asyncio.timeout(10):
        await asyncio.gather(waiter, *groups)


async def test_memories_read_while_feedback_commits_need_not_be_read_again(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor are they believed where somebody has folded more into them since."""
    service, memories = client.service, client.service.memories
    monkeypatch.setattr(type(memories), "remote", True)
    for account in ACCOUNTS[:3]:
        await client.interact(account, reward=3)
        await client.decide(account, decision_id=f"d-{account}")
    keys = [AccountKey("default", "help", account) for account in ACCOUNTS[:3]]
    reads: list[int] = []
    get_many = type(memories).get_many

    async def counting(self: object, wanted: list[object], **options: bool) -> object:
        reads.append(len(wanted))
        return await get_many(self, wanted, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(type(memories), "get_many", counting)
    given = [{"decision_id": f"d-{account}", "reward": 3} for account in ACCOUNTS[:3]]
    await client.http.post("/v1/feedback/batch", json={"feedback": given})
    assert reads == [3]
    for key in keys:
        await agree(client, key)

    # One that is folded by another process between the reading and the commit.
    await client.decide(ACCOUNTS[0], decision_id="late")
    workflow = service.catalog.workflows["help"]
    stored = await memories.get(keys[0], workflow.policy.identity)
    assert stored is not None
    together = Together(memories, service.recall, service.catalog, service.metrics)
    early = together.read_ahead([keys[0]])
    assert early is not None
    await early
    await client.learn("late", reward=-1)
    newest = Interaction(3, workflow.version, dict(CONTEXT), "mail", -1.0, True)
    advance = Advance(workflow, keys[0], Head(0, 3), newest)
    assert await together.advance([advance], early) == [None]
    await agree(client, keys[0])
