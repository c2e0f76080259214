"""Rollouts that workers play by themselves: the same trials, whatever happens to a worker."""

from __future__ import annotations

import functools
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from acclimate import main
from training import checkpoints, rollout, spread
from training.bench_mazes import bench_mazes, to_json
from training.policies.network import build
from training.policies.vision import Vision, VisionSizes, told_rays
from training.rollout import Played
from training.tasks.mazes.engine import EngineError, make_small
from training.tasks.mazes.layouts import layouts
from training.tasks.mazes.seats import Seats
from training.tasks.mazes.trials import MazeTrials
from training.tasks.mazes.workers import Engines
from training.tasks.mazes.worlds import EngineWorld, ModelWorld, as_context, wad_for

pytest.importorskip("vizdoom", reason="the mazes need the train extra")

MAZES = list(islice(layouts(3, "train", 11), 6))
STEPS = 30


@pytest.fixture(scope="module")
def wad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wad_for(MAZES, tmp_path_factory.mktemp("wad"))


@pytest.fixture(scope="module")
def running(wad: Path) -> Iterator[Engines]:
    with Engines(wad, 5, workers=2) as engines:
        yield engines


def policy() -> Vision:
    network = build("vision", {}, seed=3)
    assert isinstance(network, Vision)
    with torch.no_grad():
        network.score.weight.mul_(30.0)  # so that what is seen decides, not the draw alone
    return network


def trials(engines: Engines, steps: int = STEPS) -> MazeTrials:
    world = EngineWorld(MAZES, engines)
    return MazeTrials(world, np.random.default_rng(3), episodes=2, steps=steps, episode_steps=12)


def assert_same(one: Played, other: Played) -> None:
    for part, expected in ((one, other), (one.record, other.record)):
        for field in fields(part):
            found, wanted = getattr(part, field.name), getattr(expected, field.name)
            if field.name != "record" and wanted is not None:
                np.testing.assert_array_equal(found, wanted, err_msg=field.name)


@pytest.mark.parametrize("greedy", [False, True])
def test_workers_play_the_trials_that_one_process_plays(wad: Path, greedy: bool) -> None:
    network, played = policy(), []
    for play in (rollout.play, spread.play):
        for workers in (1, 2) if play is spread.play else (2,):
            with Engines(wad, 5, workers) as engines:
                played.append(
                    play(network, trials(engines), np.random.default_rng(4), greedy=greedy)
                )
    together, *apart = played
    assert together.record.context.shape == (STEPS, 5, 3_600)
    assert len(np.unique(together.record.action)) > 1
    assert together.record.done.any()
    for one in apart:
        assert_same(one, together)


def test_the_generator_goes_on_as_if_one_process_had_played(running: Engines) -> None:
    network, after = policy(), []
    for play in (rollout.play, spread.play):
        rng = np.random.default_rng(4)
        play(network, trials(running), rng)
        after.append(rng.random())
    assert after[0] == after[1]


def test_trials_in_the_model_are_played_in_this_process() -> None:
    network, played = told_rays(policy(), True), []
    for play in (rollout.play, spread.play):
        task = MazeTrials(ModelWorld(MAZES, 5), np.random.default_rng(3), steps=12)
        played.append(play(network, task, np.random.default_rng(4)))
    assert_same(*played)


def killed_once(flag: Path, seats: Seats) -> NDArray[np.uint8]:
    """Walks; the worker that does so first ends in the middle."""
    seats.load([0], [1])
    for step in range(6):
        seats.act([0], [step % 3])
        if step == 3 and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    shown: NDArray[np.uint8] = seats.pictures[0].copy()
    return shown


def killed(seats: Seats) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def size_of(given: bytes, seats: Seats) -> int:
    seats.load([0], [0])
    return len(given)


def wrong(seats: Seats) -> None:
    raise ValueError("nobody walks here")


def poses(seats: Seats) -> NDArray[np.float64]:
    return seats.poses.copy()


def test_a_job_that_a_worker_died_of_is_begun_again(running: Engines, tmp_path: Path) -> None:
    before = running.restarts
    job = functools.partial(killed_once, tmp_path / "flag")
    first, second = running.have([job, job])
    np.testing.assert_array_equal(first, second)
    assert running.restarts == before + 1
    # What an engine was left at is known: it is replayed, not the place before the job.
    left = running.poses[0].copy()
    os.kill(running.pids[0], signal.SIGKILL)
    running.restart([1])
    np.testing.assert_array_equal(running.poses[0], left)


def test_a_worker_that_is_dead_before_it_is_asked_is_noticed(running: Engines) -> None:
    before = running.restarts
    os.kill(running.pids[0], signal.SIGKILL)
    time.sleep(0.2)
    much = functools.partial(size_of, bytes(8_000_000))  # more than a pipe takes unread
    assert running.have([much, much]) == [8_000_000, 8_000_000]
    assert running.restarts == before + 1


def test_a_job_that_ends_every_worker_stops_the_run(wad: Path) -> None:
    with (
        Engines(wad, 1) as engines,
        pytest.raises(EngineError, match="worker 0 failed 3 times in a row, the last time because"),
    ):
        engines.have([killed])


def test_an_error_of_a_job_is_told_and_the_engines_run_on(running: Engines) -> None:
    jobs: list[Callable[[Seats], Any]] = [poses, wrong]
    with pytest.raises(RuntimeError, match=r"worker 1: (?s:.)*ValueError: nobody walks here"):
        running.have(jobs)
    first, second = running.have([poses, poses])
    np.testing.assert_array_equal(np.concatenate([first, second]), running.poses)


@pytest.mark.parametrize("in_model", [False, True])
def test_what_is_known_after_the_trials_is_what_was_known_step_by_step(
    running: Engines, in_model: bool
) -> None:
    world = ModelWorld(MAZES, 5) if in_model else EngineWorld(MAZES, running)
    task = MazeTrials(world, np.random.default_rng(7), episodes=2, steps=STEPS, episode_steps=12)
    task.reset()
    rng = np.random.default_rng(8)
    actions, told, expected, lost = [], [], [], []
    for _ in range(STEPS):
        action = np.where(task.mask[:, 1], rng.choice(3, 5, p=[0.2, 0.2, 0.6]), 0)
        actions.append(action)
        told.append(task.told())
        expected.append(task.expected(action))
        lost.append(task.lost(action))
        floor, ceiling = task.bounds()
        task.step(action)
    recount = task.recount(np.array(actions))
    np.testing.assert_array_equal(recount.told, told)
    np.testing.assert_array_equal(recount.expected, expected)
    np.testing.assert_array_equal(recount.lost, lost)
    np.testing.assert_array_equal(recount.random, np.broadcast_to(floor, (STEPS, 5)))
    np.testing.assert_array_equal(recount.best, np.broadcast_to(ceiling, (STEPS, 5)))
    assert np.std(recount.lost) > 0


def test_a_small_picture_is_the_mean_of_four_by_four_rounded() -> None:
    rng = np.random.default_rng(0)
    for screen in (
        rng.integers(0, 256, (120, 160, 3), np.uint8),
        rng.integers(0, 2, (120, 160, 3), np.uint8),
        np.full((120, 160, 3), 255, np.uint8),
    ):
        picture = np.empty((30, 40, 3), np.uint8)
        make_small(np.ascontiguousarray(screen.transpose(2, 0, 1)), picture)
        np.testing.assert_array_equal(picture, Image.fromarray(screen).reduce(4))


def test_a_maze_that_is_loaded_is_at_its_start_whatever_was_walked_before(
    running: Engines,
) -> None:
    """Loading begins the episode: another restart changes nothing."""
    everyone = list(range(5))
    running.load(everyone, [0, 1, 2, 3, 4])
    pictures, start = running.pictures.copy(), running.poses.copy()
    for _ in range(9):
        running.act(everyone, [2] * 5)
    running.load(everyone, [4, 3, 2, 1, 0])
    running.load(everyone, [0, 1, 2, 3, 4])
    for _ in range(2):
        np.testing.assert_array_equal(running.pictures, pictures)
        np.testing.assert_array_equal(running.poses, start)
        running.restart(everyone)


def test_a_glance_is_the_look_it_is_short_for() -> None:
    rng = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (8, 3_600), dtype=torch.uint8, generator=rng)
    encoded = torch.as_tensor(as_context(pictures.numpy().reshape(8, 30, 40, 3)))
    small = Vision(VisionSizes(dense=16, hidden=32, head=16))
    with torch.no_grad():
        for network, contexts in (
            (policy(), (pictures, encoded)),
            (told_rays(small, True), (torch.rand(8, 120, generator=rng) * 2 - 1,)),
        ):
            shared = torch.randn(8, network.sizes.hidden + 5, generator=rng)
            mask = torch.ones(8, 3, dtype=torch.bool)
            mask[5, 1:] = False
            action = torch.arange(8) % 3
            reward, done = torch.rand(2, 8, generator=rng)
            ready = network.ready()
            for context in contexts:
                plain = encoded if context.dtype == torch.uint8 else context
                hidden = network.look(shared, plain)
                close = functools.partial(torch.testing.assert_close, rtol=0.0, atol=1e-5)
                close(ready.look(shared, context), hidden)
                close(network.look(shared, context), hidden)
                close(ready.decide_from(hidden, mask), network.decide_from(hidden, mask)[0])
                learned = network.learn_from(hidden, action, reward, done)
                close(ready.learn_from(hidden, action, reward, done), learned)


def test_the_benchmark_tells_speeds_and_what_a_step_costs() -> None:
    speeds = bench_mazes(engines=2, workers=1, rounds=1, steps=5)
    assert min(speeds.engine_alone, speeds.in_turns, speeds.rollouts) > 0
    assert speeds.share == speeds.rollouts / speeds.engine_alone
    told = to_json(speeds)
    assert told["share"] == speeds.share
    for costs in (told["alone_costs"], told["rollout_costs"]):
        assert set(costs) == {"learner", "workers", "engines"}
        if not any(map(math.isnan, costs.values())):  # told by Linux alone
            assert min(costs.values()) > 0


def test_trpo_in_the_engine_learns_from_what_workers_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def alone(*_: object) -> None:
        raise AssertionError("the learner walks by itself")

    monkeypatch.setattr(Engines, "act", alone)
    options = ["--engines", "3", "--workers", "2", "--steps", "8", "--batches-an-iteration", "1"]
    trained = CliRunner().invoke(
        main, ["train", "mazes", "--out", str(tmp_path), "--iterations", "1", *options]
    )
    assert trained.exit_code == 0, trained.output
    learner, _, _, _ = checkpoints.load(tmp_path / checkpoints.FILE)
    assert learner.steps == 24
    assert learner.history[-1]["divergence"] > 0
