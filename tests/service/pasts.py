"""What tests ask of a past: the rules that make it, and whether memories agree with it."""

from __future__ import annotations

from typing import Any

import numpy as np

from contract.policy import Memory
from service.ledger.records import Account, AccountKey, Head, Interaction
from service.memory.store import StoredMemory
from service.settings import Settings
from tests.service.conftest import WORKFLOW, Client

KEY = AccountKey("default", "help", "a")
RULES = "feedback: {window_seconds: 100, default_reward: -1, late: apply}"
ACTIONS = ("wait", "mail", "call")


def declare(settings: Settings, rules: str, more: str = "") -> None:
    """Writes the workflow `help` with these rules of feedback, and `more` at its end."""
    assert RULES in WORKFLOW
    text = WORKFLOW.replace(RULES, f"feedback: {{window_seconds: 100, {rules}}}")
    (settings.workflows / "help.yaml").write_text(text + more)


async def account_of(client: Client, key: AccountKey = KEY) -> Account:
    """The account's row."""
    account = await client.service.ledger.account(key)
    assert account is not None
    return account


async def past_of(client: Client, key: AccountKey = KEY) -> list[Interaction]:
    """The whole past as of the head, read page by page."""
    ledger, found = client.service.ledger, []
    past = await ledger.past(key, None)
    found += past.interactions
    while past.end < past.head:
        past = await ledger.past(key, past.end)
        found += past.interactions
    assert [one.position for one in found] == list(range(1, past.head.position + 1))
    return found


async def rewards_of(client: Client, key: AccountKey = KEY) -> list[tuple[str, float]]:
    """Action and reward of each interaction."""
    return [(one.action, one.reward) for one in await past_of(client, key)]


async def stored_of(client: Client, key: AccountKey = KEY) -> StoredMemory | None:
    """The memory in the store."""
    workflow = client.service.catalog.workflows[key.workflow]
    return await client.service.memories.get(key, workflow.policy.identity)


def same(one: Memory, other: Memory) -> bool:
    """Whether two memories are equal bit for bit."""
    return all(a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))


async def agree(client: Client, key: AccountKey = KEY) -> None:
    """The stored memory is at the head, is the fold of the ledger bit for bit, and counts what the
    past says: wins and pulls an action, and episodes that ended."""
    workflow = client.service.catalog.workflows[key.workflow]
    head = (await account_of(client, key)).head
    stored = await stored_of(client, key)
    if stored is None and head == Head():  # nothing to store of an account nothing came of
        stored = workflow.unknown
    assert stored is not None
    assert stored.head == head
    fresh = await client.service.recall.fresh(workflow, key)
    assert fresh.complete
    assert fresh.memory.head == head
    assert fresh.interactions == head.position
    assert same(fresh.memory.memory, stored.memory)
    single = workflow.spec.episodes == "single_step"
    rows, ended = np.zeros((len(ACTIONS), 2)), 0
    for one in await past_of(client, key):
        rows[ACTIONS.index(one.action)] += [(one.reward + 1) / 4, 1]
        ended += single or one.episode_end
    np.testing.assert_allclose(stored.memory.rows[0], rows, atol=1e-5)
    assert stored.memory.shared[0, 0] == ended


def forget(client: Client) -> None:
    """Empties the store of memories in this process."""
    memories: Any = client.service.memories
    memories._memories.clear()


async def decided_from(client: Client, **body: Any) -> Head:
    """Makes a decision; the head it was made from."""
    answer = (await client.decide("a", **body)).json()
    assert answer["reason"] == "policy"
    return Head(answer["memory_generation"], answer["memory_position"])
