"""How many decisions are made before what was fed back is used: none, or they are counted."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from contract.spec import parse_workflow
from service.ledger.ledger import Ledger
from service.ledger.records import Head
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


async def waited(ledger: Ledger, decision_id: str, head: Head, current: bool = True) -> int | None:
    """How long what came last had waited for this decision; None: nothing was waiting, or it does
    not use it."""
    outcome = await decide(ledger, decision(decision_id=decision_id, head=head), current)
    assert isinstance(outcome, Committed)
    return outcome.waited


async def test_the_next_decision_from_the_head_uses_what_was_fed_back_last(ledger: Ledger) -> None:
    assert await waited(ledger, "d", Head()) is None  # nothing was fed back yet
    await learn(ledger, feedback())
    assert await waited(ledger, "e", Head(0, 1)) == 0
    assert await waited(ledger, "f", Head(0, 1)) is None  # it was used before


async def test_decisions_made_without_it_are_counted(ledger: Ledger) -> None:
    await waited(ledger, "d", Head())
    await learn(ledger, feedback())
    for name in ("e", "f"):
        assert await waited(ledger, name, Head(0, 0), current=False) is None
    assert await waited(ledger, "g", Head(0, 1)) == 2
    await learn(ledger, feedback("e"))
    assert await waited(ledger, "h", Head(0, 2)) == 0  # and from the start again


async def test_a_fallback_that_saw_no_memory_used_nothing(ledger: Ledger) -> None:
    await waited(ledger, "d", Head())
    await learn(ledger, feedback())
    blind = decision(decision_id="e")._replace(head=None)
    outcome = await decide(ledger, blind, current=False)
    assert isinstance(outcome, Committed)
    assert outcome.waited is None
    assert outcome.decision.head == Head(0, 1)
    assert await waited(ledger, "f", Head(0, 1)) == 1


async def test_a_retried_decision_counts_once(ledger: Ledger) -> None:
    await waited(ledger, "d", Head())
    await learn(ledger, feedback())
    await waited(ledger, "e", Head(0, 0), current=False)
    await waited(ledger, "e", Head(0, 0), current=False)
    assert await waited(ledger, "f", Head(0, 1)) == 1


async def test_a_revision_waits_to_be_used_too(ledger: Ledger) -> None:
    for n, name in enumerate("de"):
        await waited(ledger, name, Head(0, n))
        await learn(ledger, feedback(name))
    assert await waited(ledger, "f", Head(0, 2)) == 0
    for n, name in enumerate("de"):
        second = feedback(name)._replace(feedback_id="two", reward=2.0, request_sha256="2" * 64)
        await ledger.record_feedback(write(lambda _, one=second: (one, LATEST), second))  # type: ignore[misc]
        generation = n + 1
        assert await waited(ledger, f"old{n}", Head(n, 2), current=False) is None
        assert await waited(ledger, f"new{n}", Head(generation, 2)) == 1


async def test_a_reset_leaves_nothing_to_wait_for(ledger: Ledger) -> None:
    await waited(ledger, "d", Head())
    await learn(ledger, feedback())
    await waited(ledger, "e", Head(0, 0), current=False)
    await ledger.reset(decision().key, 5_000)
    assert await waited(ledger, "f", Head(1, 0)) is None
    await learn(ledger, feedback("e"))
    assert await waited(ledger, "g", Head(1, 1)) == 0
