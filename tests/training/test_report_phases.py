"""A report says what each phase of a training gained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from acclimate import main
from training import checkpoints
from training.ledger_training import FIT
from training.report_phases import told_as_played, told_of_phases


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "universal"
    small = ["--shared", "4", "--row", "3", "--width", "8", "--horizons", "1", "--groups", "1"]
    small += ["--families", "2", "--steps-per-group", "200", "--decisions", "5", "10"]
    small += ["--fitting", "3", "--iterations", "4", "--check-every", "4", "--out", str(out)]
    done = CliRunner().invoke(main, ["train", "universal", *small])
    assert done.exit_code == 0, done.output
    return out


def told(run: Path) -> list[str]:
    learner, record, h, curriculum = checkpoints.load(run / checkpoints.FILE)
    return told_of_phases(learner, int(record["seed"]), h, curriculum, run).splitlines()


def test_the_fixed_trials_are_told_before_the_first_and_at_the_end_of_each_phase(run: Path) -> None:
    rows = [line.split("|")[1:-1] for line in told(run) if line.startswith("|")]
    assert [row[0].strip() for row in rows if row[0].strip("- ")] == [
        "untrained",
        "after 3 iterations",
        "after 4 iterations, TRPO from 4",
    ]
    untrained, fitted, trained = ([float(cell) for cell in row[1:]] for row in rows[2:])
    learner, *_ = checkpoints.load(run / checkpoints.FILE)
    name = rows[0][1].strip()
    assert fitted[0] == pytest.approx(learner.history[2][name], abs=0.01)
    assert trained[0] == pytest.approx(learner.history[3][name], abs=0.01)
    assert untrained != fitted


def test_a_fit_to_a_ledger_is_told_too(run: Path) -> None:
    fit = {"accounts": 200, "held_out": 20, "before": 1.5, "after": 0.75, "action_means": 1.25}
    (run / FIT).write_text(json.dumps(fit))
    said = " ".join(told(run))
    assert "180 accounts of a ledger" in said
    assert "20 others: 1.5000 before, 0.7500 after, 1.2500 by the mean" in said


def test_without_fixed_trials_the_curve_is_told_by_phase() -> None:
    history = [{"iteration": i, "steps": 9 * i, "stage": 0, "advice": 1 / i} for i in range(1, 21)]
    history += [{"iteration": i, "steps": 300, "stage": 2, "steps 1": 60.0} for i in range(1, 4)]
    assert told_as_played(history[:20]) == ""
    rows = [line.split("|")[1:-1] for line in told_as_played(history).splitlines() if "|" in line]
    said = [[cell.strip() for cell in row] for row in rows[2:]]
    assert said == [
        ["memory", "20", "advice", "0.4567", "0.0559"],
        ["together", "3", "steps 1", "60", "60"],
    ]
    (*_, last) = told_as_played([*history, {"iteration": 24, "kl": 0.01}]).splitlines()
    assert last == "| TRPO | 1 | kl | 0.01 | 0.01 |"
