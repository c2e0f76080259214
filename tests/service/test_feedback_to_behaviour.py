"""How many decisions are made before what was fed back is used: none, or they are counted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from contract.spec import parse_workflow
from service.awareness import Awareness
from service.ledger.ledger import Ledger
from service.ledger.records import AccountKey, Head
from service.ledger.settle import Committed
from tests.service.conftest import WORKFLOW
from tests.service.test_ledger import SPEC, decide, decision, feedback, learn, write

LATEST = parse_workflow(WORKFLOW.replace("late: apply", "late: apply, aggregation: latest"))


@pytest.fixture
async def ledger(database: str) -> AsyncIterator[Ledger]:
    """An open ledger that knows the spec."""
    ledger = Ledger.open(database)
    ledger.register_spec(SPEC, 1)
    yield ledger
    await ledger.close()


@pytest.fixture
def awareness() -> Awareness:
    """Of a process that has just started."""
    return Awareness()


Waited = Callable[..., Awaitable[int | None]]


@pytest.fixture
def waited(ledger: Ledger, awareness: Awareness) -> Waited:
    """Makes a decision: how long what came last had waited for it; None: nothing was waiting, or
    it does not use it."""

    async def make(decision_id: str, head: Head | None, current: bool = True) -> int | None:
        one = decision(decision_id=decision_id)._replace(head=head)
        outcome = await decide(ledger, one, current)
        assert isinstance(outcome, Committed)
        if not outcome.new:
            return None
        return awareness.decided(one.key, outcome.account_head, outcome.aware)

    return make


async def test_the_next_decision_from_the_head_uses_what_was_fed_back_last(
    ledger: Ledger, waited: Waited
) -> None:
    assert await waited("d", Head()) is None  # nothing was fed back yet
    await learn(ledger, feedback())
    assert await waited("e", Head(0, 1)) == 0
    assert await waited("f", Head(0, 1)) is None  # it was used before


async def test_decisions_made_without_it_are_counted(ledger: Ledger, waited: Waited) -> None:
    await waited("d", Head())
    await learn(ledger, feedback())
    for name in ("e", "f"):
        assert await waited(name, Head(0, 0), current=False) is None
    assert await waited("g", Head(0, 1)) == 2
    await learn(ledger, feedback("e"))
    assert await waited("h", Head(0, 2)) == 0  # and from the start again


async def test_a_fallback_that_saw_no_memory_used_nothing(ledger: Ledger, waited: Waited) -> None:
    await waited("d", Head())
    await learn(ledger, feedback())
    assert await waited("e", None, current=False) is None
    stored = await ledger.decision("default", "e")
    assert stored is not None
    assert stored.head == Head(0, 1)
    assert await waited("f", Head(0, 1)) == 1


async def test_a_retried_decision_counts_once(ledger: Ledger, waited: Waited) -> None:
    await waited("d", Head())
    await learn(ledger, feedback())
    await waited("e", Head(0, 0), current=False)
    await waited("e", Head(0, 0), current=False)
    assert await waited("f", Head(0, 1)) == 1


async def test_a_revision_waits_to_be_used_too(ledger: Ledger, waited: Waited) -> None:
    for n, name in enumerate("de"):
        await waited(name, Head(0, n))
        await learn(ledger, feedback(name))
    assert await waited("f", Head(0, 2)) == 0
    for n, name in enumerate("de"):
        second = feedback(name)._replace(feedback_id="two", reward=2.0, request_sha256="2" * 64)
        await ledger.record_feedback(write(lambda _, one=second: (one, LATEST), second))  # type: ignore[misc]
        generation = n + 1
        assert await waited(f"old{n}", Head(n, 2), current=False) is None
        assert await waited(f"new{n}", Head(generation, 2)) == 1


async def test_a_reset_leaves_nothing_to_wait_for(ledger: Ledger, waited: Waited) -> None:
    await waited("d", Head())
    await learn(ledger, feedback())
    await waited("e", Head(0, 0), current=False)
    await ledger.reset(decision().key, 5_000)
    assert await waited("f", Head(1, 0)) is None
    await learn(ledger, feedback("e"))
    assert await waited("g", Head(1, 1)) == 0


def test_accounts_that_decide_no_more_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.awareness.MOST_ACCOUNTS", 2)
    awareness = Awareness()
    keys = [AccountKey("default", "help", name) for name in "abc"]
    assert [awareness.decided(key, Head(0, 1), True) for key in keys] == [0, 0, 0]
    assert awareness.decided(keys[2], Head(0, 1), True) is None
    assert awareness.decided(keys[0], Head(0, 1), True) == 0  # found used for the first time again
