"""Two processes are one learner: the same step, the same weights, one checkpoint."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from acclimate import main
from tests.house.tree import ROOT
from tests.training.two_processes import learner_of, update
from training import checkpoints
from training.distributed import DeviceError, refuse_missing_device

TRAIN = [
    *("train", "bandits", "--network", "gru", "--hidden", "6", "--seed", "3"),
    *("--arms", "3", "3", "--pulls", "5", "5", "--horizons", "1", "--groups", "1"),
    *("--steps-per-group", "60", "--save-every", "1", "--check-every", "100"),
    *("--teacher", "none"),
]


def torchrun(*command: str) -> str:
    """Two processes on this machine; what they wrote to stderr."""
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    found = subprocess.run(
        [*run, *command],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert found.returncode == 0, found.stderr
    return found.stderr


@pytest.mark.parametrize("network", ["gru", "actionwise", "planning"])
def test_two_processes_take_the_step_of_one_that_has_the_trials_of_both(
    network: str, tmp_path: Path
) -> None:
    torchrun("-m", "tests.training.two_processes", str(tmp_path), network)
    parts = [torch.load(tmp_path / f"{i}.pt", weights_only=False) for i in range(2)]
    played = [part[0] for part in parts]
    assert not torch.equal(played[0].record.action, played[1].record.action)

    learner, h = learner_of(network)
    before = [weight.clone() for weight in learner.policy.state_dict().values()]
    report = update(learner, h, played)
    assert report["scale"] > 0
    assert report == pytest.approx(parts[0][2], rel=1e-3)
    for process, other, mine in zip(
        parts[0][1], parts[1][1], (learner.policy, learner.critic), strict=True
    ):
        for name, weight in mine.state_dict().items():
            assert torch.equal(process[name], other[name]), name
            torch.testing.assert_close(process[name], weight, atol=2e-5, rtol=1e-4)
    moved = zip(before, learner.policy.state_dict().values(), strict=True)
    assert max(float((a - b).abs().max()) for a, b in moved) > 1e-2


def test_a_run_of_two_processes_writes_once_and_goes_on_as_if_never_stopped(
    tmp_path: Path,
) -> None:
    entry = ["-m", "tests.training.command"]
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    said = torchrun(*entry, *TRAIN, "--iterations", "3", "--out", str(straight))
    assert said.count("done: 3 iterations, 360 interactions") == 1
    torchrun(*entry, *TRAIN, "--iterations", "2", "--out", str(stopped))
    torchrun(*entry, *TRAIN, "--iterations", "3", "--out", str(stopped), "--resume")
    files = sorted(path.name for path in straight.iterdir())
    assert files == ["checkpoint.pt", "curve.png"]
    once, resumed = (checkpoints.read(path / "checkpoint.pt") for path in (straight, stopped))
    for name, weight in once["policy"].items():
        assert torch.equal(weight, resumed["policy"][name]), name
    assert len(once["other_rngs"]) == 1
    assert once["other_rngs"][0] != once["rng"]
    assert once["run"]["command"].startswith("torchrun --nproc-per-node 2 --no-python acclimate")

    alone = CliRunner().invoke(
        main, [*TRAIN, "--iterations", "4", "--out", str(straight), "--resume"]
    )
    assert alone.exit_code == 2
    assert "trained by 2 processes" in alone.output


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("family", ["bandits", "mdps"])
def test_a_device_that_is_not_there_is_refused_and_nothing_is_written(
    family: str, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    train = ["train", family, "--iterations", "1", "--out", str(out)]
    found = CliRunner().invoke(main, [*train, "--device", "cuda"])
    assert found.exit_code == 2
    assert "--device: cuda is not available here" in found.output
    assert not out.exists()
    found = CliRunner().invoke(main, [*train, "--device", "tpu"])
    assert (found.exit_code, "expected cpu or cuda, got tpu" in found.output) == (2, True)
    with pytest.raises(DeviceError, match="expected cpu or cuda, got tpu"):
        refuse_missing_device("tpu")
