"""The bandit algorithms, held to published figures and to what each one promises.

Published: Duan et al. (2016), table 1, n = 100, k = 5, 1,000 trials. Its standard errors are not
printed; 17 is about a trial's standard deviation for every algorithm here.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from training.baselines import (
    UCB1_EXPLORATION,
    Algorithm,
    History,
    fixed,
    play,
    thompson,
    ucb1,
    ucb1_classic,
    uniform,
    win_stay,
)
from training.beta_prior import BetaPrior, fit_beta_prior, log_likelihood

PUBLISHED_SE = 17 / np.sqrt(1_000)


def bandits(trials: int, n: int, k: int, seed: int = 0) -> NDArray[np.float64]:
    """Outcomes `[n, B, k]`, arm means uniform(0, 1)."""
    rng = np.random.default_rng(seed)
    means = rng.random((trials, k))
    return (rng.random((n, trials, 1)) < means).astype(np.float64)


def totals(algorithm: Algorithm, outcomes: NDArray[np.float64]) -> NDArray[np.float64]:
    earned: NDArray[np.float64] = play(algorithm, outcomes, np.random.default_rng(1)).sum(axis=0)
    return earned


@pytest.mark.parametrize(
    ("algorithm", "published"),
    [(uniform, 49.9), (thompson(), 74.7), (ucb1(), 78.0)],
    ids=["random", "ts", "ucb1"],
)
def test_the_published_figure_is_reproduced(algorithm: Algorithm, published: float) -> None:
    earned = totals(algorithm, bandits(trials=4_000, n=100, k=5))
    se = np.hypot(earned.std() / np.sqrt(earned.size), PUBLISHED_SE)
    assert abs(earned.mean() - published) < 3 * se


@pytest.mark.parametrize("k", [5, 10])
def test_ucb1_explores_as_much_as_serves_it_best(k: int) -> None:
    """Paired on the same outcomes; an opponent must not be weak."""
    outcomes = bandits(trials=4_000, n=100, k=k)
    best = totals(ucb1(UCB1_EXPLORATION), outcomes)
    for c in (0.1, 0.15, 0.25, 0.3, 1.0):
        assert best.mean() > totals(ucb1(c), outcomes).mean(), c


def test_ucb1_as_first_published_is_far_behind_the_tuned_one() -> None:
    outcomes = bandits(trials=2_000, n=100, k=5)
    assert totals(ucb1_classic, outcomes).mean() < totals(ucb1(), outcomes).mean() - 10


def test_ucb1_breaks_ties_at_random() -> None:
    actions = ucb1()(History.blank(4_000, 4), np.random.default_rng(0))
    assert np.bincount(actions) == pytest.approx([1_000] * 4, abs=4 * np.sqrt(750))


def test_win_stay_keeps_after_a_win() -> None:
    history = History.blank(100, 4)
    actions = np.arange(100) % 4
    history.observe(actions, np.ones(100))
    assert np.array_equal(win_stay(history, np.random.default_rng(0)), actions)


def test_win_stay_moves_to_any_other_arm_equally_likely_after_a_loss() -> None:
    history = History.blank(6_000, 4)
    history.observe(np.full(6_000, 2), np.zeros(6_000))
    counts = np.bincount(win_stay(history, np.random.default_rng(0)), minlength=4)
    assert counts[2] == 0
    assert counts[[0, 1, 3]] == pytest.approx([2_000] * 3, abs=4 * np.sqrt(6_000 * 2 / 9))


def test_an_algorithm_sees_only_the_outcome_of_the_arm_it_pulled() -> None:
    outcomes = bandits(trials=50, n=30, k=4)
    changed = outcomes.copy()
    changed[:, :, 1:] = 1 - changed[:, :, 1:]
    rng = np.random.default_rng
    assert np.array_equal(play(fixed(0), outcomes, rng(0)), play(fixed(0), changed, rng(0)))


def test_a_fixed_arm_may_differ_from_account_to_account() -> None:
    outcomes = bandits(trials=3, n=5, k=4)
    earned = play(fixed([2, 0, 1]), outcomes, np.random.default_rng(0))
    assert np.array_equal(earned, outcomes[:, [0, 1, 2], [2, 0, 1]])


def test_thompson_sampling_with_a_prior_per_arm_starts_where_the_prior_points() -> None:
    prior_wins = np.tile([1.0, 50.0, 1.0], (200, 1))
    actions = thompson(prior_wins, 10.0)(History.blank(200, 3), np.random.default_rng(0))
    assert (actions == 1).mean() > 0.95


def test_the_fitted_prior_recovers_the_one_that_made_the_counts() -> None:
    rng = np.random.default_rng(0)
    trials = rng.integers(8, 40, 5_000)
    successes = rng.binomial(trials, rng.beta(0.4, 1.2, 5_000))
    assert fit_beta_prior(successes, trials) == pytest.approx((0.4, 1.2), rel=0.1)


def test_no_neighbour_of_the_fitted_prior_is_likelier() -> None:
    rng = np.random.default_rng(1)
    trials = rng.integers(8, 40, 80)
    successes = rng.binomial(trials, rng.beta(0.5, 2.0, 80))
    alpha, beta = fit_beta_prior(successes, trials)
    best = log_likelihood(BetaPrior(alpha, beta), successes, trials)
    for up, down in ((1.01, 1), (0.99, 1), (1, 1.01), (1, 0.99), (1.01, 1.01), (0.99, 0.99)):
        assert log_likelihood(BetaPrior(alpha * up, beta * down), successes, trials) < best


@pytest.mark.parametrize("successes", [[0, 0, 0], [8, 8, 8], [4, 4, 4]])
def test_counts_without_a_likeliest_prior_still_give_a_finite_one(successes: list[int]) -> None:
    prior = fit_beta_prior(np.array(successes), np.full(3, 8))
    assert all(np.isfinite(prior))
    assert min(prior) > 0


def test_a_prior_cannot_be_fitted_to_nothing() -> None:
    with pytest.raises(ValueError, match="expected at least one"):
        fit_beta_prior(np.zeros(3, np.int64), np.zeros(3, np.int64))
