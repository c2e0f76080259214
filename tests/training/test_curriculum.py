"""What is trained on: the families that are drawn, and those that never are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from training.curricula import build_curriculum, settings_of
from training.curriculum import BanditCurriculum
from training.tasks.bandit_trials import BanditTrials
from training.tasks.gaussian_bandits import GaussianBandits


def drawn(curriculum: BanditCurriculum, iterations: int = 60) -> list[BanditTrials]:
    rng = np.random.default_rng(0)
    tasks = [
        task
        for iteration in range(1, iterations + 1)
        for batch in curriculum.batches(rng, iteration)
        for task in batch
    ]
    assert all(isinstance(task, BanditTrials) for task in tasks)
    return tasks  # type: ignore[return-value]


SMALL = BanditCurriculum(steps_per_group=20, growing=0)


def test_held_out_numbers_of_arms_are_never_drawn_and_all_others_may_be() -> None:
    seen = {task.k for task in drawn(replace(SMALL, arms=(2, 6), held_out_arms=(3, 5)))}
    assert seen == {2, 4, 6}
    assert not {3, 25} & {task.k for task in drawn(SMALL)}


def test_the_horizon_grows_to_its_end() -> None:
    growing = replace(SMALL, growing=50, pulls=(2, 500))
    longest = [max(task.n for task in drawn(growing, iterations)) for iterations in (2, 20, 200)]
    assert longest[0] <= 20
    assert longest[1] <= 200
    assert 400 < longest[2] <= 500


def test_families_come_in_their_shares() -> None:
    tasks = drawn(SMALL, 200)
    shares = {
        "gaussian": np.mean([isinstance(task, GaussianBandits) for task in tasks]),
        "drift": np.mean([task.drift != "none" for task in tasks]),
        "late": np.mean([task.delay > 0 or task.batch > 1 for task in tasks]),
    }
    wanted = {"gaussian": 0.1, "drift": 0.15, "late": 0.15}
    assert shares == pytest.approx(wanted, abs=0.04)
    assert {task.drift for task in tasks} == {"none", "slow", "change-points"}
    assert {task.delay > 0 for task in tasks} == {task.batch > 1 for task in tasks} == {True, False}


def test_the_plain_part_has_fixed_coins_and_feedback_at_once() -> None:
    for task in drawn(SMALL.plain()):
        assert (task.drift, task.delay, task.batch) == ("none", 0, 1)
        assert not isinstance(task, GaussianBandits)


def test_families_of_one_batch_have_as_many_pulls_as_one_another() -> None:
    for batch in SMALL.batches(np.random.default_rng(1), 1):
        assert len({task.steps for task in batch}) == 1
        assert len(batch) == SMALL.groups


def test_a_curriculum_is_built_again_from_its_name_and_settings() -> None:
    assert build_curriculum(SMALL.name, settings_of(SMALL)) == SMALL
    with pytest.raises(ValueError, match="task family: expected"):
        build_curriculum("chess", {})


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("arms", {"arms": (1, 5)}),
        ("arms", {"arms": (9, 5)}),
        ("held_out_arms", {"arms": (3, 3)}),
        ("pulls", {"pulls": (0, 5)}),
        ("growing", {"growing": -1}),
        ("choice_share", {"choice_share": -0.1}),
        ("drift_share", {"drift_share": 1.5}),
        ("groups", {"groups": 0}),
    ],
)
def test_a_curriculum_that_cannot_be_is_refused_by_name(field: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{field}: expected"):
        BanditCurriculum(**wrong)
