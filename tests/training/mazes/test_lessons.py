"""Lessons of the map explorer: three stages, resumed where they stopped, engines that may die."""

from __future__ import annotations

import os
import signal
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from acclimate import main
from training import checkpoints, maze_draws, maze_lessons
from training.evaluate_mazes import ExplorerPlayer, play_trials
from training.maze_lessons import teach
from training.maze_pupil import (
    FILE,
    Plan,
    Pupil,
    begin,
    finish,
    load,
    minutes_of,
    new_pupil,
    save,
)
from training.policies.vision import VisionSizes
from training.tasks.mazes.engine import EngineError
from training.tasks.mazes.layouts import layouts, split_of
from training.tasks.mazes.workers import Engines
from training.tasks.mazes.worlds import ModelWorld

SMALL = VisionSizes(dense=16, hidden=32, head=16)
PLAN = Plan(streams=16, engines=2, steps=(6, 12), part=8, layouts=4, larger=0.5, hard=0.0)


def taught(pupil: Pupil, stage: str, iterations: int, folder: Path, plan: Plan = PLAN) -> int:
    """Some iterations of one stage; whether they ended the stage does not matter."""
    if pupil.stage != stage:
        begin(pupil, stage)
    seen: list[dict[str, float]] = []
    last = pupil.iteration + iterations
    teach(pupil, plan, folder, lambda: pupil.iteration >= last, seen.append, save_every=1)
    return len(seen)


def test_mazes_for_lessons_are_for_training_and_none_is_large() -> None:
    mazes = maze_lessons.mazes_for(new_pupil(1, SMALL), PLAN, 200)
    assert {len(maze.open) for maze in mazes} == {5, 7}
    assert all(split_of(maze) == "train" for maze in mazes)


def test_half_of_them_may_be_such_as_take_the_explorer_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(maze_draws, "_SEARCHED", {3: 80, 4: 24})
    maze_draws.hard_layouts.cache_clear()
    hard = maze_draws.hard_layouts(3, 5)
    assert len(hard) == 20
    longer, usual = (
        np.mean(
            play_trials(
                world := ModelWorld(mazes, 20),
                ExplorerPlayer(world),
                trials=20,
                episodes=1,
                episode_steps=300,
            ).steps
        )
        for mazes in (hard, list(islice(layouts(3, "train", 5), 20)))
    )
    assert longer > 1.3 * usual
    plan = Plan(**vars(PLAN) | {"hard": 1.0, "larger": 0.0})
    keys = {maze.key for maze in hard}
    assert {maze.key for maze in maze_lessons.mazes_for(new_pupil(5, SMALL), plan, 50)} <= keys
    maze_draws.hard_layouts.cache_clear()


def test_a_memory_learns_what_it_is_told_of_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    pupil = new_pupil(1, SMALL)
    assert taught(pupil, "memory", 30, tmp_path) == 30
    early, late = (
        np.mean([one["heading"] + one["advice"] for one in part])
        for part in (pupil.history[:5], pupil.history[-5:])
    )
    assert late < 0.8 * early
    kept = load(tmp_path / FILE)
    assert (kept.stage, kept.iteration, kept.steps) == ("memory", 30, pupil.steps)
    assert kept.history == pupil.history
    for name, value in pupil.policy.state_dict().items():
        assert torch.equal(kept.policy.state_dict()[name], value), name
    taught(kept, "memory", 1, tmp_path)
    assert (kept.iteration, len(kept.history)) == (31, 31)
    begin(kept, "memory")
    assert (kept.iteration, kept.minutes) == (0, 0.0)
    assert kept.steps > pupil.steps  # what was walked stays walked


def test_a_file_that_holds_no_lessons_is_refused(tmp_path: Path) -> None:
    other = tmp_path / FILE
    other.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"lessons\.pt: expected a checkpoint of maze lessons"):
        load(other)


@pytest.mark.parametrize("stage", ["eyes", "together"])
def test_lessons_in_the_engine_outlive_a_worker(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("vizdoom", reason="the mazes need the train extra")
    running: list[Engines] = []

    class Killed(Engines):
        """Engines whose worker dies in the middle of the first lesson."""

        def act(self, engines, actions):  # type: ignore[no-untyped-def]
            if not running:
                running.append(self)
                os.kill(self.pids[0], signal.SIGKILL)
            return super().act(engines, actions)

    monkeypatch.setattr(maze_lessons, "Engines", Killed)
    pupil = new_pupil(2, SMALL)
    assert taught(pupil, stage, 2, tmp_path, Plan(**vars(PLAN) | {"varied": True})) == 2
    assert running[0].restarts == 1
    assert pupil.history[-1]["glimpse"] > 0
    assert load(tmp_path / FILE).iteration == 2


def test_lessons_stop_with_their_checkpoint_where_no_worker_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("vizdoom", reason="the mazes need the train extra")
    pupil = new_pupil(3, SMALL)
    taught(pupil, "together", 1, tmp_path)

    class Gone(Engines):
        """Engines whose WAD is taken away."""

        def act(self, engines, actions):  # type: ignore[no-untyped-def]
            for wad in tmp_path.glob("*.wad"):
                wad.unlink()
                os.kill(self.pids[0], signal.SIGKILL)
            return super().act(engines, actions)

    monkeypatch.setattr(maze_lessons, "Engines", Gone)
    with pytest.raises(EngineError, match="worker 0 failed 3 times in a row"):
        taught(pupil, "together", 1, tmp_path)
    assert load(tmp_path / FILE).iteration == 1


def test_finished_lessons_are_what_trpo_and_export_begin_with(tmp_path: Path) -> None:
    pupil = new_pupil(4, SMALL)
    taught(pupil, "memory", 1, tmp_path)
    finish(pupil, PLAN, tmp_path, 1)
    learner, _, hyperparameters, curriculum = checkpoints.load(tmp_path / checkpoints.FILE)
    assert (hyperparameters.teacher, curriculum.name) == ("explorer", "mazes")
    score = learner.policy.state_dict()["score.weight"]
    assert torch.equal(score, PLAN.sharpened * pupil.policy.state_dict()["score.weight"])


def test_the_minutes_of_stages_add_up() -> None:
    spent = [1.0, 2.0, 2.5, 0.5, 1.5, 0.25]
    assert minutes_of([{"minutes": one} for one in spent]) == 2.5 + 1.5 + 0.25
    assert minutes_of([]) == 0.0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--again", "memory"], "--again: expected --resume"),
        (["--again", "nose", "--resume"], "--again: expected one of memory, eyes, together"),
        ([], "add --resume to go on with it"),
    ],
)
def test_what_lessons_cannot_do_is_said(options: list[str], said: str, tmp_path: Path) -> None:
    save(new_pupil(5, SMALL), PLAN, tmp_path / FILE)
    refused = CliRunner().invoke(
        main, ["train", "maze-lessons", "--out", str(tmp_path), *options], env={"COLUMNS": "200"}
    )
    assert refused.exit_code != 0
    assert said in refused.output
