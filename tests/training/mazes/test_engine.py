"""The real engine for a few seconds: deterministic, survives its workers, agrees with the model."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from training.evaluate_mazes import ExplorerPlayer, play_trials
from training.policies.network import Network, build
from training.rollout import play
from training.tasks.mazes import engine as engine_module
from training.tasks.mazes.engine import EngineError, check_wad, refuse_little_shared_memory
from training.tasks.mazes.layouts import layouts
from training.tasks.mazes.trials import REWARD_RANGE, MazeTrials
from training.tasks.mazes.walking import FORWARD, LEFT
from training.tasks.mazes.workers import Engines
from training.tasks.mazes.worlds import EngineWorld, ModelWorld, as_context, wad_for

pytest.importorskip("vizdoom", reason="the mazes need the train extra")

MAZES = list(islice(layouts(3, "train", 11), 6))


@pytest.fixture(scope="module")
def wad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wad_for(MAZES, tmp_path_factory.mktemp("wad"))


@pytest.fixture(scope="module")
def running(wad: Path) -> Iterator[Engines]:
    with Engines(wad, 3, workers=2) as engines:
        yield engines


def walked(engines: Engines, steps: int, kill_at: int | None = None) -> NDArray[np.uint8]:
    """Pictures after a fixed random walk in three mazes."""
    rng = np.random.default_rng(5)
    everyone = [0, 1, 2]
    engines.load(everyone, [0, 1, 2])
    for step in range(steps):
        if step == kill_at:
            os.kill(engines.pids[0], signal.SIGKILL)
        ended = engines.act(everyone, rng.integers(0, 3, 3).tolist())
        engines.restart(np.flatnonzero(ended).tolist())
    pictures: NDArray[np.uint8] = engines.pictures.copy()
    return pictures


class LooksTwice:
    """A policy of which a rollout knows no more than its two functions."""

    def __init__(self, policy: Network) -> None:
        self.sizes, self.blank = policy.sizes, policy.blank
        self.decide, self.learn = policy.decide, policy.learn


def is_running(pid: int) -> bool:
    """Whether a process still does anything; one that has ended may be listed for a while."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_the_same_actions_show_the_same_pictures_even_where_a_worker_was_killed(
    running: Engines,
) -> None:
    first = walked(running, 25)
    assert first.shape == (3, 30, 40, 3) and first.std() > 5
    before, engines = running.restarts, list(running._engines[0])
    assert len(engines) == 2
    np.testing.assert_array_equal(walked(running, 25, kill_at=13), first)
    assert running.restarts == before + 1
    alone = [pid for pid in engines if is_running(pid)]
    assert not alone, "an engine outlived its worker"


def test_a_worker_that_cannot_start_again_stops_the_run_with_its_reason(
    wad: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "gone.wad"
    copy.write_bytes(wad.read_bytes())
    with Engines(copy, 1) as engines:
        engines.load([0], [0])
        copy.unlink()
        os.kill(engines.pids[0], signal.SIGKILL)
        with pytest.raises(EngineError, match="worker 0 failed 3 times in a row"):
            engines.act([0], [FORWARD])


def test_the_model_walks_as_the_engine_does(running: Engines) -> None:
    """The explorer takes the same number of steps in both, give or take one at the target."""
    counts = []
    for world in (EngineWorld(MAZES, running), ModelWorld(MAZES, 3)):
        played = play_trials(world, ExplorerPlayer(world), trials=6, episodes=2, episode_steps=250)
        assert played.found.all()
        counts.append(played.steps)
    assert np.abs(counts[0] - counts[1]).max() <= 3
    assert np.median(np.abs(counts[0] - counts[1])) <= 1


def test_trials_speak_gymnasium_s_words_and_pay_what_the_paper_pays(running: Engines) -> None:
    task = MazeTrials(
        EngineWorld(MAZES, running), np.random.default_rng(1), episodes=2, steps=12, episode_steps=5
    )
    context, info = task.reset()
    assert context.shape == (3, 3_600) and context.dtype == np.uint8
    np.testing.assert_array_equal(context, running.pictures.reshape(3, -1))
    assert set(info["mazes"]) <= set(range(6))
    rewards, truncated = [], []
    for step in range(12):
        over = (~task.mask[:, 1:]).all(1)
        assert (over == (step >= 10)).all()
        context, reward, found, cut, info = task.step(np.full(3, LEFT))
        rewards.append(reward)
        truncated.append(cut)
        assert not found.any()
    np.testing.assert_allclose(rewards[:10], -0.04)
    np.testing.assert_array_equal(rewards[10:], 0.0)
    np.testing.assert_array_equal(np.flatnonzero(np.array(truncated)[:, 0]), [4, 9])
    assert info["trial_over"]
    np.testing.assert_array_equal(context, 0)
    with pytest.raises(RuntimeError, match="call reset"):
        task.step(np.full(3, LEFT))


def test_walking_into_a_wall_costs_a_thousandth(running: Engines) -> None:
    task = MazeTrials(EngineWorld(MAZES, running), np.random.default_rng(2), steps=45)
    task.reset()
    paid = np.array([task.step(np.full(3, FORWARD))[1] for _ in range(45)])
    kinds = {round(float(one), 3) for one in paid.ravel()}
    assert -0.041 in kinds and kinds <= {-0.04, -0.041, 0.96}
    low, high = REWARD_RANGE
    assert low <= paid.min() and paid.max() <= high


def test_a_maze_that_looks_otherwise_is_walked_alike(running: Engines, tmp_path: Path) -> None:
    other = wad_for(MAZES, tmp_path, looks=np.random.default_rng(4))
    plain = walked(running, 20)
    poses = running.poses.copy()
    with Engines(other, 3) as painted:
        shown = walked(painted, 20)
        np.testing.assert_array_equal(painted.poses, poses)
    apart = np.abs(shown.astype(int) - plain).mean((1, 2, 3))
    assert (apart > 5).all(), "the same textures and light"
    with Engines(wad_for(MAZES, tmp_path, looks=np.random.default_rng(4)), 3) as again:
        np.testing.assert_array_equal(walked(again, 20), shown)


def test_a_rollout_that_looks_once_plays_as_one_that_looks_twice(running: Engines) -> None:
    policy = build("vision", {}, seed=3)
    played = []
    for network in (policy, cast(Network, LooksTwice(policy))):
        task = MazeTrials(EngineWorld(MAZES, running), np.random.default_rng(3), steps=12)
        played.append(play(network, task, np.random.default_rng(4)).record)
    once, twice = played
    assert torch.equal(once.action, twice.action)
    torch.testing.assert_close(once.context, twice.context)
    (logits,) = policy.logits([once])
    assert torch.isfinite(logits).all()


def test_a_picture_as_context_is_what_the_service_makes_of_its_bytes() -> None:
    from contract.encode import encode_pixels

    picture = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    np.testing.assert_array_equal(as_context(picture[None])[0], encode_pixels(picture.tobytes()))


def test_a_missing_or_other_wad_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"none\.wad: expected a WAD of mazes, but No such file"):
        check_wad(tmp_path / "none.wad")
    other = tmp_path / "other.wad"
    other.write_bytes(b"IWAD" + bytes(200))
    with pytest.raises(EngineError, match="expected a whole WAD of mazes, got another file"):
        Engines(other, 1)
    whole = wad_for(MAZES[:2], tmp_path).read_bytes()
    other.write_bytes(whole[:-20])
    with pytest.raises(EngineError, match="expected a whole WAD of mazes"):
        check_wad(other)
    other.write_bytes(whole.replace(b"M000000\0", b"MAP01\0\0\0"))
    with pytest.raises(EngineError, match="got one that starts with MAP01"):
        check_wad(other)


def test_too_little_shared_memory_is_said_before_an_engine_starts(
    wad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EngineError, match="expected shared memory for 2 engines, found none"):
        refuse_little_shared_memory(2, tmp_path / "nowhere")
    monkeypatch.setattr(engine_module, "SHARED_BYTES", 1 << 60)
    with pytest.raises(EngineError, match="--shm-size=1g"):
        Engines(wad, 2)


def test_mazes_and_workers_that_there_are_not_are_refused(running: Engines, wad: Path) -> None:
    with pytest.raises(EngineError, match="maze: expected 0 to 5 of the WAD, got 6"):
        running.load([0], [6])
    with pytest.raises(EngineError, match="workers: expected 1 to 1, got 2"):
        Engines(wad, 1, workers=2)
