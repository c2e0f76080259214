"""TRPO in the model of the engine: on rays, with the eyes that a policy came with."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from acclimate import main
from contract.policy import OnnxPolicy
from training import checkpoints
from training.maze_curriculum import MazeCurriculum
from training.maze_pupil import Plan, finish, new_pupil
from training.policies.vision import Vision, VisionSizes, told_rays
from training.tasks.mazes.layouts import layouts
from training.tasks.mazes.sight import features
from training.tasks.mazes.trials import MazeTrials
from training.tasks.mazes.worlds import ModelWorld

SMALL = VisionSizes(dense=16, hidden=32, head=16)
MAZES = list(islice(layouts(3, "train", 1), 3))


def test_a_policy_that_is_told_rays_is_the_one_that_sees_them() -> None:
    torch.manual_seed(0)
    policy = Vision(SMALL)
    shared, _ = policy.blank(2, 3)
    picture = torch.rand(2, SMALL.context) * 2 - 1
    told = told_rays(policy, True)
    assert told.sizes.context == SMALL.glimpse
    assert torch.equal(told.look(shared, policy.eyes(picture)), policy.look(shared, picture))
    again = told_rays(told, False)
    assert torch.equal(again.look(shared, picture), policy.look(shared, picture))


def test_contexts_in_the_model_are_rays_whose_lengths_may_be_off() -> None:
    exact, blurred = ModelWorld(MAZES, 3), ModelWorld(MAZES, 3, 0.1, np.random.default_rng(0))
    for world in (exact, blurred):
        world.load(np.arange(3), [0, 1, 2])
    rays = features(exact.ground.look(exact.at))
    assert np.array_equal(exact.contexts(), rays)
    off = blurred.contexts() - rays
    ends = rays.shape[1] // 3 * 2
    assert 0.05 < off[:, :ends].std() < 0.15
    assert not off[:, ends:].any()


def test_trials_in_the_model_end_as_in_the_engine() -> None:
    task = MazeTrials(
        ModelWorld(MAZES, 3), np.random.default_rng(1), episodes=2, steps=30, episode_steps=10
    )
    seen, _ = task.reset()
    assert seen.shape == (3, SMALL.glimpse)
    for step in range(1, 21):
        seen, rewards, found, spent, _ = task.step(np.zeros(3, np.int64))
        assert not found.any()
        assert rewards == pytest.approx(-0.04)
        assert spent.all() == (step in (10, 20))
    assert not seen.any()
    assert not task.mask[:, 1:].any()


def test_a_memory_goes_on_in_the_model_and_is_exported_with_the_eyes_it_began_with(
    tmp_path: Path,
) -> None:
    lessons, run, bundle = (tmp_path / name for name in ("lessons", "run", "bundle"))
    lessons.mkdir()
    pupil = new_pupil(6)
    finish(pupil, Plan(), lessons, 1)
    begins = ["--in-model", "--start", str(lessons), "--out", str(run), "--iterations", "2"]
    options = ["--engines", "6", "--batches-an-iteration", "1", "--steps", "12", "--larger", "0.5"]
    trained = CliRunner().invoke(main, ["train", "mazes", *begins, *options])
    assert trained.exit_code == 0, trained.output
    learner, _, _, curriculum = checkpoints.load(run / checkpoints.FILE)
    policy = learner.policy
    assert isinstance(policy, Vision)
    assert isinstance(curriculum, MazeCurriculum)
    assert policy.sizes.rays
    assert curriculum.in_model
    before, after = pupil.policy.state_dict(), policy.state_dict()
    eyes = [name for name in before if name.startswith("eyes.")]
    assert all(torch.equal(before[name], after[name]) for name in eyes)
    assert not torch.equal(before["recurrent.weight"], after["recurrent.weight"])
    exported = CliRunner().invoke(
        main, ["export", str(run), str(bundle), "--name", "mazes", "--version", "2"]
    )
    assert exported.exit_code == 0, exported.output
    assert OnnxPolicy.load(bundle).manifest.context_size == VisionSizes().context
    assert told_rays(policy, False).sizes == VisionSizes()
    longer = ["--in-model", "--out", str(run), "--iterations", "3", "--resume", *options]
    resumed = CliRunner().invoke(main, ["train", "mazes", *longer])
    assert resumed.exit_code == 0, resumed.output
    assert checkpoints.load(run / checkpoints.FILE)[0].iteration == 3


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"larger": 0.5}, "larger: expected --in-model"),
        ({"hard": 0.5}, "hard: expected --in-model"),
        ({"varied": True, "in_model": True}, "varied: expected no --in-model"),
    ],
)
def test_what_would_change_nothing_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        MazeCurriculum(**settings)


def test_every_maze_drawn_for_the_model_is_walked() -> None:
    (tasks,) = MazeCurriculum(in_model=True, engines=12, batches_an_iteration=1, steps=3).batches(
        np.random.default_rng(0), 1
    )
    _, info = tasks[0].reset()
    assert sorted(info["mazes"]) == list(range(12))
