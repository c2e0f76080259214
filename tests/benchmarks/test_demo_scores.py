"""The demo's numbers, on rewards whose means are known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.demo_scores import to_json
from training.household_scores import FEWEST_HOUSEHOLDS, cohort_target, score_family


def test_a_mean_is_over_purchases_and_its_error_over_households() -> None:
    active = np.array([[True, True], [True, False], [True, False]])
    policy = np.array([[[1, 1], [1, 0], [0, 0]]], float)
    score = score_family("catsup", active, policy, {}, target=0.9)
    assert score.policy.reward.mean == pytest.approx(3 / 4)
    residuals = np.array([2 - 0.75 * 3, 1 - 0.75 * 1])
    assert score.policy.reward.se == pytest.approx(np.sqrt(2 * (residuals**2).sum()) / 4)
    assert score.policy.household_reward.mean == pytest.approx((2 / 3 + 1) / 2)


def test_a_difference_is_policy_minus_baseline_within_each_household() -> None:
    rng = np.random.default_rng(0)
    active = np.ones((20, 30), bool)
    easy = rng.random(30)
    policy = (rng.random((3, 20, 30)) < easy).astype(float)
    score = score_family("catsup", active, policy, {"same": policy, "worse": policy * 0.5}, 0.9)
    assert score.baselines["same"].difference.mean == 0
    assert score.baselines["same"].difference.se == 0
    worse = score.baselines["worse"]
    assert worse.difference.mean == pytest.approx(score.policy.reward.mean / 2)
    assert worse.difference.mean == pytest.approx(score.policy.reward.mean - worse.reward.mean)


def test_the_error_knows_households_not_seeds() -> None:
    """The same seed played ten times over is no more evidence than once."""
    rng = np.random.default_rng(0)
    active = np.ones((10, 40), bool)
    once = (rng.random((1, 10, 40)) < rng.random(40)).astype(float)
    many = np.repeat(once, 10, axis=0)
    first, tenfold = (score_family("c", active, r, {}, 0.9).policy.reward for r in (once, many))
    assert tenfold.se == pytest.approx(first.se)


def test_adaptation_is_the_first_interaction_whose_cohort_mean_reaches_the_target() -> None:
    active = np.ones((3, 20), bool)
    policy = np.zeros((1, 3, 20))
    policy[0, 1, :12] = 1
    policy[0, 2] = 1
    adapted, never = (score_family("c", active, policy, {}, t).policy for t in (0.6, 1.1))
    assert adapted.adaptation_interactions == 2
    assert never.adaptation_interactions is None


def test_a_curve_ends_where_too_few_households_still_buy() -> None:
    active = np.ones((3, FEWEST_HOUSEHOLDS), bool)
    active[2, 0] = False
    policy = active[None].astype(float)
    assert score_family("c", active, policy, {}, 0.9).policy.curve.mean.size == 2


def test_the_numbers_have_the_documented_shape() -> None:
    active = np.ones((3, 4), bool)
    rewards = np.ones((1, 3, 4))
    score = score_family("catsup", active, rewards, {"uniform": rewards * 0}, 2.0)
    assert to_json([score], 100.0, 1.5, 9.0) == {
        "families": [
            {
                "family": "catsup",
                "households": 4,
                "reward": 1.0,
                "reward_se": 0.0,
                "baselines": {"uniform": {"reward": 0.0, "difference": 1.0, "difference_se": 0.0}},
                "adaptation_interactions": None,
            }
        ],
        "decisions_per_s": 100.0,
        "p50_ms": 1.5,
        "p99_ms": 9.0,
    }


def test_a_cohort_is_adapted_when_four_fifths_of_the_way_to_its_favourites_are_done() -> None:
    bought = np.array([[0, 3], [0, 3], [1, -1], [0, -1]])  # favourites: 3 of 4, and 2 of 2
    assert cohort_target(bought, brands=4) == pytest.approx(0.25 + 0.8 * (5 / 6 - 0.25))
