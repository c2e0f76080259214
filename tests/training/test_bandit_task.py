"""Bernoulli bandits: what a trial is, and which families are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from training.tasks.bandits import BernoulliBandits


def bandits(
    trials: int = 1_000, k: int = 4, n: int = 3, seed: int = 0, choice_share: float = 0.0
) -> BernoulliBandits:
    return BernoulliBandits(trials, k, n, np.random.default_rng(seed), choice_share)


def slope(means: NDArray[Any], rewards: NDArray[Any]) -> float:
    """Of the mean reward in ten equally full bins of the arm's mean, against the bin's own mean."""
    bins = np.array_split(np.argsort(means), 10)
    arms = [means[trials].mean() for trials in bins]
    return float(np.polyfit(arms, [rewards[trials].mean() for trials in bins], 1)[0])


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("k", {"k": 1}),
        ("k", {"k": 51}),
        ("n", {"n": 0}),
        ("trials", {"trials": 0}),
        ("choice_share", {"choice_share": 1.5}),
        ("choice_share", {"choice_share": float("nan")}),
    ],
)
def test_an_impossible_family_is_refused_by_the_name_of_its_field(
    field: str, wrong: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=f"^{field}: expected"):
        bandits(**wrong)


@pytest.mark.parametrize("k", [2, 50])
def test_the_smallest_and_the_largest_family_can_be_played(k: int) -> None:
    task = bandits(trials=2, k=k, n=1, choice_share=0.5)
    task.reset()
    _, reward, terminated, truncated, info = task.step(np.array([0, k - 1]))
    assert set(reward) <= {0.0, 1.0}
    assert terminated.all()
    assert not truncated.any()
    assert info["trial_over"]


def test_every_pull_is_an_episode_and_the_trial_ends_after_n_of_them() -> None:
    task = bandits(n=3)
    task.reset()
    over = []
    for _ in range(3):
        _, _, terminated, _, info = task.step(np.zeros(1_000, int))
        assert terminated.all()
        over.append(info["trial_over"])
    assert over == [False, False, True]
    with pytest.raises(RuntimeError, match="reset"):
        task.step(np.zeros(1_000, int))


def test_the_same_seed_gives_the_same_tasks_and_the_same_luck_to_any_player() -> None:
    first, second = bandits(choice_share=0.5), bandits(choice_share=0.5)
    first.reset()
    second.reset()
    np.testing.assert_array_equal(first.means, second.means)
    same = np.arange(1_000) % 2 == 0
    _, reward, *_ = first.step(np.zeros(1_000, int))
    _, other, *_ = second.step(np.where(same, 0, 3))
    np.testing.assert_array_equal(reward[same], other[same])
    np.testing.assert_array_equal(first.means, second.means)


def test_uniform_arms_have_uniform_means_and_pay_at_them() -> None:
    task = bandits(trials=20_000, n=1)
    task.reset()
    assert task.means.mean() == pytest.approx(0.5, abs=0.01)
    assert task.means.var() == pytest.approx(1 / 12, abs=0.005)
    means = task.means[:, 2].copy()
    _, reward, *_ = task.step(np.full(20_000, 2))
    assert slope(means, reward) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("k", [2, 4, 50])
def test_a_choices_means_sum_to_one_at_every_step(k: int) -> None:
    task = bandits(k=k, n=20, choice_share=1.0)
    task.reset()
    for _ in range(20):
        assert np.isfinite(task.means).all()
        assert (task.means >= 0).all()
        np.testing.assert_allclose(task.means.sum(axis=1), 1.0)
        task.step(np.zeros(1_000, int))


def test_a_choosing_trial_pays_at_its_means_and_its_path_ignores_the_player() -> None:
    first = bandits(trials=20_000, n=10, choice_share=1.0)
    second = bandits(trials=20_000, n=10, choice_share=1.0)
    first.reset()
    second.reset()
    for step in range(10):
        means = first.means[:, 1].copy()
        _, reward, *_ = first.step(np.ones(20_000, int))
        second.step(np.full(20_000, step % 4))
        assert slope(means, reward) == pytest.approx(1.0, abs=0.05)
        np.testing.assert_array_equal(first.means, second.means)


def test_the_share_of_choices_is_the_one_asked_for() -> None:
    task = bandits(trials=10_000, choice_share=0.25)
    task.reset()
    share = np.isclose(task.means.sum(axis=1), 1.0, atol=1e-9).mean()
    assert share == pytest.approx(0.25, abs=0.02)


def test_a_seed_still_draws_the_trials_that_earlier_figures_were_measured_on() -> None:
    """Recorded when the first bundle's report was written."""
    task = bandits(trials=20, k=4, n=5, seed=7, choice_share=0.5)
    task.reset()
    uniform = [0.72934, 0.169161, 0.088292, 0.731026]
    assert task.means[0] == pytest.approx([0.07184, 0.500054, 0.180509, 0.247597], abs=1e-6)
    assert task.means[1] == pytest.approx(uniform, abs=1e-6)
    rewards = [task.step(np.arange(20) % 4)[1].astype(int) for _ in range(3)]
    assert "".join(map(str, rewards[0])) == "01101101101010100100"
    assert "".join(map(str, rewards[2])) == "00101101111011001000"
    assert task.means[0] == pytest.approx([0.011107, 0.922702, 0.027909, 0.038282], abs=1e-6)
    assert task.means[1] == pytest.approx(uniform, abs=1e-6)
