"""Opponents on tabular MDPs: exact where it can be, against the published table elsewhere."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from training.baselines_mdps import (
    NAMED,
    PUBLISHED,
    Algorithm,
    History,
    beb,
    epsilon_greedy,
    greedy,
    optimal,
    planner,
    planner_values,
    play,
    psrl,
    ucrl2,
)
from training.baselines_mdps.ucrl2 import optimistic_value_iteration
from training.tasks.mdps import ACTIONS, EPISODE_STEPS, STATES, TabularMDPs
from training.tasks.value_iteration import earned_per_step, value_iteration


def mdps(trials: int, n: int, seed: int = 20) -> TabularMDPs:
    return TabularMDPs(trials, n, np.random.default_rng(seed))


def played(algorithm: Algorithm, n: int, trials: int = 1_000, seed: int = 20) -> np.ndarray:
    """Total rewards `[B]`."""
    total: np.ndarray = play(algorithm, mdps(trials, n, seed), np.random.default_rng(5)).sum(axis=0)
    return total


def everything_known(task: TabularMDPs, seen: float = 1e9) -> History:
    """The history of trials that saw every action in every state a billion times."""
    history = History.blank(task.num_envs, task.n)
    history.visits[:] = seen
    history.rewards = seen * task.means
    history.moves = seen * task.transitions
    history.transitions = task.transitions
    return history


def test_value_iteration_finds_the_best_of_all_policies() -> None:
    rng = np.random.default_rng(0)
    states, actions, steps = 2, 2, 3
    rewards = rng.normal(size=(1, states, actions))
    transitions = rng.dirichlet(np.ones(states), (1, states, actions))
    worth = []
    for choices in itertools.product(range(actions), repeat=states * steps):
        policy = np.eye(actions)[np.reshape(choices, (steps, 1, states))]
        worth.append(earned_per_step(rewards, transitions, policy).sum())
    q = value_iteration(rewards, transitions, steps)
    assert q[0, 0, 0].max() == pytest.approx(max(worth), abs=1e-12)


def test_known_mdps_are_played_for_what_they_are_worth() -> None:
    task = mdps(4_000, 1)
    earned = play(optimal(task), task, np.random.default_rng(1)).sum(axis=0)
    best = value_iteration(task.means, task.transitions, EPISODE_STEPS)[0, :, 0].max(axis=-1)
    assert best.mean() == pytest.approx(21.84, abs=0.15)
    luck = earned - best
    assert luck.mean() == pytest.approx(0.0, abs=4 * luck.std() / np.sqrt(luck.size))


def test_a_history_counts_what_was_seen_and_no_move_at_an_episodes_end() -> None:
    history = History.blank(2, n=2)
    for step in range(EPISODE_STEPS):
        state = np.array([0, 0] if step == EPISODE_STEPS - 1 else [step + 1, 0])
        history.observe(np.array([1, 4]), np.array([2.0, -1.0]), state)
    np.testing.assert_array_equal(history.visits.sum(axis=(1, 2)), [10, 10])
    np.testing.assert_array_equal(history.moves.sum(axis=(1, 2, 3)), [9, 9])
    assert history.visits[1, 0, 4] == 10
    assert history.rewards[0, 3, 1] == 2.0
    assert history.mean_rewards()[1, 0, 4] == pytest.approx((1 - 10) / 11)
    assert (history.episode_step, history.episodes_left) == (0, 1)
    counted = history.moves + 1.0
    np.testing.assert_allclose(
        history.transitions, counted / counted.sum(axis=-1, keepdims=True), rtol=1e-12
    )
    rewards, transitions = history.empirical()
    assert rewards[0, 0, 1] == 2.0
    assert rewards[0, 0, 0] == 0.0
    assert transitions[1, 0, 4, 0] == 1.0
    np.testing.assert_allclose(transitions[0, 9, 1], 1 / STATES)


def test_the_most_favourable_transitions_are_those_of_jaksch_and_others() -> None:
    """Their inner maximum, state by state: all that is allowed on the best, off the worst."""
    rng = np.random.default_rng(3)
    rewards = rng.normal(size=(4, STATES, ACTIONS))
    transitions = rng.dirichlet(np.ones(STATES), (4, STATES, ACTIONS))
    radius = rng.uniform(0, 2.5, (4, STATES, ACTIONS))
    q = optimistic_value_iteration(rewards, transitions, radius, 3)
    value = q[1].max(axis=-1)
    for b, s, a in itertools.product(range(4), range(STATES), range(ACTIONS)):
        order = np.argsort(value[b])
        shifted = transitions[b, s, a].copy()
        shifted[order[-1]] = min(1.0, shifted[order[-1]] + radius[b, s, a] / 2)
        for worst in order:
            shifted[worst] -= min(max(shifted.sum() - 1.0, 0.0), shifted[worst])
        assert q[0, b, s, a] == pytest.approx(rewards[b, s, a] + shifted @ value[b], abs=1e-9)


def test_without_a_radius_optimism_is_value_iteration() -> None:
    task = mdps(3, 1)
    task.reset()
    np.testing.assert_allclose(
        optimistic_value_iteration(
            task.means, task.transitions, np.zeros((3, STATES, ACTIONS)), EPISODE_STEPS
        ),
        value_iteration(task.means, task.transitions, EPISODE_STEPS),
    )


def test_the_planners_values_are_those_written_down_by_hand() -> None:
    history = History.blank(1, n=16)
    history.visits[0, 0, 2], history.rewards[0, 0, 2] = 3.0, 7.0
    history.position = EPISODE_STEPS - 1
    unseen, seen = 1.0 + 0.3 * 4.0, 8.0 / 4.0 + 0.3 * 4.0 / 2.0
    np.testing.assert_allclose(
        planner_values(history, c=0.3, g=0.5), [[unseen, unseen, seen, unseen, unseen]]
    )
    # one step earlier the unseen pays as the best of the next state does, wherever that is
    history.position = EPISODE_STEPS - 2
    later = 0.9 * unseen + 0.1 * seen
    np.testing.assert_allclose(
        planner_values(history, c=0.3, g=0.5)[0, [0, 2]], [unseen + later, seen + later]
    )


def test_whoever_knows_everything_plays_as_if_the_mdp_were_known() -> None:
    task = mdps(50, 3)
    task.reset()
    q = value_iteration(task.means, task.transitions, EPISODE_STEPS)
    history = everything_known(task)
    rng = np.random.default_rng(0)
    for position in range(EPISODE_STEPS):
        history.position = position
        history.state = rng.integers(STATES, size=50)
        values = q[position, np.arange(50), history.state]
        for name in ("psrl", "opsrl", "beb", "greedy", "planner"):
            if position == 0:
                NAMED[name](history, rng)
            chosen = values[np.arange(50), NAMED[name](history, rng)]
            np.testing.assert_allclose(chosen, values.max(axis=-1), atol=1e-2, err_msg=name)


def test_epsilon_greedy_strays_as_often_as_it_says() -> None:
    task = mdps(20_000, 1)
    task.reset()
    history = everything_known(task)
    rng = np.random.default_rng(0)
    same = greedy()(history, rng) == epsilon_greedy(0.5)(history, rng)
    assert same.mean() == pytest.approx(0.5 + 0.5 / ACTIONS, abs=0.02)


@pytest.mark.parametrize(
    ("name", "n"),
    [
        *((name, 25) for name in ("random", "psrl", "ucrl2", "beb", "epsilon_greedy", "greedy")),
        ("opsrl", 10),
        ("beb", 10),
    ],
)
def test_baselines_earn_what_is_published(name: str, n: int) -> None:
    """Both figures are means of 1,000 trials: within three standard errors of a difference."""
    earned = played(NAMED[name], n)
    se = earned.std() / np.sqrt(earned.size)
    assert earned.mean() == pytest.approx(PUBLISHED[name][n], abs=3 * np.sqrt(2) * se)


def test_the_planner_is_above_every_published_figure_and_below_the_optimum() -> None:
    earned = played(NAMED["planner"], 25)
    others = max(column[25] for column in PUBLISHED.values())
    assert others + 6 < earned.mean() < 545.9
    assert earned.mean() == pytest.approx(461.9, abs=3 * np.sqrt(2) * 1.9)


def test_the_right_prior_helps_greed_and_bonus() -> None:
    for right, wrong in (("greedy_prior", "greedy"), ("beb_prior", "beb")):
        assert (played(NAMED[right], 10) - played(NAMED[wrong], 10)).mean() > 2


def test_an_algorithm_starts_afresh_with_every_trial() -> None:
    for algorithm in (psrl(), ucrl2(), beb(), planner(), greedy()):
        first = played(algorithm, 3, trials=50)
        np.testing.assert_array_equal(first, played(algorithm, 3, trials=50))
