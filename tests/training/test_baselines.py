"""The bandit algorithms, held to published and exact figures and to what each one promises.

Published: Duan et al. (2016), table 1, 1,000 trials. Its standard errors are not printed: they are
taken to be those of our own trials.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from training.baselines import (
    EPSILON,
    UCB1_EXPLORATION,
    Algorithm,
    GittinsTable,
    History,
    NormalBelief,
    bayes_optimal,
    epsilon_greedy,
    fixed,
    forgetting,
    gittins_rule,
    greedy,
    optimistic_thompson,
    play,
    posterior_sampling,
    thompson,
    ucb1,
    ucb1_classic,
    uniform,
    win_stay,
)
from training.baselines.gittins import compute
from training.beta_prior import BetaPrior, fit_beta_prior, log_likelihood


def bandits(trials: int, n: int, k: int, seed: int = 0) -> NDArray[np.float64]:
    """Outcomes `[n, B, k]`, arm means uniform(0, 1)."""
    rng = np.random.default_rng(seed)
    means = rng.random((trials, k))
    return (rng.random((n, trials, 1)) < means).astype(np.float64)


def totals(algorithm: Algorithm, outcomes: NDArray[np.float64]) -> NDArray[np.float64]:
    earned: NDArray[np.float64] = play(algorithm, outcomes, np.random.default_rng(1)).sum(axis=0)
    return earned


@pytest.mark.parametrize(
    ("algorithm", "at_100_5", "at_100_50"),
    [
        (uniform, 49.9, 49.8),
        (thompson(), 74.7, 64.5),
        (ucb1(), 78.0, 84.3),
        (epsilon_greedy(), 75.4, 78.3),
        (greedy(), 74.8, 78.0),
    ],
    ids=["random", "ts", "ucb1", "epsilon_greedy", "greedy"],
)
def test_the_published_figures_are_reproduced(
    algorithm: Algorithm, at_100_5: float, at_100_50: float
) -> None:
    for k, published in ((5, at_100_5), (50, at_100_50)):
        reproduces(published, totals(algorithm, bandits(trials=3_000, n=100, k=k)))


@pytest.mark.parametrize(
    ("n", "k", "published"), [(10, 5, 6.5), (10, 10, 6.2), (10, 50, 5.5), (100, 5, 77.9)]
)
def test_ots_earns_what_was_published(n: int, k: int, published: float) -> None:
    reproduces(published, totals(optimistic_thompson(), bandits(trials=1_000, n=n, k=k)))


def reproduces(published: float, earned: NDArray[np.float64]) -> None:
    """To the standard error of both, and the rounding of the one that is printed."""
    se = earned.std() * np.hypot(1 / np.sqrt(earned.size), 1 / np.sqrt(1_000))
    assert abs(earned.mean() - published) < 3 * se + 0.05


@pytest.mark.parametrize(("k", "optimum"), [(5, 6.660), (10, 6.714), (50, 6.714)])
def test_the_optimum_of_ten_pulls_is_computed_exactly(k: int, optimum: float) -> None:
    assert bayes_optimal(10, k) == pytest.approx(optimum, abs=5e-4)


def test_the_optimum_of_two_pulls_is_the_one_found_by_hand() -> None:
    """A first success, 1/2, is pulled again at 2/3; after a failure another arm pays 1/2."""
    assert bayes_optimal(2, 2) == pytest.approx(1 / 2 + 1 / 2 * 2 / 3 + 1 / 2 * 1 / 2)
    assert bayes_optimal(2, 1) == pytest.approx(1.0)


def test_nobody_is_above_the_optimum_and_gittins_is_at_it() -> None:
    outcomes = bandits(trials=20_000, n=10, k=5)
    table = GittinsTable(10, compute(10))
    for algorithm in (gittins_rule(10, table), ucb1(), greedy(), optimistic_thompson()):
        earned = totals(algorithm, outcomes)
        se = earned.std() / np.sqrt(earned.size)
        assert earned.mean() < bayes_optimal(10, 5) + 3 * se
    index = totals(gittins_rule(10, table), outcomes)
    assert index.mean() > bayes_optimal(10, 5) - 3 * index.std() / np.sqrt(index.size)


@pytest.mark.parametrize("n", [0, 15])
def test_an_optimum_that_cannot_be_computed_is_refused(n: int) -> None:
    with pytest.raises(ValueError, match="n: expected 1 to 14"):
        bayes_optimal(n, 5)


def test_epsilon_greedy_explores_as_much_as_serves_it_best() -> None:
    """At n = 100 to 0.2, which is 0.3 %; those that explore much are far below."""
    outcomes = bandits(trials=4_000, n=100, k=10)
    best = totals(epsilon_greedy(EPSILON), outcomes)
    for epsilon in (0.0, 0.01, 0.05, 0.1, 0.3):
        difference = best - totals(epsilon_greedy(epsilon), outcomes)
        assert difference.mean() > -0.2, epsilon
    assert difference.mean() > 2


def test_ots_with_one_sample_is_thompson_sampling_and_with_many_explores_less() -> None:
    history = History.blank(2_000, 2)
    history.pulls[:] = [20, 10]
    history.rewards[:] = [12, 5]

    def explored(algorithm: Algorithm) -> float:
        return float((algorithm(history, np.random.default_rng(0)) == 1).mean())

    assert explored(optimistic_thompson(1)) == explored(thompson())
    assert explored(optimistic_thompson(64)) < explored(thompson()) - 0.1


def test_gaussian_posterior_sampling_pulls_an_arm_as_often_as_it_is_the_better_one() -> None:
    history = History.blank(20_000, 2)
    history.pulls[:] = [3, 0]
    history.rewards[:] = [2.0, 0.0]
    rng = np.random.default_rng(1)
    better = 0.5 + rng.normal(0, 0.5, 100_000) > rng.normal(0, 1, 100_000)
    pulled = posterior_sampling(NormalBelief())(history, np.random.default_rng(0)) == 0
    assert pulled.mean() == pytest.approx(better.mean(), abs=0.015)


def test_what_is_forgotten_fades_and_what_is_not_is_what_the_algorithm_would_do() -> None:
    outcomes = bandits(trials=300, n=40, k=3)
    same = totals(forgetting(greedy(), 1.0), outcomes)
    np.testing.assert_array_equal(same, totals(greedy(), outcomes))
    turned = outcomes.copy()
    turned[20:] = 1 - turned[20:]
    lasting, fading = (totals(forgetting(greedy(), d), turned) for d in (1.0, 0.8))
    assert fading.mean() > lasting.mean() + 1


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
