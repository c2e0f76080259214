"""A bundle on workflows: pairing, what is reported, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from acclimate import main
from training.evaluate_workflows import Settings, arrivals, decisions
from training.peers.roster import PEERS, SLOW_ACCOUNTS
from training.tasks.workflows.families import HELD_OUT_VERTICALS, TRAINING_VERTICALS

WORKFLOW = "retention-offer"
BANDITS = ["--policy", "policies/bandits/1", "--workflow", WORKFLOW]
SMALL = ["--accounts", "12", "--decisions", "50", "--peer", "ridge_greedy", "--peer", "lin_ts"]


def evaluated(*words: str) -> dict[str, object]:
    done = CliRunner().invoke(main, ["evaluate", "workflows", *BANDITS, *SMALL, *words, "--json"])
    assert done.exit_code == 0, done.output
    found: dict[str, object] = json.loads(done.stdout)
    return found


def refused(*words: str) -> str:
    done = CliRunner().invoke(main, ["evaluate", "workflows", *words])
    assert done.exit_code == 2, done.output
    return " ".join(done.output.split())


def test_every_held_out_vertical_is_a_row_in_pairs() -> None:
    found = evaluated("--blind", "--seed", "5")
    rows = found["rows"]
    assert isinstance(rows, list)
    assert [row["vertical"] for row in rows] == list(HELD_OUT_VERTICALS[WORKFLOW])
    for row in rows:
        assert row["workflow"] == WORKFLOW
        assert row["policy"] == "bandits/1"
        assert set(row["reward"]) == {"1", "5", "20"}
        assert set(row["peers"]) == {"ridge_greedy", "lin_ts", "fallback"}
        for peer in row["peers"].values():
            gap = row["reward"]["5"] - peer["reward"]["5"]
            assert peer["difference"]["5"] == pytest.approx(gap)
            assert peer["difference_se"]["5"] > 0
            assert peer["adaptation_interactions"] is None or peer["adaptation_interactions"] > 0
        assert row["oracle"]["reward"]["5"] > row["reward"]["5"]


def test_the_same_seed_gives_the_same_figures_whoever_else_plays() -> None:
    first = evaluated("--blind", "--seed", "5")
    again = evaluated("--blind", "--seed", "5", "--peer", "random")
    other = evaluated("--blind", "--seed", "6")
    rewards = [
        [row["reward"] for row in found["rows"]]  # type: ignore[attr-defined]
        for found in (first, again, other)
    ]
    assert rewards[0] == rewards[1] != rewards[2]


def test_a_report_has_every_vertical_with_its_command(tmp_path: Path) -> None:
    words = ["--blind", "--report", str(tmp_path), "--change-at", "20", "--delay", "2"]
    done = CliRunner().invoke(main, ["evaluate", "workflows", *BANDITS, *SMALL, *words])
    assert done.exit_code == 0, done.output
    text = (tmp_path / "report.md").read_text()
    for vertical in HELD_OUT_VERTICALS[WORKFLOW]:
        assert f"### {vertical}, 12 accounts" in text
    assert "Command: `acclimate" in text
    assert "before decision 21" in text
    assert (tmp_path / f"{WORKFLOW}.png").stat().st_size > 10_000
    assert json.loads((tmp_path / "rows.json").read_text())["settings"]["change_at"] == 20


def test_what_cannot_be_evaluated_is_refused_by_the_name_of_its_option() -> None:
    assert "expected at most 0 slots" in refused(*BANDITS)
    blind = (*BANDITS, "--blind")
    assert "--workflow: expected one of" in refused(*blind, "--workflow", "astrology")
    assert "--vertical: expected one of" in refused(*blind, "--vertical", "astrology")
    training = TRAINING_VERTICALS[WORKFLOW][0]
    assert f"got '{training}'" in refused(*blind, "--vertical", training)
    assert "--peer: expected one of" in refused(*blind, "--peer", "astrology")
    assert "--accounts: expected at least 2" in refused(*blind, "--accounts", "1")
    assert "--decisions: expected at least 10" in refused(*blind, "--decisions", "9")
    assert "--delay: expected 0 to 199" in refused(*blind, "--delay", "200")
    assert "--change-at: expected 1 to 199" in refused(*blind, "--change-at", "0")
    assert "--split: expected held-out or training" in refused(*blind, "--split", "test")
    assert "manifest.json" in refused("--policy", "policies")


@pytest.mark.parametrize("accounts", [2, 3, 100, 1_000])
def test_those_who_pool_meet_everybody_once_first_one_by_one(accounts: int) -> None:
    groups = arrivals("pooled_lin_ts", accounts)
    met = [account for group in groups for account in range(accounts)[group]]
    assert met == list(range(accounts))
    assert groups[0] == slice(0, 1)
    assert all(group.stop - group.start <= max(1, group.start) for group in groups)


def test_every_decision_is_counted() -> None:
    settings = Settings(accounts=1_000, decisions=10)
    assert arrivals("vw_squarecb", 1_000) == [slice(0, SLOW_ACCOUNTS)]
    with_slow = decisions(["vw_squarecb", "lin_ts"], settings)
    assert with_slow == 10 * (1_000 * 4 + SLOW_ACCOUNTS)
    assert {PEERS[name].kind for name in ("fallback", "oracle")} == {"fixed", "oracle"}
