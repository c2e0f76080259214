"""Tabular MDPs: what a trial is, who meets the same luck, and which families are refused."""

from __future__ import annotations

import numpy as np
import pytest

from training.tasks.mdps import ACTIONS, STATES, TabularMDPs, one_hot, shown_reward


def mdps(trials: int = 500, n: int = 2, seed: int = 0) -> TabularMDPs:
    return TabularMDPs(trials, n, np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("field", "trials", "n"), [("n", 1, 0), ("n", 1, -3), ("trials", 0, 1), ("trials", -1, 1)]
)
def test_an_impossible_family_is_refused_by_the_name_of_its_field(
    field: str, trials: int, n: int
) -> None:
    with pytest.raises(ValueError, match=f"^{field}: expected at least 1"):
        mdps(trials, n)


def test_every_tenth_step_ends_an_episode_and_the_next_one_starts_in_state_0() -> None:
    task = mdps()
    shown, _ = task.reset()
    np.testing.assert_array_equal(shown, one_hot(np.zeros(500, int)))
    ends = []
    for step in range(1, 21):
        shown, _, terminated, truncated, info = task.step(np.full(500, step % ACTIONS))
        np.testing.assert_array_equal(shown, one_hot(task.state))
        assert not truncated.any()
        assert info["trial_over"] == (step == 20)
        if terminated.all():
            ends.append(step)
            assert (task.state == 0).all()
            assert info["reached"].std() > 1, "the transition itself went anywhere"
        else:
            assert not terminated.any()
            np.testing.assert_array_equal(info["reached"], task.state)
    assert ends == [10, 20]
    with pytest.raises(RuntimeError, match="reset"):
        task.step(np.zeros(500, int))


def test_the_same_seed_gives_the_same_tasks_and_the_same_luck_to_any_player() -> None:
    first, second = mdps(), mdps()
    first.reset()
    second.reset()
    np.testing.assert_array_equal(first.means, second.means)
    np.testing.assert_array_equal(first.transitions, second.transitions)
    rng = np.random.default_rng(1)
    for _ in range(10):
        first.step(np.zeros(500, int))
        second.step(rng.integers(ACTIONS, size=500))
    _, reward, _, _, info = first.step(np.full(500, 3))
    _, other, _, _, there = second.step(np.full(500, 3))
    np.testing.assert_array_equal(reward, other)
    np.testing.assert_array_equal(info["reached"], there["reached"])


def test_another_seed_gives_other_tasks() -> None:
    first, second = mdps(), mdps(seed=1)
    first.reset()
    second.reset()
    assert (first.means != second.means).all()


def test_tasks_have_the_papers_moments() -> None:
    task = mdps(trials=4_000)
    task.reset()
    assert task.means.mean() == pytest.approx(1.0, abs=0.01)
    assert task.means.std() == pytest.approx(1.0, abs=0.01)
    np.testing.assert_allclose(task.transitions.sum(axis=-1), 1.0)
    # a flat Dirichlet over S states: mean 1/S, variance (S − 1) / (S² (S + 1))
    assert task.transitions.mean() == pytest.approx(1 / STATES)
    variance = (STATES - 1) / (STATES**2 * (STATES + 1))
    assert task.transitions.var() == pytest.approx(variance, rel=0.02)


def test_rewards_are_normal_around_their_means_and_states_follow_the_transitions() -> None:
    task = mdps(trials=40_000, n=1)
    task.reset()
    row = task.transitions[0, 0, 2]
    task.transitions[:, 0, 2] = row
    _, reward, _, _, info = task.step(np.full(40_000, 2))
    noise = reward - task.means[:, 0, 2]
    assert noise.mean() == pytest.approx(0.0, abs=0.02)
    assert noise.std() == pytest.approx(1.0, abs=0.02)
    seen = np.bincount(info["reached"], minlength=STATES) / 40_000
    np.testing.assert_allclose(seen, row, atol=0.01)


def test_a_reset_draws_new_tasks() -> None:
    task = mdps()
    task.reset()
    before = task.means
    task.reset()
    assert (task.means != before).all()


def test_clipping_to_the_declared_range_touches_fewer_than_one_reward_in_ten_thousand() -> None:
    task = mdps(trials=20_000, n=5)
    task.reset()
    best = task.means.argmax(axis=2)
    rows = np.arange(20_000)
    clipped = total = 0
    while total < 1_000_000:
        _, reward, *_ = task.step(best[rows, task.state])
        encoded = shown_reward(reward)
        assert np.abs(encoded).max() <= 1.0
        clipped += int((np.abs(encoded) == 1.0).sum())
        total += reward.size
    assert 0 < clipped < 1e-4 * total
