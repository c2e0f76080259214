"""What two writers may not do to one account at once, on either database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future, wait
from typing import Any

import pytest

from service.ledger import group_commit
from service.ledger.ledger import Ledger
from service.ledger.records import Feedback, Head
from service.ledger.scan import Scope, count_decisions
from service.ledger.settle import Committed, DecisionWrite, Recorded
from tests.service.test_ledger import SPEC, decide, decision, feedback, learn, write

KEY = decision().key
Begin = Callable[[Callable[[], Coroutine[Any, Any, Any]], float], list[Future[Any]]]


@pytest.fixture
async def ledgers(database: str) -> AsyncIterator[tuple[Ledger, Ledger]]:
    """Two replicas of one ledger, which knows one account with one interaction."""
    both = Ledger.open(database), Ledger.open(database)
    for ledger in both:
        ledger.register_spec(SPEC, 1)
    await decide(both[0], decision())
    await learn(both[0], feedback())
    yield both
    for ledger in both:
        await ledger.close()


@pytest.fixture
def while_it_stores(monkeypatch: pytest.MonkeyPatch) -> Begin:
    """Begins something when the next group has read its rows, and lets it try for some seconds."""
    loop = asyncio.get_event_loop()
    store = vars(group_commit)["store_rows"]

    def begin(what: Callable[[], Coroutine[Any, Any, Any]], seconds: float) -> list[Future[Any]]:
        begun: list[Future[Any]] = []

        def storing(*args: Any) -> None:
            if not begun:
                begun.append(asyncio.run_coroutine_threadsafe(what(), loop))
                wait(begun, seconds)
            store(*args)

        monkeypatch.setattr(group_commit, "store_rows", storing)
        return begun

    return begin


async def test_what_comes_of_a_decision_of_the_same_group_is_folded_under_the_lock(
    ledgers: tuple[Ledger, Ledger], while_it_stores: Begin
) -> None:
    """Sent before the decision was answered: a reset in between must not be written over."""
    ledger, other = ledgers
    begun = while_it_stores(lambda: other.reset(KEY, 5_000), 1.0)

    def given(one: Feedback) -> Any:
        return write(lambda _: (one, SPEC), one)

    made, folded = await ledger._commits.submit_all(
        [
            DecisionWrite(decision(decision_id="e", head=Head(0, 1)), True, has_default=True),
            given(feedback("e")),
        ]
    )
    assert isinstance(made, Committed)
    assert isinstance(folded, Recorded)
    assert folded.head == Head(0, 2)
    assert (await asyncio.wrap_future(begun[0])).head == Head(1, 0)
    account = await ledger.account(KEY)
    assert account is not None
    assert account.head == Head(1, 0)


async def test_no_decision_outlives_the_erasure_of_its_account(
    ledgers: tuple[Ledger, Ledger], while_it_stores: Begin
) -> None:
    ledger, other = ledgers
    begun = while_it_stores(lambda: other.erase(KEY, 5_000), 1.0)
    made = await decide(ledger, decision(decision_id="e", head=Head(0, 1)))
    assert isinstance(made, Committed)
    assert (await asyncio.wrap_future(begun[0])).decisions == 2
    assert await ledger.read(count_decisions(Scope(*KEY))) == 0
    assert await ledger.decision("default", "e") is None
    assert await ledger.defaults_due(10**15, 10) == []


async def test_a_decision_does_not_wait_for_who_changes_its_account(
    ledgers: tuple[Ledger, Ledger], while_it_stores: Begin
) -> None:
    """It was asked for before that was acknowledged, and is as if made before it."""
    ledger, other = ledgers
    if ledger._engine.dialect.name == "sqlite":
        return  # one writer at a time, whatever it writes
    begun = while_it_stores(lambda: other.reset(KEY, 5_000), 4.0)
    made = await decide(ledger, decision(decision_id="e", head=Head(0, 1)))
    assert isinstance(made, Committed)
    assert begun[0].done()
    assert begun[0].result().head == Head(1, 0)
    assert made.decision.head == Head(0, 1)
