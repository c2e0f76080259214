"""Lessons before reinforcement: what the teacher says, and what becomes of a student."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.trials import TINY, TINY_BANDITS, shake, tiny_learner
from training import distributed, imitation
from training.baselines import gittins_table
from training.checkpoints import load
from training.curriculum import Curriculum
from training.descent import TrainingDivergedError
from training.hyperparameters import Hyperparameters
from training.imitation import lesson
from training.rollout import play
from training.run import Schedule, Stop, run
from training.tasks.bandits import BernoulliBandits
from training.teachers import build_teacher
from training.teachers.gittins import GittinsTeacher
from training.trpo import Learner

LESSONS = replace(TINY, teacher="gittins", lessons=3, lesson_times=1.0)


def go(learner: Learner, path: Path, iterations: int, h: Hyperparameters = LESSONS) -> None:
    record: dict[str, Any] = {"seed": 1, "command": "a test", "seconds": 0.0, "task": "bandits"}
    run(learner, h, TINY_BANDITS, record, Schedule(iterations), path, Stop(), lambda _: None)


def test_the_advice_is_any_arm_of_the_largest_index_of_what_the_student_saw() -> None:
    learner = tiny_learner()
    shake(learner.policy)
    rng = np.random.default_rng(0)
    task = BernoulliBandits(4, 3, 8, rng, delay=2)
    played = play(learner.policy, task, rng)
    times = np.array([7, 0, 4])
    advised = GittinsTeacher().advise(task, played, times)
    table = gittins_table(8)
    for place, t in enumerate(times):
        seen = task.known[t]
        for b in range(4):
            action, reward = played.record.action.numpy()[:seen, b], played.reward[:seen, b]
            won = np.array([reward[action == k].sum() for k in range(3)])
            lost = np.array([(action == k).sum() for k in range(3)]) - won
            index = table.index(won, lost, 8 - t)
            best = index == index.max()
            np.testing.assert_allclose(advised[place, b], best / best.sum(), rtol=1e-6)
    np.testing.assert_allclose(advised[1], 1 / 3, rtol=1e-6)


def test_lessons_bring_a_student_to_its_teacher() -> None:
    h = replace(LESSONS, lessons=60, lesson_rate=1e-2)
    family = replace(TINY_BANDITS, steps_per_group=400, arms=(2, 5), pulls=(8, 12))
    learner = tiny_learner(hyperparameters=h)
    teacher = build_teacher("gittins")
    before = [p.detach().clone() for p in learner.policy.value_parameters()]
    losses = [lesson(learner, h, family, teacher)["lesson_loss"] for _ in range(60)]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
    changed = [
        not torch.equal(p, q)
        for p, q in zip(before, learner.policy.value_parameters(), strict=True)
    ]
    assert all(changed)
    rng = np.random.default_rng(5)
    task = BernoulliBandits(300, 4, 10, rng)
    played = play(learner.policy, task, rng)
    advised = teacher.advise(task, played, np.arange(10))
    followed = np.take_along_axis(advised > 0, played.record.action.numpy()[..., None], -1)
    assert followed.mean() > 0.7


def test_after_the_lessons_the_run_goes_on_with_trpo_and_resumes_exactly_across_the_two(
    tmp_path: Path,
) -> None:
    whole = tiny_learner(hyperparameters=LESSONS)
    go(whole, tmp_path / "whole.pt", 5)
    assert ["lesson_loss" in entry for entry in whole.history] == [True] * 3 + [False] * 2
    assert ["divergence" in entry for entry in whole.history] == [False] * 3 + [True] * 2
    for stop in (2, 3, 4):
        halves = tiny_learner(hyperparameters=LESSONS)
        go(halves, tmp_path / "halves.pt", stop)
        halves, _, h, _ = load(tmp_path / "halves.pt")
        assert h == LESSONS
        go(halves, tmp_path / "halves.pt", 5)
        assert halves.history == whole.history
        for p, q in zip(halves.policy.parameters(), whole.policy.parameters(), strict=True):
            assert torch.equal(p, q)


def test_what_was_taught_is_revised_after_every_step_of_trpo(tmp_path: Path) -> None:
    h = replace(LESSONS, revise=True)
    learner = tiny_learner(hyperparameters=h)
    go(learner, tmp_path / "c.pt", 5, h)
    assert all("lesson_loss" in entry for entry in learner.history)
    assert ["divergence" in entry for entry in learner.history] == [False] * 3 + [True] * 2
    assert learner.history[-1]["steps"] == learner.steps == 240 * 7
    assert learner.iteration == 5


def test_a_student_that_is_not_finite_stops_the_run_and_the_last_good_checkpoint_is_kept(
    tmp_path: Path,
) -> None:
    path = tmp_path / "c.pt"
    learner = tiny_learner(hyperparameters=LESSONS)
    go(learner, path, 1)
    kept = path.read_bytes()
    with torch.no_grad():
        learner.policy.get_parameter("score_row.bias").fill_(torch.nan)
    with pytest.raises(TrainingDivergedError, match="iteration 2: the policy's loss"):
        go(learner, path, 3)
    assert learner.iteration == 1
    assert path.read_bytes() == kept


def test_a_lesson_takes_no_more_steps_than_the_process_with_the_fewest_trials_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(distributed, "fewest", lambda amount: min(amount, 2))
    taken: list[int] = []
    imitate = imitation._imitate

    def counted(*given: Any) -> float:
        taken.append(len(given[5]))
        return imitate(*given)

    monkeypatch.setattr(imitation, "_imitate", counted)
    curriculum = replace(TINY_BANDITS, horizons=1, groups=1, pulls=(6, 6))
    lesson(tiny_learner(), LESSONS, curriculum, build_teacher("gittins"))
    assert taken == [5, 5] * LESSONS.lesson_passes


def test_what_cannot_be_taught_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"teacher: expected none or one of .*gittins.*, got oracle"
    ):
        build_teacher("oracle")

    class Mazes:
        name = "mazes"

    other: Curriculum = Mazes()  # type: ignore[assignment]
    with pytest.raises(ValueError, match="gittins teaches bandits, not mazes"):
        GittinsTeacher().lessons(other)
