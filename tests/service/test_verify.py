"""Verification finds what is not the fold of the ledger's events, and only that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, text, update

from contract.adaptation import AccountAdaptation, observe, revise
from contract.policy import Memory
from contract.spec import parse_workflow
from service.ledger.records import Account, AccountKey, Generation, Head
from service.ledger.recount import History, HistoryError, recount
from service.ledger.scan import Folded
from service.ledger.tables import snapshots
from service.memory.codec import account_name, decode, encode
from service.memory.store import StoredMemory
from service.settings import Settings
from tests.service.conftest import WORKFLOW, Client, Open

VERIFICATION = "/v1/workflows/help/verification"
REVISED = WORKFLOW.replace("late: apply", "late: apply, aggregation: latest")


@pytest.fixture(params=["sqlite", "postgresql"])
async def either(
    request: pytest.FixtureRequest, open_client: Open, settings: Settings
) -> AsyncIterator[Client]:
    """A service whose feedback may revise the past, on each of the databases, with some accounts:
    revised, reset, young, erased and begun again."""
    (settings.workflows / "help.yaml").write_text(REVISED)
    url = None if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    async with open_client(ledger_url=url, snapshot_every=4) as client:
        await live(client)
        yield client


async def live(client: Client) -> None:
    for account in ("a", "b", "c", "d"):
        for n in range(9):
            await client.decide(account, decision_id=f"{account}{n}")
            await client.learn(f"{account}{n}", reward=(3, 1, 3)[n % 3], feedback_id="1")
    await client.learn("a5", reward=-1, feedback_id="2")
    await client.learn("a7", reward=-1, feedback_id="2")
    await client.interact("a")
    await client.http.post("/v1/workflows/help/accounts/b/reset")
    await client.interact("b")
    await client.http.delete("/v1/workflows/help/accounts/c")
    await client.interact("c")
    await client.decide("young")
    await client.service.recall.drain()


async def verified(client: Client, **query: Any) -> dict[str, Any]:
    answer = await client.http.get(VERIFICATION, params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def change(client: Client, statement: str) -> None:
    """What nobody may do to a ledger."""
    with client.service.ledger._engine.begin() as connection:
        connection.execute(text(statement))


async def test_a_ledger_that_was_left_alone_has_no_difference(either: Client) -> None:
    found = await verified(either)
    assert found["differing"] == []
    assert (found["accounts"], found["memories"], found["next"]) == (5, 4, None)
    assert found["snapshots"] == 4  # two of d, and of a: what a revision deleted is kept anew
    assert found["interactions"] == 10 + 1 + 1 + 9


async def test_pages_add_up_to_the_whole(either: Client) -> None:
    whole = await verified(either)
    after, pages = None, []
    while True:
        query = {"limit": 2} | ({"after": after} if after else {})
        pages.append(await verified(either, **query))
        after = pages[-1]["next"]
        if after is None:
            break
    assert [page["accounts"] for page in pages] == [2, 2, 1]
    digest = sum(int(page["digest"], 16) for page in pages) % 2**256
    assert digest == int(whole["digest"], 16)
    rebuilt = (await either.http.post("/v1/workflows/help/rebuild")).json()
    assert (rebuilt["accounts"], rebuilt["different"]) == (5, 0)
    assert (rebuilt["digest"], rebuilt["interactions"]) == (whole["digest"], 21)


async def test_memories_that_are_gone_are_no_difference(either: Client) -> None:
    before = await verified(either)
    either.service.memories._memories.clear()  # type: ignore[attr-defined]
    after = await verified(either)
    assert after == before | {"memories": 0}


async def test_other_tenants_are_not_looked_at(either: Client) -> None:
    answer = await either.http.get(VERIFICATION, headers={"X-Acclimate-Tenant": "other"})
    assert answer.json()["accounts"] == 0


async def test_a_memory_that_is_one_bit_off_is_named(either: Client) -> None:
    digest = (await verified(either))["digest"]
    identity = either.service.catalog.workflows["help"].policy.identity
    key = AccountKey("default", "help", "d")
    stored = await either.service.memories.get(key, identity)
    assert stored is not None
    await either.service.memories.put(key, identity, StoredMemory(bent(stored), stored.head))
    found = await verified(either)
    assert found["differing"] == [
        {
            "account_id": "d",
            "what": "memory",
            "detail": "stored at 0:9 is not the replay of 9 interactions",
        }
    ]
    assert found["digest"] == digest  # that of what the events come to
    assert (await either.http.post("/v1/workflows/help/rebuild")).json()["different"] == 1
    assert (await verified(either))["differing"] == []


def bent(stored: StoredMemory) -> Memory:
    rows = stored.memory.rows.copy()
    rows[0, 0, 0] = np.nextafter(rows[0, 0, 0], np.float32(9))
    return Memory(stored.memory.shared, rows)


async def test_a_memory_that_stays_behind_its_head_is_named(either: Client) -> None:
    identity = either.service.catalog.workflows["help"].policy.identity
    key = AccountKey("default", "help", "d")
    stored = await either.service.memories.get(key, identity)
    assert stored is not None
    await either.service.memories.put(key, identity, StoredMemory(stored.memory, Head(0, 8)))
    (found,) = (await verified(either))["differing"]
    assert (found["what"], found["detail"]) == ("memory", "stored at 0:8, behind the head 0:9")


async def test_a_kept_memory_that_is_off_is_named(either: Client) -> None:
    identity = either.service.catalog.workflows["help"].policy.identity
    ours = (snapshots.c.account_id == "d") & (snapshots.c.position == 8)
    with either.service.ledger._engine.begin() as connection:
        data = connection.scalar(select(snapshots.c.memory).where(ours))
        assert data is not None
        name = account_name(AccountKey("default", "help", "d"))
        stored = decode(data, identity, name)
        wrong = encode(StoredMemory(bent(stored), stored.head), identity, name)
        connection.execute(update(snapshots).where(ours).values(memory=wrong))
        whole = snapshots.c.account_id == "a"
        connection.execute(update(snapshots).where(whole).values(memory=b"torn"))
    found = (await verified(either))["differing"]
    assert [(one["account_id"], one["what"], one["detail"]) for one in found] == [
        ("a", "snapshot", "kept at position 4 is not whole: truncated"),
        ("a", "snapshot", "kept at position 8 is not whole: truncated"),
        ("d", "snapshot", "kept at position 8 is not the replay up to there"),
    ]


@pytest.mark.parametrize(
    ("statement", "what", "detail"),
    [
        (
            "UPDATE accounts SET phase = 'regressed' WHERE account_id = 'd'",
            "adaptation",
            "regressed, first adapted at",
        ),
        (
            "UPDATE accounts SET adapted_at = 8 WHERE account_id = 'd'",
            "adaptation",
            "first adapted at 8",
        ),
        (
            "UPDATE accounts SET recent_rewards = '[3.0, 3.0, 3.0]' WHERE account_id = 'd'",
            "adaptation",
            "last rewards [3.0, 3.0, 3.0]",
        ),
        (
            "UPDATE accounts SET position = 10 WHERE account_id = 'd'",
            "head",
            "at 0:10, its events come to 0:9",
        ),
        (
            "UPDATE accounts SET position = 8 WHERE account_id = 'd'",
            "head",
            "at 0:8, but there is an interaction at position 9",
        ),
        (
            "DELETE FROM feedback WHERE decision_id = 'd4'",
            "positions",
            "expected position 5 of generation 0, got 6",
        ),
        (
            "UPDATE generations SET head_position = 8 WHERE account_id = 'a' AND generation = 2",
            "generations",
            "generation 2 says that it was opened at position 8, but it follows 1:9",
        ),
        (
            "UPDATE accounts SET generation = 1 WHERE account_id = 'a'",
            "head",
            "at 1:10, below generation 2",
        ),
        (
            "DELETE FROM generations WHERE account_id = 'a' AND generation = 1",
            "generations",
            "the interaction at 1:6 has no generation of its own after 0:9",
        ),
        (
            "UPDATE generations SET reason = 'revision' WHERE account_id = 'b'",
            "generations",
            "base generation 1 is a revision, expected a reset",
        ),
        (
            "UPDATE feedback SET folded_reward = 2.5 WHERE decision_id = 'd8'",
            "memory",
            "is not the replay of 9 interactions",
        ),
        (
            "UPDATE decisions SET action = CASE action WHEN 'wait' THEN 'mail' ELSE 'wait' END"
            " WHERE account_id = 'd'",
            "memory",
            "is not the replay of 9 interactions",
        ),
    ],
)
async def test_what_was_changed_behind_the_ledgers_back_is_named(
    either: Client, statement: str, what: str, detail: str
) -> None:
    await change(either, statement)
    found = (await verified(either))["differing"]
    (account,) = {one["account_id"] for one in found}
    assert f"'{account}" in statement
    assert any(one["what"] == what and detail in one["detail"] for one in found), found


async def test_traffic_meanwhile_is_no_difference(either: Client) -> None:
    async def traffic() -> None:
        for n in range(20):
            await either.interact("d")
            await either.decide("a", decision_id=f"t{n}")
            await either.learn(f"t{n}", reward=3, feedback_id="1")
            await either.learn(f"t{n}", reward=1, feedback_id="2")

    going = asyncio.create_task(traffic())
    while not going.done():
        found = await verified(either)
        assert found["differing"] == []
    await going
    assert (await verified(either))["differing"] == []


async def test_what_retention_has_deleted_is_counted_and_the_rest_checked(either: Client) -> None:
    kept_above = 4
    removed = [f"'d{n}'" for n in range(kept_above)]
    for table in ("feedback", "decisions"):
        await change(either, f"DELETE FROM {table} WHERE decision_id IN ({', '.join(removed)})")
    await change(either, f"UPDATE accounts SET kept_above = {kept_above} WHERE account_id = 'd'")
    digest = (await verified(either))["digest"]
    found = await verified(either)
    assert (found["incomplete"], found["differing"], found["digest"]) == (1, [], digest)
    rebuilt = (await either.http.post("/v1/workflows/help/accounts/d/rebuild")).json()
    assert (rebuilt["was_equal"], rebuilt["complete"], rebuilt["interactions"]) == (True, True, 5)
    await change(either, "DELETE FROM snapshots WHERE account_id = 'd'")
    assert (await verified(either))["differing"] == []
    blind = (await either.http.post("/v1/workflows/help/accounts/d/rebuild")).json()
    assert (blind["complete"], blind["was_equal"]) == (False, False)
    # What is stored knows more than the ledger still does: it is left as it is.
    decided = (await either.decide("d")).json()
    assert (decided["memory_position"], decided["reason"]) == (9, "policy")
    identity = either.service.catalog.workflows["help"].policy.identity
    stored = await either.service.memories.get(AccountKey("default", "help", "d"), identity)
    assert stored is not None
    assert stored.memory.rows[0, :, 1].sum() == 9


SPEC = parse_workflow(WORKFLOW)
REWARDS = st.sampled_from([-1.0, 1.0, 3.0])
STEPS = st.lists(
    st.tuples(st.just("fold"), REWARDS, st.just(0))
    | st.tuples(st.just("revise"), REWARDS, st.integers(0, 100)),
    max_size=40,
)


@given(steps=STEPS, base=st.integers(0, 3))
def test_events_in_any_order_of_the_table_are_counted_as_they_came(
    steps: list[tuple[str, float, int]], base: int
) -> None:
    key = AccountKey("default", "help", "a")
    head, state = Head(base, 0), AccountAdaptation()
    rows: list[Folded] = []
    opened = [Generation(key, base, "reset", 0, 7, None, 0)] if base else []
    for kind, reward, where in steps:
        if kind == "fold":
            head = Head(head.generation, head.position + 1)
            state = observe(state, reward, SPEC.adaptation, SPEC.reward)
            rows.append(Folded(head, reward, 1))
        elif head.position:
            place = where % head.position + 1
            head = Head(head.generation + 1, head.position)
            back = head.position - place
            state = revise(state, back, reward, SPEC.adaptation, SPEC.reward)
            rows.append(Folded(Head(head.generation, place), reward, 1))
            opened.append(
                Generation(key, head.generation, "revision", place, head.position, "d", 0)
            )
    history = History()
    rows.sort(key=lambda row: (row.head.position, row.head.generation))
    for start in range(0, len(rows), 7):
        history.add(rows[start : start + 7])
    account = Account(key, head, state, 0, 0, base_generation=base)
    assert recount(account, opened, history.in_order(), lambda _: SPEC) == (head, state)
    for lost in opened[-1:]:
        if lost.reason == "revision":
            with pytest.raises(HistoryError):
                recount(account, opened[:-1], history.in_order(), lambda _: SPEC)
