"""Decisions that wait to be activated, at the ledger: nothing can have come of them before."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from contract.spec import WorkflowSpec, parse_workflow
from service.ledger.ledger import Ledger
from service.ledger.records import (
    Decision,
    DecisionUnknownError,
    Feedback,
    Head,
    NotActiveError,
)
from service.ledger.settle import ActivateWrite, DefaultWrite, FeedbackWrite, Recorded
from tests.service.conftest import WORKFLOW
from tests.service.test_ledger import decide, decision, feedback, learn, write

SPEC = parse_workflow(WORKFLOW)
WINDOW_US = round(SPEC.feedback.window_seconds * 1e6)
WITHOUT_DEFAULT = parse_workflow(WORKFLOW.replace("default_reward: -1, ", ""))


@pytest.fixture
async def ledger(database: str) -> AsyncIterator[Ledger]:
    """An open ledger that knows the spec."""
    ledger = Ledger.open(database)
    ledger.register_spec(SPEC, 1)
    yield ledger
    await ledger.close()


def deferred(decision_id: str = "d") -> Decision:
    """As it is asked for: whoever makes it may already have worked out when its window closes."""
    return decision(decision_id=decision_id)._replace(mode="defer")


async def activate(ledger: Ledger, at_us: int, spec: WorkflowSpec = SPEC) -> Decision:
    return await ledger.activate(ActivateWrite("default", "d", at_us, lambda _: spec))


async def test_a_deferred_decision_comes_back_as_it_went_in(ledger: Ledger) -> None:
    await decide(ledger, deferred())
    stored = await ledger.decision("default", "d")
    assert stored == deferred()
    assert stored is not None
    assert not stored.active
    assert decision().active


async def test_feedback_before_activation_is_refused_and_leaves_no_trace(ledger: Ledger) -> None:
    await decide(ledger, deferred())
    for at_us in (1_500, 10**12):
        with pytest.raises(NotActiveError):
            await learn(ledger, feedback(at_us=at_us))
    assert await ledger.feedback("default", "d") == []
    account = await ledger.account(decision().key)
    assert account is not None
    assert account.head == Head()
    await activate(ledger, 5_000)
    assert await learn(ledger, feedback(at_us=5_001)) == Head(0, 1)


async def test_without_activation_no_default_is_ever_due(ledger: Ledger) -> None:
    await decide(ledger, deferred())
    assert await ledger.defaults_due(10**15, 10) == []
    assert await ledger.record_default(DefaultWrite(deferred(), SPEC, 10**15)) is None


async def test_the_window_opens_with_the_activation(ledger: Ledger) -> None:
    await decide(ledger, deferred())
    active = await activate(ledger, 5_000)
    assert active == await ledger.decision("default", "d")
    assert active.active
    assert active.activated_at_us == 5_000
    assert active.expires_at_us == 5_000 + WINDOW_US
    assert await ledger.defaults_due(5_000 + WINDOW_US, 10) == []
    assert await ledger.defaults_due(5_001 + WINDOW_US, 10) == [active]
    recorded = await ledger.record_default(DefaultWrite(active, SPEC, 5_001 + WINDOW_US))
    assert recorded is not None
    assert recorded.head == Head(0, 1)
    (folded,) = await ledger.feedback("default", "d")
    assert (folded.kind, folded.reward) == ("default", -1)


async def test_activating_again_changes_nothing(ledger: Ledger) -> None:
    await decide(ledger, deferred())
    active = await activate(ledger, 5_000)
    assert await activate(ledger, 6_000) == active
    await learn(ledger, feedback(at_us=7_000))
    again = await activate(ledger, 8_000)
    assert again == active
    assert await ledger.defaults_due(10**15, 10) == []


async def test_a_decision_that_was_served_is_active_already(ledger: Ledger) -> None:
    await decide(ledger, decision())
    assert await activate(ledger, 5_000) == decision()


async def test_without_a_default_none_is_due_after_activation(ledger: Ledger) -> None:
    await decide(ledger, deferred())
    active = await activate(ledger, 5_000, WITHOUT_DEFAULT)
    assert active.expires_at_us == 5_000 + WINDOW_US
    assert await ledger.defaults_due(10**15, 10) == []


async def test_an_unknown_decision_cannot_be_activated(ledger: Ledger) -> None:
    with pytest.raises(DecisionUnknownError):
        await activate(ledger, 5_000)
    await decide(ledger, deferred())
    with pytest.raises(DecisionUnknownError):
        await ledger.activate(ActivateWrite("theirs", "d", 5_000, lambda _: SPEC))


async def test_one_transaction_can_make_activate_and_fold_a_decision(ledger: Ledger) -> None:
    """Whatever shares a commit comes to the same as one after the other."""

    def given(one: Feedback) -> FeedbackWrite:
        return write(lambda _: (one, SPEC), one)

    await decide(ledger, deferred("early"))
    outcomes = await ledger._commits.submit_all(
        [
            ActivateWrite("default", "early", 5_000, lambda _: SPEC),
            given(feedback("early", at_us=5_001)),
            given(feedback("early", at_us=5_002)),
        ]
    )
    folded, twin = outcomes[1:]
    assert isinstance(folded, Recorded)
    assert isinstance(twin, Recorded)
    assert (folded.head, twin.duplicate) == (Head(0, 1), True)
    stored = await ledger.decision("default", "early")
    assert stored is not None
    assert stored.activated_at_us == 5_000
    assert await ledger.defaults_due(10**15, 10) == []


async def test_many_deferred_decisions_do_not_hold_up_the_defaults_of_others(
    ledger: Ledger,
) -> None:
    for n in range(5):
        await decide(ledger, deferred(f"d{n}"))
    await decide(ledger, decision(decision_id="served"))
    due = await ledger.defaults_due(10**15, 3)
    assert [one.decision_id for one in due] == ["served"]
