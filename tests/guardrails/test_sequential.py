"""The bounds hold at every look, and the e-values are e-values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from guardrails.rollouts.cohorts import Cohort, compare, strata, stratum
from guardrails.rollouts.sequential import log_sample_ratio_evidence, radius

ALPHA = 0.05


def test_the_bound_is_where_the_mixture_reaches_one_over_alpha() -> None:
    """Against the one-sided normal mixture written out as an integral (Robbins 1970)."""
    error, scale = 0.01, 0.03
    information = error**-2
    score = radius(error, ALPHA, scale) * information
    theta = np.linspace(0, 12 * scale, 200_001)
    density = 2 * np.exp(-0.5 * (theta / scale) ** 2) / (scale * math.sqrt(2 * math.pi))
    mixture = np.trapezoid(np.exp(theta * score - 0.5 * theta**2 * information) * density, theta)
    assert mixture == pytest.approx(1 / ALPHA, rel=1e-6)


def test_looking_at_every_step_crosses_no_more_often_than_alpha() -> None:
    """2,000 walks without a drift, looked at 2,000 times each, and how wide a fixed-time bound
    would have been wrong."""
    rng = np.random.default_rng(1)
    steps = np.arange(1, 2_001) * 50.0
    walks = np.cumsum(rng.normal(size=(2_000, len(steps))) * math.sqrt(50.0), axis=1) / steps
    bound = np.array([radius(information**-0.5, ALPHA, 0.03) for information in steps])
    crossed = (walks < -bound).any(axis=1).mean()
    once = (walks < -1.645 * steps**-0.5).any(axis=1).mean()
    assert crossed <= ALPHA < 0.3 < once


def test_no_error_means_no_knowledge() -> None:
    assert radius(0.0, ALPHA, 0.03) == math.inf
    assert radius(math.inf, ALPHA, 0.03) == math.inf


def test_uneven_cohorts_are_found_and_even_ones_rarely_accused() -> None:
    """1,000 cohorts drawn as they should be and looked at after every account; and one that is
    2 % off finds an end."""
    rng = np.random.default_rng(2)
    limit = -math.log(0.01)
    accused = 0
    for _ in range(300):
        drawn = np.cumsum(rng.random(2_000) < 0.1)
        looks = [log_sample_ratio_evidence(int(k), n, 0.1) for n, k in enumerate(drawn, 1)]
        accused += max(looks) >= limit
    assert accused <= 8  # 3 expected at most; 8 is 3 standard deviations above that
    assert log_sample_ratio_evidence(1_200, 10_000, 0.1) > limit
    assert log_sample_ratio_evidence(1_000, 10_000, 0.1) < 0


def accounts_of(
    rng: np.random.Generator, accounts: int, lift: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Interactions and rewards by age `[2, A]` of accounts that earn more as they get older."""
    own = rng.beta(4, 6, accounts)
    n = rng.integers(0, 6, (2, accounts)).astype(float)
    mean = np.clip(np.stack([own * 0.8, own * 1.2]) + lift, 0, 1)
    return n, rng.binomial(n.astype(int), mean).astype(float)


def cohort_of(n: NDArray[np.float64], y: NDArray[np.float64]) -> Cohort:
    cohort = Cohort.empty(len(n))
    nothing = np.zeros(len(n))
    for account in range(n.shape[1]):
        cohort.replace((nothing, nothing), (n[:, account], y[:, account]))
    return cohort


def test_the_standard_error_is_that_of_repeated_cohorts() -> None:
    """Interactions of one account go together: an error that took them for independent would be
    too small by a third here."""
    rng = np.random.default_rng(3)
    found = []
    for _ in range(300):
        one = compare(cohort_of(*accounts_of(rng, 80, 0.0)), cohort_of(*accounts_of(rng, 400, 0.0)))
        assert one is not None
        found.append(one)
    spread = np.std([one.difference for one in found])
    told = np.mean([one.standard_error for one in found])
    assert told == pytest.approx(spread, rel=0.12)
    assert abs(np.mean([one.difference for one in found])) < 3 * spread / math.sqrt(300)


def test_a_fresh_cohort_is_compared_with_the_young_not_with_the_adapted() -> None:
    """The same policy in both: the old control earns .6 of what it is asked, the young .2."""
    size = strata(1)
    young, old = stratum(0, 0), stratum(0, 50)
    rng = np.random.default_rng(4)
    candidate, control = Cohort.empty(size), Cohort.empty(size)
    for cohort, accounts, share_of_young in ((candidate, 300, 0.9), (control, 3_000, 0.1)):
        for _ in range(accounts):
            n, y = np.zeros(size), np.zeros(size)
            place, mean = (young, 0.2) if rng.random() < share_of_young else (old, 0.6)
            n[place], y[place] = 10, rng.binomial(10, mean)
            cohort.replace((np.zeros(size), np.zeros(size)), (n, y))
    found = compare(candidate, control)
    assert found is not None
    assert abs(found.difference) < 3 * found.standard_error < 0.05
    raw = candidate.y.sum() / candidate.n.sum() - control.y.sum() / control.n.sum()
    assert raw < -0.2


def test_sums_kept_by_and_by_are_those_of_all_at_once() -> None:
    rng = np.random.default_rng(5)
    n, y = accounts_of(rng, 50, 0.0)
    whole, by_and_by = cohort_of(n, y), Cohort.empty(2)
    nothing = np.zeros(2)
    for account in range(50):
        half = (n[:, account] // 2, np.minimum(y[:, account], n[:, account] // 2))
        by_and_by.replace((nothing, nothing), half)
        by_and_by.replace(half, (n[:, account], y[:, account]))
    for a, b in ((whole.n, by_and_by.n), (whole.nn, by_and_by.nn), (whole.yy, by_and_by.yy)):
        assert np.allclose(a, b)
    assert whole.accounts == by_and_by.accounts
    again = Cohort.from_bytes(by_and_by.to_bytes(), 2)
    assert np.array_equal(again.ny, by_and_by.ny)
    assert again.accounts == by_and_by.accounts
    other = cohort_of(*accounts_of(rng, 30, 0.1))
    together, turned = compare(whole + other, other), compare(other + whole, other)
    assert together is not None and together == turned
