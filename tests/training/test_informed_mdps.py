"""What a training MDP tells a critic is true, and none of it reaches the policy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from training.curriculum import MdpCurriculum
from training.hyperparameters import Hyperparameters
from training.informed_mdps import TOLD, InformedMDPs
from training.policies.network import build, build_critic
from training.rollout import play
from training.tasks.mdps import ACTIONS, EPISODE_STEPS, TabularMDPs
from training.tasks.task import Informed
from training.tasks.value_iteration import value_iteration
from training.trpo import iterate, new_learner


def totals(mdps: InformedMDPs, rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
    """Expected rewards and costs of whole trials under random play, `[B]` each."""
    mdps.reset()
    earned, lost = np.zeros(mdps.num_envs), np.zeros(mdps.num_envs)
    for _ in range(mdps.steps):
        actions = rng.integers(ACTIONS, size=mdps.num_envs)
        earned += mdps.expected(actions)
        lost += mdps.lost(actions)
        mdps.step(actions)
    return earned, lost


def test_costs_are_on_average_what_is_missing_to_the_optimum() -> None:
    rng = np.random.default_rng(3)
    mdps = InformedMDPs(4_000, 2, rng)
    earned, lost = totals(mdps, rng)
    quality = value_iteration(mdps.means, mdps.transitions, EPISODE_STEPS)
    optimum = mdps.n * quality[0, :, 0].max(-1)
    missing = optimum - earned
    error = (missing - lost).std() / np.sqrt(4_000)
    assert abs(missing.mean() - lost.mean()) < 4 * error
    assert lost.min() > 0.0


def test_the_optimal_policy_loses_nothing_whatever_its_luck() -> None:
    mdps = InformedMDPs(50, 2, np.random.default_rng(3))
    mdps.reset()
    quality = value_iteration(mdps.means, mdps.transitions, EPISODE_STEPS)
    for step in range(mdps.steps):
        actions = quality[step % EPISODE_STEPS, np.arange(50), mdps.state].argmax(-1)
        assert not mdps.lost(actions).any()
        mdps.step(actions)


def test_it_draws_the_same_tasks_and_luck_as_the_plain_family() -> None:
    told, plain = (family(5, 2, np.random.default_rng(1)) for family in (InformedMDPs, TabularMDPs))
    assert np.array_equal(told.reset()[0], plain.reset()[0])
    for _ in range(plain.steps):
        actions = np.array([0, 1, 2, 3, 4])
        for one, other in zip(told.step(actions)[:3], plain.step(actions)[:3], strict=True):
            assert np.array_equal(one, other)
    assert isinstance(told, Informed)
    assert not isinstance(plain, Informed)


def test_what_is_told_does_not_depend_on_the_choice_to_come() -> None:
    mdps = InformedMDPs(3, 2, np.random.default_rng(1))
    mdps.reset()
    before = mdps.told()
    mdps.lost(np.array([1, 2, 3]))
    assert before.shape == (3, TOLD)
    assert np.array_equal(before, mdps.told())
    assert np.isfinite(before).all()


def test_a_plan_of_the_truth_loses_nothing() -> None:
    mdps = InformedMDPs(4, 2, np.random.default_rng(1))
    mdps.reset()
    blind = mdps.told()[:, 1]
    mdps._history.visits += 1e9
    mdps._history.rewards += 1e9 * mdps.means
    mdps._history.transitions = mdps.transitions
    assert (blind > 0.1).all()
    np.testing.assert_allclose(mdps.told()[:, 1:3], 0.0, atol=1e-6)


@pytest.mark.parametrize("name", ["planning", "actionwise"])
def test_an_iteration_on_mdps_moves_policy_value_head_and_critic(name: str) -> None:
    sizes = {"planning": {"width": 4}, "actionwise": {"context": 10, "shared": 4, "row": 4}}[name]
    policy = build(name, sizes)
    critic = build_critic("informed", {"told": TOLD, "width": 4})
    wanted = Hyperparameters(cg_iterations=3)
    learner = new_learner(policy, critic, 1, wanted)
    before = [
        {key: value.clone() for key, value in part.state_dict().items()}
        for part in (policy, critic)
    ]
    curriculum = MdpCurriculum(horizons=2, steps_per_horizon=120, episodes=(2, 4))
    entry = iterate(learner, wanted, curriculum)
    assert 0.0 < entry["divergence"] <= wanted.radius
    for part, old in zip((policy, critic), before, strict=True):
        now = part.state_dict()
        assert all(torch.isfinite(value).all() for value in now.values())
        assert any(not torch.equal(now[key], value) for key, value in old.items())
    assert not torch.equal(before[0]["value.weight"], policy.state_dict()["value.weight"])


def test_a_record_of_an_informed_task_keeps_what_was_told_and_lost() -> None:
    rng = np.random.default_rng(0)
    played = play(build("planning", {}), InformedMDPs(4, 2, rng), rng)
    assert played.record.told is not None and played.record.told.shape == (20, 4, TOLD)
    assert played.lost is not None and played.lost.shape == (20, 4)
    taken = played.record.take(torch.tensor([2]))
    assert taken.told is not None and torch.equal(taken.told, played.record.told[:, 2:3])
    plain = play(build("planning", {}), TabularMDPs(4, 2, rng), rng)
    assert plain.record.told is None and plain.lost is None
    with pytest.raises(ValueError, match="told: expected"):
        build_critic("informed", {"told": TOLD}).pools([plain.record])


def test_a_curriculum_draws_a_length_from_each_part_of_its_range_and_grows() -> None:
    rng = np.random.default_rng(0)
    curriculum = MdpCurriculum(episodes=(5, 100), growing=10)
    late = [next(task.steps // 10 for task in tasks) for tasks in curriculum.batches(rng, 10)]
    assert 5 <= late[0] <= 13 <= late[1] <= 37 <= late[2] <= 100
    early = [next(task.steps // 10 for task in tasks) for tasks in curriculum.batches(rng, 1)]
    assert max(early) <= 6
    for wrong in ({"episodes": (0, 5)}, {"episodes": (9, 5)}, {"horizons": 0}, {"growing": -1}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}: expected"):
            MdpCurriculum(**wrong)
