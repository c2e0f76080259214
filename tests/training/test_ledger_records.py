"""What an exported file says, what it leaves out, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from acclimate import main
from contract.spec import WorkflowSpec, load_workflow
from tests.house.tree import ROOT
from tests.training.ledgers import write
from training.evaluate_ledger import scored
from training.ledger_records import read_log
from training.ledger_rows import LogError

WORKFLOW = ROOT / "workflows" / "brand-choice.yaml"
POLICY = ROOT / "policies" / "bandits" / "2"


def spec() -> WorkflowSpec:
    return load_workflow(WORKFLOW)


def rows(accounts: int = 12, decisions: int = 6) -> list[dict[str, Any]]:
    """Uniform play, fed back at once."""
    rng, actions = np.random.default_rng(1), spec().action_ids
    return [
        {
            "workflow": spec().workflow,
            "account_id": f"a{b}",
            "context": {},
            "action": str(rng.choice(actions)),
            "probability": 1 / len(actions),
            "reason": "policy",
            "reward": float(rng.integers(0, 2)),
        }
        for b in range(accounts)
        for _ in range(decisions)
    ]


def run(file: Path, *words: str) -> tuple[int, str, str]:
    arguments = ["evaluate", "ledger", str(file), "--policy", str(POLICY)]
    done = CliRunner().invoke(main, [*arguments, "--workflow", str(WORKFLOW), *words])
    return done.exit_code, done.stdout, " ".join(done.output.split())


def test_decisions_that_cannot_be_estimated_on_are_learned_from_and_counted(tmp_path: Path) -> None:
    given = rows()
    given[0] |= {"probability": None}
    given[1] |= {"probability": 0.0}
    given[2] |= {"probability": 1.0, "reason": "memory_unavailable"}
    given[3] |= {"reward": None}
    given[8] |= {"reward_kind": "default"}
    given.append(given[0] | {"workflow": "another"})
    log = read_log(write(tmp_path / "log.jsonl", given), spec())
    found = log.found
    assert (found.without_probability, found.impossible_probability) == (1, 1)
    assert dict(found.certain) == {"memory_unavailable": 1}
    assert (found.without_feedback, found.default_rewards) == (1, 1)
    assert dict(found.other_workflows) == {"another": 1}
    assert scored(log).tolist() == list(range(4, 72))
    assert len(log.interactions.reward) == 71
    assert log.decisions.folded[:6].tolist() == [0, 1, 2, 3, 3, 4]


def test_feedback_that_came_late_is_not_known_before_it_came(tmp_path: Path) -> None:
    given = rows(1, 3)
    for row, (known, place) in zip(given, [(0, 2), (0, 1), (1, 3)], strict=True):
        row |= {"memory_position": known, "memory_generation": 0}
        row |= {"interaction_position": place, "interaction_generation": 0}
    log = read_log(write(tmp_path / "log.jsonl", given), spec())
    assert log.interactions.decision.tolist() == [1, 0, 2]
    assert log.decisions.folded.tolist() == [0, 0, 1]


def test_a_past_that_was_revised_is_read_as_it_was_then(tmp_path: Path) -> None:
    given = rows(1, 3)
    for n, row in enumerate(given):
        row |= {"memory_position": n, "memory_generation": int(n == 2)}
        row |= {"interaction_position": n + 1, "interaction_generation": int(n == 2)}
    first = {"generation": 0, "position": 1, "folded_reward": 0.0, "episode_end": False}
    given[0] |= {"feedback": [first], "interaction_generation": 1, "reward": 1.0}
    log = read_log(write(tmp_path / "log.jsonl", given), spec())
    assert log.histories == 2
    assert log.decisions.history.tolist() == [0, 0, 1]
    then, now = (log.interactions.reward[log.interactions.history == h] for h in (0, 1))
    assert (then[0], now[0]) == (0.0, 1.0)


def test_a_reset_leaves_nothing_of_what_was_before(tmp_path: Path) -> None:
    given = rows(1, 5)
    heads = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    for row, (generation, position) in zip(given, heads, strict=True):
        row |= {"memory_generation": generation, "memory_position": position}
        row |= {"interaction_generation": generation, "interaction_position": position + 1}
    log = read_log(write(tmp_path / "log.jsonl", given), spec())
    newest = log.interactions.history == log.newest[0]
    assert log.interactions.decision[newest].tolist() == [3, 4]
    assert log.decisions.folded.tolist() == [0, 1, 2, 0, 1]


def test_a_past_that_the_file_lacks_a_part_of_is_told(tmp_path: Path) -> None:
    given = rows(1, 3)
    for n, row in enumerate(given):
        row |= {"memory_position": 40 + n, "interaction_position": 41 + n}
    log = read_log(write(tmp_path / "log.jsonl", given), spec())
    assert log.found.incomplete_accounts == 1
    assert log.decisions.folded.tolist() == [0, 1, 2]
    assert log.decisions.position.tolist() == [40, 41, 42]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"action": "bribe"}, "line 2: action: expected one of"),
        ({"context": {"mood": 1}}, "line 2: context.mood: expected a declared feature"),
        ({"context": "{"}, "line 2: context: expected JSON"),
        ({"reward": 7}, "line 2: reward: expected 0 to 1, got 7"),
        ({"probability": "high"}, "line 2: probability: expected a number or null"),
        ({"asked_for": ["bribe"]}, "line 2: asked_for: expected the workflow's actions"),
        ({"memory_position": -1}, "line 2: memory_position: expected a whole number from 0"),
    ],
)
def test_a_row_that_fits_no_decision_is_refused_with_its_line(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    given = rows(1, 2)
    given[1] |= change
    with pytest.raises(LogError) as error:
        read_log(write(tmp_path / "log.jsonl", given), spec())
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("log.jsonl", "", "expected decisions of brand-choice, found no decisions at all"),
        ("log.jsonl", "{", "line 1: expected JSON"),
        ("log.jsonl", '{"action": "a"}', "line 1: expected a column account_id"),
        ("log.vw", "", "expected a file ending in .jsonl or .parquet"),
        ("log.parquet", "PAR", "expected a whole Parquet file"),
    ],
)
def test_a_file_that_is_no_log_is_refused(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    code, out, everything = run(tmp_path / name)
    assert (code, out) == (2, "")
    assert said in everything


def test_a_log_in_which_nothing_was_left_to_chance_is_refused_with_the_reason(
    tmp_path: Path,
) -> None:
    given = [row | {"reason": "fallback", "probability": 1.0} for row in rows()]
    code, _, everything = run(write(tmp_path / "log.jsonl", given))
    assert code == 2
    assert "at least 10 accounts that a policy drew by chance" in everything
    assert "fallback 72" in everything


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert run(tmp_path / "none.jsonl")[0] == 2


def test_the_command_gives_the_estimates_as_a_table_as_json_and_as_a_report(
    tmp_path: Path,
) -> None:
    file = write(tmp_path / "log.jsonl", rows(30))
    code, out, _ = run(file, "--json", "--report", str(tmp_path / "report"))
    assert code == 0
    found = json.loads(out)
    assert set(found["estimates"]) == {"logged", "ips", "snips", "dr"}
    assert found["overlap"]["decisions"] == 180
    assert found == json.loads((tmp_path / "report" / "ope.json").read_text())
    assert "| dr: " in (tmp_path / "report" / "report.md").read_text()
    assert run(file)[0] == 0
