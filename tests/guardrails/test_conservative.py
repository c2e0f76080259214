"""The conservative rule keeps its promise, whatever the policy, and costs a good one little."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from contract.adaptation import cohort_adaptation, gap_target
from contract.safety import Conservative
from guardrails.conservative import Spent, expected_at_least, may_deviate

FALLBACK = 0.4
RULE = Conservative(alpha=0.1, credit=8.0, level=0.95)
SEED = 20_261_122

Array = NDArray[np.float64]
Policy = Callable[[int, Array, Array], Array]
"""The mean reward `[B]` that a policy's deviation has now, of (t, N, R) `[B]`."""


class Accounts:
    """B accounts under the rule, at once. Rewards are coins, so that R is a whole number."""

    def __init__(self, size: int, rule: Conservative, fallback: float, steps: int) -> None:
        self.rule, self.fallback = rule, fallback
        self.fallbacks, self.deviations = np.zeros(size), np.zeros(size)
        self.earned = np.zeros(size, np.int64)
        self._bound = np.array([expected_at_least(float(r), rule.level) for r in range(steps + 1)])

    def may_deviate(self) -> NDArray[np.bool_]:
        """`guardrails.conservative.may_deviate` for each: a test compares the two."""
        decided = self.fallbacks + self.deviations + 1
        owed = (1 - self.rule.alpha) * self.fallback * decided
        have = self.fallback * self.fallbacks + self.rule.credit
        allowed: NDArray[np.bool_] = have + self._bound[self.earned] >= owed
        return allowed

    def served(self, deviates: NDArray[np.bool_]) -> None:
        self.deviations += deviates
        self.fallbacks += ~deviates


@given(
    st.integers(0, 300),
    st.integers(0, 300),
    st.integers(0, 300),
    st.floats(0.01, 0.9),
    st.floats(0, 20),
)
def test_the_rule_for_many_is_the_rule(
    fallbacks: int, deviations: int, earned: int, alpha: float, credit: float
) -> None:
    rule = Conservative(alpha=alpha, credit=credit, level=0.9)
    many = Accounts(1, rule, 0.37, 300)
    many.fallbacks[:], many.deviations[:], many.earned[:] = fallbacks, deviations, earned
    one = may_deviate(Spent(fallbacks, deviations, float(earned)), rule, 0.37)
    assert bool(many.may_deviate()[0]) is one


def trickster(rng: np.random.Generator, size: int) -> Policy:
    """Policies that are bad in every way: steadily, from a moment on, until nobody trusts them, or
    exactly while they are trusted."""
    kind = rng.integers(0, 4, size)
    level = rng.uniform(0, FALLBACK, size)
    turn = rng.integers(5, 120, size)

    def mean(t: int, deviations: Array, earned: Array) -> Array:
        early = deviations < turn
        ahead = earned > FALLBACK * deviations
        means = np.where(kind == 0, level, 0.0)
        means = np.where((kind == 1) & early, 0.9, means)
        means = np.where((kind == 2) & ~early, 0.9, means)
        return np.where((kind == 3) & ~ahead, 0.6, means)

    return mean


def played(ruled: bool, delay: int) -> Array:
    """How far the expected cumulative reward of 2,000 bad policies was above its bar, at the lowest
    over 1,000 decisions, `[B]`."""
    size, steps = 2_000, 1_000
    rng = np.random.default_rng(SEED)
    mean_of = trickster(rng, size)
    accounts = Accounts(size, RULE, FALLBACK, steps)
    expected, lowest = np.zeros(size), np.full(size, np.inf)
    coming: list[NDArray[np.int64]] = []
    for t in range(steps):
        deviates = accounts.may_deviate() if ruled else np.ones(size, np.bool_)
        means = mean_of(t, accounts.deviations, accounts.earned.astype(float))
        accounts.served(deviates)
        coming.append(np.where(deviates, rng.random(size) < means, 0).astype(np.int64))
        if len(coming) > delay:
            accounts.earned += coming.pop(0)
        expected += np.where(deviates, means, FALLBACK)
        bar = (1 - RULE.alpha) * FALLBACK * (t + 1) - RULE.credit
        lowest = np.minimum(lowest, expected - bar)
    return lowest


@pytest.mark.parametrize("delay", [0, 10])
def test_two_thousand_bad_policies_stay_above_the_fallback_s_share_minus_the_credit(
    delay: int,
) -> None:
    lowest = played(ruled=True, delay=delay)
    assert (lowest < -1e-9).mean() <= 1 - RULE.level
    # They would not by themselves, and the rule lets them go as far as it may.
    assert (played(ruled=False, delay=delay) < -1e-9).mean() > 0.5
    assert (lowest < 1).mean() > 0.1


def thompson(
    size: int, ruled: bool, rng: np.random.Generator, steps: int = 200, delay: int = 0
) -> tuple[Array, float]:
    """The cohort's expected reward `[T]` of Thompson sampling on five arms, of which the first is
    the fallback, and that of the best arm."""
    means = rng.random((size, 5))
    means[:, 0] = FALLBACK
    wins, pulls = np.zeros((size, 5)), np.zeros((size, 5))
    accounts = Accounts(size, RULE, FALLBACK, steps)
    rows, curve = np.arange(size), np.zeros(steps)
    coming: list[tuple[NDArray[np.int64], NDArray[np.bool_]]] = []
    for t in range(steps):
        action = rng.beta(1 + wins, 1 + pulls - wins).argmax(axis=1)
        if ruled:
            action = np.where(accounts.may_deviate(), action, 0)
        accounts.served(action != 0)
        curve[t] = means[rows, action].mean()
        coming.append((action, rng.random(size) < means[rows, action]))
        if len(coming) > delay:
            was, won = coming.pop(0)
            wins[rows, was] += won
            pulls[rows, was] += 1
            accounts.earned += np.where(was != 0, won, 0).astype(np.int64)
    return curve, float(means.max(axis=1).mean())


@pytest.mark.parametrize("delay", [0, 5])
def test_a_good_policy_loses_at_most_ten_interactions_of_adaptation(delay: int) -> None:
    adapted = []
    for ruled in (False, True):
        curve, best = thompson(4_000, ruled, np.random.default_rng(SEED), delay=delay)
        adapted.append(cohort_adaptation(curve, gap_target(FALLBACK, best)))
    without, under_rule = adapted
    assert without is not None
    assert under_rule is not None
    assert under_rule - without <= 10


def test_who_always_earned_is_free_and_who_never_did_trickles_on() -> None:
    rule = Conservative(alpha=0.1, credit=2.0, level=0.95)
    assert may_deviate(Spent(0, 1_000, 900.0), rule, FALLBACK)
    assert not may_deviate(Spent(0, 10, 0.0), rule, FALLBACK)
    spent, deviated = Spent(), 0
    for _ in range(1_000):
        may = may_deviate(spent, rule, FALLBACK)
        deviated += may
        spent = Spent(spent.fallbacks + (not may), spent.deviations + may, 0.0)
    # αμ a decision of the fallback's is paid in, (1 − α)μ a deviation paid out.
    assert deviated == pytest.approx(2.0 / 0.36 + 0.1 * 1_000, abs=3)


@given(st.floats(0, 500), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_the_bound_is_below_what_was_earned_and_grows_with_it(earned: float, level: float) -> None:
    bound = expected_at_least(earned, level)
    assert 0 <= bound <= earned
    assert expected_at_least(earned + 1, level) >= bound
    assert expected_at_least(earned, 0.999) <= bound + 1e-9


def test_the_bound_holds_for_all_times_at_once() -> None:
    """10,000 runs of coins whose mean the past decides: the bound is passed by at most 5 %."""
    rng = np.random.default_rng(SEED)
    size, steps = 10_000, 400
    table = np.array([expected_at_least(float(r), 0.95) for r in range(steps + 1)])
    earned, owed = np.zeros(size, np.int64), np.zeros(size)
    passed = np.zeros(size, np.bool_)
    for _ in range(steps):
        means = np.where(earned > owed, 0.05, 0.5)
        owed += means
        earned += rng.random(size) < means
        passed |= table[earned] > owed
    assert passed.mean() <= 0.05
