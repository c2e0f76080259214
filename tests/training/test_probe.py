"""What the probes read off a memory, and how choices are held beside the rules."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from acclimate import main
from contract.policy import OnnxPolicy
from tests.house.tree import ROOT
from training.baselines import History, gittins_table
from training.probe import agreement_with, posterior_of, probe, ridge

BANDITS = ROOT / "policies" / "bandits" / "1"


def history(pulls: list[list[int]], rewards: list[list[int]]) -> History:
    """What accounts saw, from counts alone."""
    made = History.blank(len(pulls), len(pulls[0]))
    made.pulls, made.rewards = np.array(pulls, float), np.array(rewards, float)
    made.position = made.decisions = int(made.pulls[0].sum())
    return made


def test_a_ridge_regression_finds_a_linear_map_whatever_the_features_scale() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(3.0, [1.0, 50.0, 0.02], (4_000, 3))
    truth = np.array([[1.0, -2.0], [0.1, 0.0], [20.0, 5.0]])
    weights, intercept = ridge(x, x @ truth + np.array([4.0, -1.0]))
    np.testing.assert_allclose(x @ weights + intercept, x @ truth + [4.0, -1.0], atol=0.02)


def test_the_posterior_is_that_of_a_flat_prior() -> None:
    found = posterior_of(history([[0, 3]], [[0, 2]]))
    np.testing.assert_allclose(found[0, :, 0], [1 / 2, 3 / 5])
    np.testing.assert_allclose(found[0, :, 1], [np.sqrt(1 / 12), np.sqrt(6 / 150)])


def test_choices_are_compared_with_the_rules_of_the_same_history() -> None:
    seen = history([[1, 0]] * 4_000, [[1, 0]] * 4_000)
    table, rng = gittins_table(5), np.random.default_rng(0)
    winner, other = (agreement_with(seen, np.full(4_000, arm), 4, table, rng) for arm in range(2))
    assert winner["gittins"] == winner["ucb1"] == 1.0
    assert other["gittins"] == other["ucb1"] == 0.0
    # P(X > Y) for X ~ Beta(2, 1), Y ~ Beta(1, 1) is E[X] = 2/3.
    assert winner["ts"] == pytest.approx(2 / 3, abs=0.01)
    assert other["ts"] == pytest.approx(1 / 3, abs=0.01)


def test_arms_of_equal_counts_are_equally_good_for_every_rule() -> None:
    blank = history([[0, 0, 0]], [[0, 0, 0]])
    rng = np.random.default_rng(0)
    found = agreement_with(blank, np.array([2]), 5, gittins_table(5), rng)
    assert found["gittins"] == found["ucb1"] == 1.0


def test_a_trained_memory_holds_the_posterior_and_its_arms_are_gittins_arms() -> None:
    found = probe(OnnxPolicy.load(BANDITS), n=20, k=4, trials=200, seed=3)
    for fit in found.posterior.values():
        assert fit.r2 > 0.95
        assert fit.r2_without_memory < 0.5
        assert len(fit.r2_by_position) == len(found.positions)
    assert found.positions[0] == 1
    assert found.positions[-1] == 20
    assert np.mean(found.agreement["gittins"]) > 0.8
    assert np.mean(found.agreement["gittins"]) > np.mean(found.agreement["ts"])
    for shares in found.never_tried.values():
        assert shares[0] == pytest.approx(1.0)
        assert 1.0 <= sum(shares) <= 4.0


def test_the_command_prints_json_and_draws_a_picture(tmp_path: Path) -> None:
    picture = tmp_path / "probe.png"
    command = ["probe", "--policy", str(BANDITS), "--n", "6", "--k", "3", "--trials", "40"]
    found = CliRunner().invoke(main, [*command, "--json", "--plot", str(picture)])
    assert found.exit_code == 0, found.output
    figures = json.loads(found.stdout)
    assert figures["policy"] == "bandits/1"
    assert len(figures["agreement"]["gittins"]) == 6
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_bandit_that_the_policy_does_not_fit_is_refused() -> None:
    command = ["probe", "--policy", str(BANDITS), "--k", "51"]
    found = CliRunner().invoke(main, command)
    assert found.exit_code == 2
    assert "k: expected 2 to 50 arms, got 51" in found.output
