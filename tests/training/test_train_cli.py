"""`acclimate train` and `acclimate export`: what they refuse, and what they say."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from acclimate import main
from training import report, trpo
from training.checkpoints import FILE, load
from training.run import reproducing

ADVICE = ".venv/bin/pip install -e '.[train]' -c constraints.txt"

TINY = [
    *shlex.split("--teacher none --shared 5 --row 4 --width 6"),
    *shlex.split("--groups 1 --horizons 1 --steps-per-group 30"),
    *shlex.split("--arms 2 2 --pulls 3 4 --cg-iterations 2 --iterations 1"),
]


DIVERGING = [*TINY, *shlex.split("--critic-rate 1e30")]
"""The critic's weights overflow in its second step."""


def acclimate(*arguments: str) -> tuple[int, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["acclimate", *arguments])
        result = CliRunner().invoke(main, arguments)
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "--iterations or --minutes"),
        (["--arms", "1", "60"], "--arms: expected 2 to 50"),
        (["--arms", "2", "60"], "--arms: expected 2 to 50"),
        (["--arms", "0", "5"], "--arms: expected 2 to 50"),
        (["--iterations", "1", "--pulls", "0", "5"], "--pulls: expected at least 1"),
        (["--iterations", "1", "--teacher", "planner"], "planner teaches mdps, not bandits"),
        (["--iterations", "1", "--lesson-parts", "0"], "--lesson-parts: expected at least 1"),
        (["--iterations", "1", "--gae-lambda", "2"], "--gae-lambda: expected"),
        (["--iterations", "1", "--critic-rate", "1e300"], "--critic-rate: expected"),
        (["--iterations", "1", "--lesson-rate", "1e300"], "--lesson-rate: expected"),
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


def test_a_critic_that_diverges_stops_the_run_before_anything_is_saved(tmp_path: Path) -> None:
    out = tmp_path / "run"
    code, output = acclimate("train", "bandits", "--out", str(out), *DIVERGING, "--save-every", "1")
    assert code == 3
    assert "iteration 1: the critic's " in output
    assert "is not finite" in output
    assert "no checkpoint was saved yet" in output
    assert FILE not in output
    assert list(out.iterdir()) == []


def test_weights_that_overflow_in_the_very_last_step_are_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflow(learner: trpo.Learner, *_: Any) -> float:
        for parameter in learner.policy.value_parameters():
            parameter.data.fill_(torch.inf)
        return 0.0

    monkeypatch.setattr(trpo, "fit_value", overflow)
    out = tmp_path / "run"
    code, output = acclimate("train", "bandits", "--out", str(out), *TINY)
    assert code == 3
    assert "iteration 1: policy.value" in output
    assert list(out.iterdir()) == []


def test_a_run_that_diverges_later_keeps_and_names_its_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    assert acclimate("train", "bandits", "--out", str(out), *TINY)[0] == 0
    kept = (out / FILE).read_bytes()
    fit = trpo.fit_critic

    def overflow(learner: trpo.Learner, *rest: Any) -> float:
        learner.critic_optimiser.param_groups[0]["lr"] = 1e30
        return fit(learner, *rest)

    monkeypatch.setattr(trpo, "fit_critic", overflow)
    more = [*TINY, "--iterations", "3", "--resume"]
    code, output = acclimate("train", "bandits", "--out", str(out), *more)
    assert code == 3
    assert "iteration 2: the critic's " in output
    assert f"{out / FILE} is the last good checkpoint" in output
    assert (out / FILE).read_bytes() == kept


def test_the_recorded_command_reproduces_a_resumed_run(tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    whole = ["train", "bandits", "--out", out, *TINY]
    assert acclimate(*whole)[0] == 0
    assert acclimate(*whole, "--iterations", "2", "--resume")[0] == 0
    learner, record, _, _ = load(tmp_path / "run" / FILE)
    command = shlex.split(record["command"])
    assert command.count("--iterations") == 1
    assert command[command.index("--iterations") + 1] == "2"
    assert "--resume" not in command
    command[command.index("--out") + 1] = str(tmp_path / "again")
    assert acclimate(*command[1:])[0] == 0
    again = load(tmp_path / "again" / FILE)[0]
    for one, other in zip(learner.policy.parameters(), again.policy.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("typed", ["--minutes 3 --resume", "--minutes=3", "--iterations=9"])
def test_the_recorded_command_counts_iterations_however_it_was_stopped(typed: str) -> None:
    command = reproducing(f"acclimate train bandits {typed} --out 'a b'", 5)
    assert command == "acclimate train bandits --out 'a b' --iterations 5"
    assert reproducing(command, 6) == "acclimate train bandits --out 'a b' --iterations 6"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--radius", "0.5"], "--radius"),
        (["--seed", "9"], "--seed"),
        (["--arms", "2", "5"], "--arms"),
        (["--no-expected-rewards"], "--expected-rewards"),
    ],
)
def test_a_run_is_not_resumed_with_other_settings(
    options: list[str], named: str, tmp_path: Path
) -> None:
    whole = ["train", "bandits", "--out", str(tmp_path), *TINY]
    assert acclimate(*whole)[0] == 0
    kept = (tmp_path / FILE).read_bytes()
    code, output = acclimate(*whole, "--iterations", "2", "--resume", *options)
    assert code == 2
    assert f"{named}: " in output
    assert (tmp_path / FILE).read_bytes() == kept
    same = ["--radius", "0.01", "--seed", "1"]
    assert acclimate(*whole, "--iterations", "2", "--resume", *same)[0] == 0


@pytest.mark.parametrize("below", ["", "deeper"])
def test_an_out_that_cannot_be_a_directory_is_refused(below: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    code, output = acclimate("train", "bandits", "--out", str(file / below), *TINY)
    assert (code, "--out: " in output) == (2, True)
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    ("out", "options", "named"),
    [
        ("p/0", [], "--version"),
        ("p/05", [], "--version"),
        ("p/5", ["--version", "7"], "--version"),
        ("p/1", ["--name", "Not A Name"], "--name"),
        ("p/1", ["--name", ""], "--name"),
        ("Bad_Name/1", [], "--name"),
    ],
)
def test_a_bundle_of_an_impossible_name_is_refused_in_words(
    out: str, options: list[str], named: str, tmp_path: Path
) -> None:
    assert acclimate("train", "bandits", "--out", str(tmp_path / "run"), *TINY)[0] == 0
    code, output = acclimate("export", str(tmp_path / "run"), str(tmp_path / out), *options)
    assert code == 2
    assert f"error: {named}: " in output
    assert "pydantic" not in output
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


def test_an_export_says_that_the_evaluation_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "CELLS", ((3, 3, 1),))
    monkeypatch.setattr(report, "WITHIN_TRIAL", (3, 3, 10))
    assert acclimate("train", "bandits", "--out", str(tmp_path / "run"), *TINY)[0] == 0
    bundle = ["export", str(tmp_path / "run"), str(tmp_path / "p" / "1")]
    code, output = acclimate(*bundle, "--evaluation-trials", "20")
    assert code == 0, output
    assert "playing 20 trials for the report" in output
    told = (tmp_path / "p" / "1" / "report.md").read_text()
    row = next(line for line in told.splitlines() if line.startswith("| 3 | 3 | 20 | "))
    assert row.count(" ± ") == 4  # sampled, and its differences from greedy play, TS and UCB1
    code, output = acclimate(*bundle, "--force", "--evaluation-trials", "0")
    assert (code, "playing" in output) == (0, False)


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
    assert f"training needs torch: {ADVICE}" in trained.stderr


@pytest.mark.parametrize("module", ["torch", "onnx", "onnxscript"])
def test_an_export_without_its_libraries_says_how_to_get_them(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    code, output = acclimate("export", str(tmp_path), str(tmp_path / "p" / "1"))
    assert code == 2
    assert f"export needs {module}: {ADVICE}" in output
