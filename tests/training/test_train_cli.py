"""`acclimate train` and `acclimate export`: what they refuse, and what they say."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from acclimate import main
from training.checkpoints import FILE

TINY = [
    *shlex.split("--shared 5 --row 4 --width 6 --groups 1 --horizons 1 --steps-per-group 30"),
    *shlex.split("--arms 2 3 --pulls 3 4 --cg-iterations 2 --iterations 1"),
]


def acclimate(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, arguments)
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "--iterations or --minutes"),
        (["--iterations", "1", "--arms", "1", "5"], "k: expected 2 to 50"),
        (["--iterations", "1", "--pulls", "0", "5"], "n: expected at least 1"),
        (["--iterations", "1", "--row", "64"], "480 floats"),
        (["--iterations", "1", "--network", "gru"], "one number of actions"),
        (["--iterations", "1", "--resume"], "no checkpoint there"),
        (["--iterations", "0"], "iterations"),
        (["--network", "transformer"], "network"),
    ],
)
def test_training_that_cannot_be_is_refused_and_writes_nothing(
    options: list[str], said: str, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    code, output = acclimate("train", "bandits", "--out", str(out), *options)
    assert code == 2
    assert said in output
    assert not out.exists()


def test_a_run_is_not_started_over_another_and_not_resumed_as_another(tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    code, output = acclimate("train", "bandits", "--out", out, *TINY)
    assert code == 0, output
    kept = (tmp_path / "run" / FILE).read_bytes()
    code, output = acclimate("train", "bandits", "--out", out, *TINY)
    assert (code, "--resume" in output) == (2, True)
    code, output = acclimate("train", "bandits", "--out", out, *TINY, "--resume", "--width", "7")
    assert code == 2
    assert "width 6" in output
    assert "width 7" in output
    (tmp_path / "run" / FILE).write_bytes(kept[:-100])
    code, output = acclimate("train", "bandits", "--out", out, *TINY, "--resume")
    assert (code, "truncated" in output) == (2, True)
    assert (tmp_path / "run" / FILE).read_bytes() == kept[:-100]


def test_an_export_without_a_checkpoint_or_a_version_is_refused(tmp_path: Path) -> None:
    code, output = acclimate("export", str(tmp_path), str(tmp_path / "p" / "1"))
    assert (code, "no checkpoint there" in output) == (2, True)
    code, output = acclimate("export", str(tmp_path), str(tmp_path / "p" / "latest"))
    assert (code, "--version" in output) == (2, True)
    assert not (tmp_path / "p").exists()


def test_help_teaches_and_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; from acclimate import main; main()"
    helped = subprocess.run(
        [sys.executable, "-c", code, "train", "bandits", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "SIGTERM" in helped.stdout
    assert "--resume" in helped.stdout
    trained = subprocess.run(
        [sys.executable, "-c", code, "train", "bandits", "--iterations", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert trained.returncode == 2
    assert "pip install 'acclimate[train]'" in trained.stderr
