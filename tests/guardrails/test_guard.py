"""What is served never breaks a limit, and its logged probability is the one it was drawn with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from contract.spec import WorkflowSpec
from guardrails.conditions import NEWCOMER, Facts
from guardrails.exploration import Tallies
from guardrails.fallback import Fallback
from guardrails.guard import POLICY, SAFE_ACTION, UNSOUND, Choice, Guard, Offer, Past
from guardrails.limits import Limits
from guardrails.tally import Tally, counted
from tests.guardrails.random_specs import CONTEXTS, FACTS, Drawn, workflows

START_US = 1_800_000_000_000_000


class Account:
    """One account of a workflow, played as the ledger does: choose, count, go on."""

    def __init__(self, spec: WorkflowSpec) -> None:
        self.limits = Limits(spec)
        self.guard = Guard(spec, self.limits, Fallback(spec))
        self.tallies: Tallies = {"account": counted(Tally(), self.guard.needs, [])}

    def offered(
        self,
        context: dict[str, Any],
        asked_for: list[str] | None,
        policy: NDArray[np.float64],
        draw: float,
        reason: str = POLICY,
    ) -> Offer:
        """What the policy, which knows no account's past, would draw from."""
        allowed = self.limits.allow(context, asked_for)
        left = np.where(allowed.mask, policy, 0.0)
        if allowed.exhausted:
            reason, left = SAFE_ACTION, allowed.mask.astype(float)
        elif left.sum() == 0:
            reason = UNSOUND
        else:
            left = left / left.sum()
        return Offer(context, asked_for, allowed, left, reason, draw)

    def serve(self, offer: Offer, facts: Facts, now_us: int) -> Choice:
        choice = self.choose(offer, facts, now_us)
        self.count(choice.action, now_us)
        return choice

    def choose(self, offer: Offer, facts: Facts, now_us: int) -> Choice:
        return self.guard.choose(offer, Past(facts), self.tallies, now_us)

    def count(self, action: str, now_us: int) -> None:
        self.tallies = self.guard.count(action, None, Past(NEWCOMER), self.tallies, now_us)


POLICIES = st.lists(st.sampled_from([0.0, 1e-30, 0.1, 0.5, 1.0]), min_size=6, max_size=6)
ASKS = st.one_of(st.none(), st.sets(st.sampled_from(range(6)), min_size=1))
STEPS = st.lists(
    st.tuples(
        CONTEXTS,
        FACTS,
        ASKS,
        POLICIES,
        st.floats(0, 1, exclude_max=True),
        st.sampled_from([0.0, 0.5, 1.0, 4.0, 15.0]),
        st.sampled_from([POLICY, POLICY, "memory_unavailable"]),
    ),
    min_size=1,
    max_size=12,
)


@given(workflows(), STEPS)
def test_what_is_served_never_breaks_a_limit(drawn: Drawn, steps: list[Any]) -> None:
    """Every rule is known here a second time, in Python, and counted from the whole history."""
    account, ids = Account(drawn.spec), drawn.spec.action_ids
    history: list[tuple[str, float]] = []
    seconds = 0.0
    for context, facts, ask, policy, draw, passed, reason in steps:
        seconds += passed
        asked = None if ask is None else [ids[i] for i in ask if i < len(ids)] or None
        offer = account.offered(context, asked, np.array(policy[: len(ids)]), draw, reason)
        choice = account.serve(offer, facts, START_US + round(seconds * 1e6))
        lawful, against = _lawful(drawn, context, facts, history, seconds)
        wanted = [one for one in ids if one in lawful and (asked is None or one in asked)]
        if wanted:
            assert choice.action in wanted
        elif lawful:
            assert choice.action == ("a0" if "a0" in lawful else min(lawful, key=ids.index))
        else:
            assert choice.action == "a0"
        on_offer = set(ids if asked is None else asked)
        assert set(choice.limits) == {name for name, some in against.items() if some & on_offer}
        history.append((choice.action, seconds))


@given(workflows(), STEPS)
def test_the_logged_probability_is_that_of_the_action_served(
    drawn: Drawn, steps: list[Any]
) -> None:
    account, ids = Account(drawn.spec), drawn.spec.action_ids
    now_us = START_US
    for context, facts, ask, policy, draw, passed, _ in steps:
        now_us += round(passed * 1e6)
        asked = None if ask is None else [ids[i] for i in ask if i < len(ids)] or None
        offer = account.offered(context, asked, np.array(policy[: len(ids)]), draw)
        grid = [offer._replace(draw=u) for u in np.arange(0.5, 400) / 400]
        seen: dict[str, float] = {}
        for one in grid:
            choice = account.choose(one, facts, now_us)
            assert seen.setdefault(choice.action, choice.probability) == choice.probability
        assert all(probability > 0 for probability in seen.values())
        assert sum(seen.values()) <= 1 + 1e-9
        # What a grid of draws cannot tell from nothing is all that may be missing.
        assert sum(seen.values()) >= 1 - len(ids) / 400
        account.serve(offer, facts, now_us)


CAPPED = {
    "caps": [{"name": "once", "actions": ["a2"], "at_most": 1, "window_seconds": 60}],
    "safe_action": "a0",
}


CHI_SQUARE = {2: 13.816, 3: 16.266}
"""What it exceeds once in a thousand times, by degrees of freedom."""


@pytest.mark.parametrize("used", [False, True])
def test_a_hundred_thousand_draws_are_as_often_as_they_say(used: bool) -> None:
    spec = _spec(CAPPED)
    account = Account(spec)
    policy = np.array([0.45, 0.05, 0.3, 0.2])
    if used:
        account.count("a2", START_US)
    draws = np.random.default_rng(20_261_122).random(100_000)
    offer = account.offered({}, None, policy, 0.0)
    seen: dict[str, int] = dict.fromkeys(spec.action_ids, 0)
    said: dict[str, float] = {}
    for draw in draws:
        choice = account.choose(offer._replace(draw=float(draw)), NEWCOMER, START_US + 1)
        seen[choice.action] += 1
        said[choice.action] = choice.probability
    assert sum(said.values()) == pytest.approx(1, abs=1e-12)
    assert ("a2" in said) is not used
    assert sum(seen[action] for action in said) == len(draws)
    expected = {action: said[action] * len(draws) for action in said}
    off = sum((seen[action] - one) ** 2 / one for action, one in expected.items())
    assert off < CHI_SQUARE[len(said) - 1]


def test_a_policy_that_wants_nothing_that_is_left_is_replaced_by_the_fallback() -> None:
    account = Account(_spec(CAPPED))
    account.count("a2", START_US)
    offer = account.offered({}, None, np.array([0.0, 0.0, 1.0, 0.0]), 0.3)
    choice = account.serve(offer, NEWCOMER, START_US + 1)
    assert choice == Choice("a3", 1.0, UNSOUND, ("once",), ("a0", "a1", "a3"))


def _spec(guardrails: dict[str, Any]) -> WorkflowSpec:
    return WorkflowSpec.model_validate(
        {
            "schema": 1,
            "workflow": "few",
            "actions": [{"id": f"a{i}"} for i in range(4)],
            "guardrails": guardrails,
            "fallback": {"action": "a3"},
            "adaptation": {"target": 0.5},
        }
    )


def _lawful(
    drawn: Drawn,
    context: dict[str, Any],
    facts: Facts,
    history: list[tuple[str, float]],
    now: float,
) -> tuple[set[str], dict[str, set[str]]]:
    """The actions that no rule is against, and what each rule takes away."""
    ids = drawn.spec.action_ids
    against = {
        name: {one for one in ids if forbids(context, facts, one)}
        for name, forbids in drawn.forbidden.items()
    }
    for name, (actions, every, when) in drawn.due.items():
        lately = any(one in actions and now - at < every for one, at in history)
        against[name] = set(ids) - actions if when(context, facts) and not lately else set()
    for name, (actions, most, window) in drawn.caps.items():
        uses = sum(one in actions and now - at < window for one, at in history)
        against[name] = set(actions) if uses >= most else set()
    return set(ids).difference(*against.values()), against
