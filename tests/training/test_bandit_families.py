"""Drifting, delayed, batched and Gaussian bandits: what a trial is, and which are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from training.tasks.bandit_trials import BanditTrials
from training.tasks.bandits import BernoulliBandits
from training.tasks.drift import CHANGE_PROBABILITY, PACE, Drift
from training.tasks.feedback import known_before
from training.tasks.gaussian_bandits import GaussianBandits

FAMILIES = pytest.mark.parametrize("family", [BernoulliBandits, GaussianBandits])


@pytest.mark.parametrize(
    ("delay", "batch", "known"),
    [
        (0, 1, [0, 1, 2, 3, 4, 5, 6]),
        (2, 1, [0, 0, 0, 1, 2, 3, 4]),
        (0, 3, [0, 0, 0, 3, 3, 3, 6]),
        (2, 2, [0, 0, 0, 0, 2, 2, 4]),
        (6, 7, [0, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_feedback_is_known_after_its_delay_and_with_its_whole_batch(
    delay: int, batch: int, known: list[int]
) -> None:
    assert known_before(7, delay, batch).tolist() == known
    task = GaussianBandits(2, 3, 7, np.random.default_rng(0), delay=delay, batch=batch)
    assert task.known.tolist() == known


@FAMILIES
@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("k", {"k": 0}),
        ("n", {"n": 0}),
        ("trials", {"trials": 0}),
        ("delay", {"delay": 9}),
        ("delay", {"delay": -1}),
        ("batch", {"batch": 0}),
        ("batch", {"batch": 10}),
        ("drift", {"drift": "fast"}),
    ],
)
def test_an_impossible_family_is_refused_by_the_name_of_its_field(
    family: type[BanditTrials], field: str, wrong: dict[str, Any]
) -> None:
    settings: dict[str, Any] = {"trials": 2, "k": 3, "n": 9, "rng": np.random.default_rng(0)}
    with pytest.raises(ValueError, match=f"^{field}: expected"):
        family(**(settings | wrong))


@FAMILIES
@pytest.mark.parametrize("drift", ["none", "change-points", "slow"])
def test_means_and_luck_are_the_same_whoever_plays(
    family: type[BanditTrials], drift: Drift
) -> None:
    first, second = (family(200, 4, 30, np.random.default_rng(1), drift=drift) for _ in range(2))
    first.reset()
    second.reset()
    same = np.arange(200) % 2 == 0
    for _ in range(30):
        np.testing.assert_array_equal(first.means, second.means)
        _, reward, *_ = first.step(np.zeros(200, int))
        _, other, *_ = second.step(np.where(same, 0, 3))
        np.testing.assert_array_equal(reward[same], other[same])


@FAMILIES
@pytest.mark.parametrize("drift", ["change-points", "slow"])
def test_drifting_means_stay_distributed_as_they_were_drawn(
    family: type[BanditTrials], drift: Drift
) -> None:
    task = family(5_000, 4, 100, np.random.default_rng(2), drift=drift)
    task.reset()
    drawn = np.sort(task.means, axis=None)
    for _ in range(100):
        task.step(np.zeros(5_000, int))
    moved = np.sort(task.means, axis=None)
    assert np.abs(drawn - moved).mean() < 0.03 * drawn.std()
    if family is BernoulliBandits:
        assert moved[0] >= 0
        assert moved[-1] <= 1


@FAMILIES
def test_change_points_redraw_all_arms_as_often_as_declared(family: type[BanditTrials]) -> None:
    task = family(5_000, 3, 50, np.random.default_rng(3), drift="change-points")
    task.reset()
    changes = 0
    for _ in range(50):
        before = task.means.copy()
        task.step(np.zeros(5_000, int))
        moved = task.means != before
        assert (moved.all(axis=1) == moved.any(axis=1)).all()
        changes += int(moved.all(axis=1).sum())
    low, high = CHANGE_PROBABILITY
    assert changes / 250_000 == pytest.approx((high - low) / np.log(high / low), rel=0.05)


@FAMILIES
def test_slow_drift_steps_are_as_long_as_declared(family: type[BanditTrials]) -> None:
    task = family(20_000, 3, 1, np.random.default_rng(4), drift="slow")
    task.reset()
    before = task.means.copy()
    task.step(np.zeros(20_000, int))
    low, high = PACE
    expected = np.sqrt((high**2 - low**2) / (2 * np.log(high / low)))
    steps = (task.means - before) / before.std()
    assert steps.std() == pytest.approx(expected, rel=0.05)


def test_choices_go_their_own_way_in_a_drifting_family() -> None:
    task = BernoulliBandits(
        1_000, 3, 20, np.random.default_rng(5), choice_share=0.5, drift="change-points"
    )
    task.reset()
    choices = np.isclose(task.means.sum(axis=1), 1.0, atol=1e-9)
    for _ in range(20):
        task.step(np.zeros(1_000, int))
    np.testing.assert_array_equal(np.isclose(task.means.sum(axis=1), 1.0, atol=1e-9), choices)


def test_gaussian_arms_are_standard_normal_and_pay_their_mean_and_noise_of_1() -> None:
    task = GaussianBandits(20_000, 3, 1, np.random.default_rng(6))
    task.reset()
    assert task.means.mean() == pytest.approx(0.0, abs=0.02)
    assert task.means.std() == pytest.approx(1.0, abs=0.02)
    means = task.means[:, 1].copy()
    _, reward, *_ = task.step(np.ones(20_000, int))
    slope, intercept = np.polyfit(means, reward, 1)
    assert slope == pytest.approx(1.0, abs=0.03)
    assert intercept == pytest.approx(0.0, abs=0.03)
    assert (reward - means).std() == pytest.approx(1.0, abs=0.03)


def test_a_gaussian_reward_is_shown_clipped_to_what_was_declared() -> None:
    task = GaussianBandits(2, 3, 1, np.random.default_rng(7))
    shown = task.shown(np.array([-7.0, -5.0, 0.0, 2.5, 9.0]))
    assert shown.tolist() == [-1.0, -1.0, 0.0, 0.5, 1.0]
    assert shown.dtype == np.float32
