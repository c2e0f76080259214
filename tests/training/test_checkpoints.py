"""Stopping and going on: a resumed run is the run that never stopped."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.trials import TINY, TINY_BANDITS, tiny_learner
from training import checkpoints
from training.checkpoints import CheckpointError, load, refuse_other_architecture, save
from training.descent import TrainingDivergedError
from training.policies.network import architecture, build
from training.run import Schedule, Stop, run, stop_on_signal
from training.trpo import Learner

TRAIN = [
    sys.executable,
    "-c",
    "from training.cli import train_app; train_app()",
    "bandits",
    *shlex.split("--teacher none --shared 5 --row 4 --width 6 --groups 2"),
    *shlex.split("--steps-per-group 60 --arms 2 4"),
    *shlex.split("--pulls 3 6 --cg-iterations 3 --save-every 1 --check-every 1000"),
]


def go(learner: Learner, path: Path, iterations: int, stop: Stop | None = None) -> dict[str, Any]:
    record: dict[str, Any] = {"seed": 1, "command": "a test", "seconds": 0.0, "task": "bandits"}
    schedule = Schedule(iterations=iterations, check_every=2, save_every=2)
    run(learner, TINY, TINY_BANDITS, record, schedule, path, stop or Stop(), lambda _: None)
    return record


def weights(learner: Learner) -> list[torch.Tensor]:
    return [*learner.policy.state_dict().values(), *learner.critic.state_dict().values()]


def test_a_resumed_run_continues_its_curve_exactly(tmp_path: Path) -> None:
    whole = tiny_learner()
    go(whole, tmp_path / "whole.pt", 6)
    halves = tiny_learner()
    go(halves, tmp_path / "halves.pt", 3)
    halves, record, hyperparameters, curriculum = load(tmp_path / "halves.pt")
    assert hyperparameters == TINY
    assert curriculum == TINY_BANDITS
    assert record["command"] == "a test --iterations 3"
    go(halves, tmp_path / "halves.pt", 6)
    assert halves.history == whole.history
    assert len(whole.history) == 6
    for one, other in zip(weights(halves), weights(whole), strict=True):
        assert torch.equal(one, other)


def test_a_wish_to_stop_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    learner = tiny_learner()
    go(learner, tmp_path / "c.pt", 100, Stop(by="SIGTERM"))
    assert load(tmp_path / "c.pt")[0].iteration == 0


def test_a_run_stopped_by_sigterm_and_resumed_continues_its_curve_exactly(tmp_path: Path) -> None:
    def train(out: Path, *options: str) -> subprocess.Popen[str]:
        command = [*TRAIN, "--out", str(out), *options]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    stopped = train(tmp_path / "stopped", "--iterations", "100000")
    path = tmp_path / "stopped" / checkpoints.FILE
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.2)
    stopped.send_signal(signal.SIGTERM)
    _, said = stopped.communicate(timeout=60)
    assert stopped.returncode == 0, said
    match = re.search(r"stopped by SIGTERM after iteration (\d+).*--resume", said, re.DOTALL)
    assert match, said
    reached = int(match[1])
    assert load(path)[0].iteration == reached

    total = str(reached + 3)
    for one in (
        train(tmp_path / "stopped", "--iterations", total, "--resume"),
        train(tmp_path / "whole", "--iterations", total),
    ):
        _, said = one.communicate(timeout=120)
        assert one.returncode == 0, said
    continued = load(path)[0]
    uninterrupted = load(tmp_path / "whole" / checkpoints.FILE)[0]
    assert continued.iteration == reached + 3
    assert continued.history == uninterrupted.history
    for a, b in zip(weights(continued), weights(uninterrupted), strict=True):
        assert torch.equal(a, b)
    assert (tmp_path / "stopped" / "curve.png").stat().st_size > 10_000


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_exits_at_once_and_a_second_hangup_does_not(number: int) -> None:
    before = signal.getsignal(signal.SIGHUP)
    with stop_on_signal() as stop:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        assert stop.by == "SIGHUP"
        with pytest.raises(SystemExit) as ended:
            signal.raise_signal(number)
        assert ended.value.code == 128 + number
    assert signal.getsignal(signal.SIGHUP) is before


def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signal() as stop:
            signal.raise_signal(signal.SIGHUP)
        assert stop.by is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_run_killed_twice_ends_within_its_iteration_and_leaves_a_whole_checkpoint(
    tmp_path: Path,
) -> None:
    path = tmp_path / checkpoints.FILE
    learner = tiny_learner()
    go(learner, path, 2)
    kept = path.read_bytes()

    def twice(_: dict[str, float]) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    record = load(path)[1]
    schedule = Schedule(iterations=9, save_every=9)
    with stop_on_signal() as stop, pytest.raises(SystemExit):
        run(learner, TINY, TINY_BANDITS, record, schedule, path, stop, twice)
    assert learner.iteration == 3
    assert path.read_bytes() == kept


def test_a_run_whose_terminal_is_closed_saves_before_it_ends(tmp_path: Path) -> None:
    path = tmp_path / checkpoints.FILE
    command = [*TRAIN, "--out", str(tmp_path), "--iterations", "100000", "--save-every", "100000"]
    child, terminal = pty.fork()
    if child == 0:
        os.execv(command[0], command)
    with contextlib.suppress(OSError):
        said = b""
        while b"gap closed 0." not in said:
            said += os.read(terminal, 4096)
    assert not path.exists()
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert load(path)[0].iteration > 0


def test_the_last_good_checkpoint_outlives_a_run_that_diverges(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    learner = tiny_learner()
    go(learner, path, 2)
    kept = path.read_bytes()
    with torch.no_grad():
        learner.critic.value.bias.fill_(torch.nan)
    with pytest.raises(TrainingDivergedError):
        go(learner, path, 4)
    assert path.read_bytes() == kept


@pytest.mark.parametrize("left", [0, 10, 1_000, -1])
def test_a_truncated_checkpoint_is_refused_and_left_as_it_was(tmp_path: Path, left: int) -> None:
    path = tmp_path / "c.pt"
    go(tiny_learner(), path, 1)
    path.write_bytes(path.read_bytes()[:left])
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match="truncated or not a checkpoint"):
        load(path)
    assert path.read_bytes() == before


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(3)}, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match="format"):
        load(tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match="no checkpoint there"):
        load(tmp_path / "nowhere.pt")


def test_a_checkpoint_of_another_architecture_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    go(tiny_learner(), path, 1)
    learner = load(path)[0]
    wanted = architecture(build("actionwise", {"shared": 6}))
    with pytest.raises(CheckpointError, match=r"shared 5.*shared 6.*was asked for"):
        refuse_other_architecture(path, learner, wanted)


def test_a_checkpoint_that_cannot_be_finished_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.pt"
    learner = tiny_learner()
    record = go(learner, path, 1)
    kept = path.read_bytes()

    def full(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        save(learner, record, TINY, TINY_BANDITS, path)
    assert path.read_bytes() == kept
    assert [file.name for file in tmp_path.iterdir()] == ["c.pt"]


def test_a_checkpoint_without_a_belief_is_not_resumed_with_one(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    go(tiny_learner(), path, 1)
    sizes = {"shared": 5, "row": 4, "width": 6, "belief": True}
    with pytest.raises(CheckpointError, match=r"belief False.*belief True.*was asked for"):
        refuse_other_architecture(path, load(path)[0], architecture(build("actionwise", sizes)))
