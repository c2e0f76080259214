"""The baselines' own table: every one, on the same trials, beside what is in print."""

from __future__ import annotations

import json

import numpy as np
from typer.testing import CliRunner

from training.baselines_mdps import NAMED
from training.compare_mdps import TRIED, app, totals


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_table_names_every_baseline_beside_its_figure_in_print() -> None:
    out = run("table", "--n", "2", "--n", "10", "--trials", "4", "--seed", "1")
    for name in (*NAMED, "known MDP"):
        assert f"\n| {name} | " in out
    assert "| opsrl, in print |  | 144.1 |" in out


def test_json_has_reward_and_standard_error_of_each() -> None:
    figures = json.loads(run("table", "--n", "2", "--trials", "4", "--json"))
    assert set(figures["2"]) == {*NAMED, "known MDP"}
    assert set(figures["2"]["psrl"]) == {"reward", "se"}


def test_tuning_weighs_the_settings_that_are_used() -> None:
    """Each used setting, named with its arguments, plays as the baseline of that name does."""
    used = {
        "epsilon_greedy": "epsilon_greedy(0.1)",
        "beb": "beb(25.0)",
        "beb_prior": "beb_prior(1.0)",
        "ucrl2": "ucrl2(0.2, 0.05)",
        "planner": "planner(0.6, 0.25)",
    }
    for name, tried in used.items():
        same = {"player": NAMED[name]}, {"player": TRIED[tried]}
        first, second = (totals(one, 3, 30, seed=2)["player"] for one in same)
        np.testing.assert_array_equal(first, second, err_msg=name)


def test_everyone_meets_the_same_mdps() -> None:
    one = totals({"random": NAMED["random"]}, 4, 700, seed=3)
    other = totals({"greedy": NAMED["greedy"]}, 4, 700, seed=3)
    np.testing.assert_array_equal(one["known MDP"], other["known MDP"])
    assert one["known MDP"].shape == (700,)
