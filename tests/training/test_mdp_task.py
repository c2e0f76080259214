"""Tabular MDPs: what a trial is, who meets the same luck, and which families are refused."""

from __future__ import annotations

import numpy as np
import pytest

from training.tasks.mdps import ACTIONS, STATES, TabularMDPs, one_hot
from training.tasks.task import Task


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


def test_a_network_can_be_trained_on_it() -> None:
    task: Task = mdps(n=3)
    assert (task.actions, task.steps, task.num_envs) == (5, 30, 500)
    np.testing.assert_array_equal(task.known, np.arange(30))
    low, high = task.reward_range
    np.testing.assert_allclose(task.shown(np.array([low, 1.0, high, -50.0])), [-1, 0, 1, -1])


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
        else:
            assert not terminated.any()
            assert np.unique(task.state).size == STATES, "500 trials are everywhere by now"
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
    _, reward, *_ = first.step(np.full(500, 3))
    _, other, *_ = second.step(np.full(500, 3))
    np.testing.assert_array_equal(reward, other)
    np.testing.assert_array_equal(first.state, second.state)


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
    _, reward, *_ = task.step(np.full(40_000, 2))
    noise = reward - task.means[:, 0, 2]
    assert noise.mean() == pytest.approx(0.0, abs=0.02)
    assert noise.std() == pytest.approx(1.0, abs=0.02)
    seen = np.bincount(task.state, minlength=STATES) / 40_000
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
        encoded = task.shown(reward)
        assert np.abs(encoded).max() <= 1.0
        clipped += int((np.abs(encoded) == 1.0).sum())
        total += reward.size
    assert 0 < clipped < 1e-4 * total


def test_the_bounds_are_what_random_and_optimal_play_earn_step_by_step() -> None:
    task = mdps(trials=20_000, n=1)
    task.reset()
    random, optimal = [], []
    rng = np.random.default_rng(1)
    earned = []
    for _ in range(10):
        floor, ceiling = task.bounds()
        random.append(floor.mean())
        optimal.append(ceiling.mean())
        action = rng.integers(ACTIONS, size=20_000)
        earned.append(task.expected(action).mean())
        task.step(action)
    # within 4 standard errors of a mean of N(1, 1) numbers
    np.testing.assert_allclose(earned, random, atol=4 / np.sqrt(20_000))
    assert sum(optimal) == pytest.approx(218.4 / 10, abs=0.15)
    assert optimal[9] > optimal[0], "the last step is played for itself, the first is not"


def test_the_bounds_follow_a_known_chain_exactly() -> None:
    """Action 1 climbs to the next state, any other stays; only the last state pays."""
    task = mdps(trials=1, n=2)
    task.reset()
    task.means = np.zeros((1, STATES, ACTIONS))
    task.means[:, STATES - 1] = 1.0
    task.transitions = np.repeat(np.eye(STATES)[None, :, None], ACTIONS, axis=2)
    task.transitions[0, :, 1] = np.eye(STATES)[np.minimum(np.arange(STATES) + 1, STATES - 1)]
    best = [float(task.bounds()[1][0])]
    for _ in range(19):
        task.step(np.ones(1, int))
        best.append(float(task.bounds()[1][0]))
    assert best == ([0.0] * 9 + [1.0]) * 2
    assert task.bounds()[0][0] == pytest.approx(0.2**9)
