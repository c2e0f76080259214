"""Evaluation of a bundle: pairing, shape of the answer, and the command around it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from contract.policy import OnnxPolicy
from tests.bundles import DECIDE, write_counting_bundle
from tests.house.tree import ROOT
from training.baselines import Actions, History, thompson, ucb1, uniform
from training.evaluate import evaluate_bandits, play_trials, recurrent, to_json
from training.evaluate_cli import app
from training.opponents import Family, fitting, opponents
from training.paired import Comparison
from training.tasks.bandits import BernoulliBandits
from training.tasks.drift import Drift

pytestmark = pytest.mark.usefixtures("kept_tables")


@pytest.fixture(scope="module")
def kept_tables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tables are cached for this module alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCLIMATE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


GREEDY = DECIDE.replace("soft = Softmax <axis = 1>", "soft = Hardmax <axis = 1>").replace(
    "share = Div (wins, smoothed)", "more = Add (wins, prior)\n    share = Div (more, smoothed)"
)
"""Always the arm with the largest (wins + 1) / (pulls + 1), the first of equals."""


def greedy(history: History, rng: np.random.Generator) -> Actions:
    """What GREEDY does, in numpy."""
    actions: Actions = np.argmax((history.rewards + 1) / (history.pulls + 1), axis=1)
    return actions


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_counting_bundle(tmp_path_factory.mktemp("policies"), decide=GREEDY)


@pytest.fixture(scope="module")
def policy(bundle: Path) -> OnnxPolicy:
    return OnnxPolicy.load(bundle)


def test_a_policy_paired_with_its_own_twin_differs_by_nothing_at_all(policy: OnnxPolicy) -> None:
    cell = evaluate_bandits(
        policy, n=40, k=4, trials=1_500, seed=3, baselines={"twin": greedy, "ts": thompson()}
    )
    twin = cell.baselines["twin"]
    assert cell.policy > 0.6 * 40, "it must have learned, or the test shows nothing"
    assert (twin.reward, twin.difference, twin.difference_se) == (cell.policy, 0.0, 0.0)
    assert cell.baselines["ts"].difference_se > 0


def test_the_difference_is_policy_minus_baseline_and_pairing_narrows_it(
    policy: OnnxPolicy,
) -> None:
    cell = evaluate_bandits(policy, n=50, k=3, trials=2_000, seed=1)
    for baseline in cell.baselines.values():
        assert baseline.difference == pytest.approx(cell.policy - baseline.reward, abs=1e-9)
    assert cell.baselines["ts"].difference_se < np.sqrt(2) * cell.policy_se


def test_the_same_seed_gives_the_same_cell_and_another_another(policy: OnnxPolicy) -> None:
    first, again, other = (
        evaluate_bandits(policy, n=10, k=5, trials=300, seed=seed) for seed in (7, 7, 8)
    )
    assert first == again
    assert first != other


def test_the_coin_of_a_step_is_the_same_whoever_pulls(policy: OnnxPolicy) -> None:
    def rewards(always: int) -> np.ndarray:
        bandits = BernoulliBandits(200, 4, 20, np.random.default_rng([7, 0]))
        bandits.reset()
        equal_means = np.full((200, 4), 0.5)
        bandits.means = equal_means
        return np.stack([bandits.step(np.full(200, always))[1] for _ in range(20)])

    assert np.array_equal(rewards(0), rewards(3))


def test_greedy_takes_the_most_probable_arm_and_sampling_does_not_always(
    tmp_path: Path,
) -> None:
    soft = OnnxPolicy.load(write_counting_bundle(tmp_path))
    history = History.blank(500, 3)
    history.observe(np.ones(500, np.int64), np.ones(500))
    rng = np.random.default_rng(0)
    most_probable, sampled = recurrent(soft, n=9, greedy=True), recurrent(soft, n=9)
    for player in (most_probable, sampled):
        player(History.blank(500, 3), rng)
    assert (most_probable(history, rng) == 1).all()
    assert 0.6 < (sampled(history, rng) == 1).mean() < 0.95


def test_sampled_and_greedy_play_are_scored_on_the_same_trials(tmp_path: Path) -> None:
    soft = OnnxPolicy.load(write_counting_bundle(tmp_path))
    both = evaluate_bandits(soft, n=30, k=3, trials=400, seed=5, baselines={})
    alone = evaluate_bandits(soft, n=30, k=3, trials=400, seed=5, baselines={}, greedy=True)
    assert both.greedy_play is not None
    assert alone.greedy_play is None
    assert alone.policy == both.greedy_play.reward
    assert both.policy - alone.policy == pytest.approx(both.greedy_play.difference)
    assert both.policy != alone.policy


def test_a_players_figures_do_not_depend_on_who_else_plays(policy: OnnxPolicy) -> None:
    alone = evaluate_bandits(policy, n=20, k=3, trials=200, seed=5, baselines={"ts": thompson()})
    others = {"ucb1": ucb1(), "another": thompson(), "ts": thompson()}
    among = evaluate_bandits(policy, n=20, k=3, trials=200, seed=5, baselines=others)
    assert among.baselines["ts"] == alone.baselines["ts"]
    assert among.baselines["another"] != alone.baselines["ts"]


@pytest.mark.parametrize(("delay", "batch"), [(3, 1), (0, 4), (2, 5)])
@pytest.mark.parametrize("drift", ["none", "change-points"])
def test_a_twin_is_a_twin_where_feedback_is_late_or_in_batches(
    policy: OnnxPolicy, delay: int, batch: int, drift: Drift
) -> None:
    family = Family(drift=drift, delay=delay, batch=batch)
    cell = evaluate_bandits(
        policy, n=30, k=4, trials=300, seed=3, family=family, baselines={"twin": greedy}
    )
    assert cell.baselines["twin"] == Comparison(cell.policy, 0.0, 0.0)
    prompt = evaluate_bandits(
        policy, n=30, k=4, trials=300, seed=3, family=Family(drift=drift), baselines={}
    )
    assert prompt.policy > cell.policy


def test_nothing_is_fed_back_before_it_is_known(policy: OnnxPolicy) -> None:
    seen = []

    def watch(history: History, rng: np.random.Generator) -> Actions:
        seen.append((history.decisions, history.position, int(history.pulls.sum()) // 5))
        return np.zeros(5, np.int64)

    play_trials(watch, Family(delay=2, batch=2).trials(5, 3, 7, rng()), rng())
    assert [position for _, position, _ in seen] == [0, 0, 0, 0, 2, 2, 4]
    assert all(position == pulls for _, position, pulls in seen)
    assert [decisions for decisions, _, _ in seen] == list(range(7))


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_the_curves_within_a_trial_add_up_to_the_totals(policy: OnnxPolicy) -> None:
    cell = evaluate_bandits(policy, n=25, k=4, trials=1_200, seed=3)
    for name, comparison in cell.baselines.items():
        curve = cell.curves[name]
        assert curve.ahead[-1] == pytest.approx(comparison.difference)
        assert curve.ahead_se[-1] == pytest.approx(comparison.difference_se)
        assert curve.reward.sum() == pytest.approx(comparison.reward, abs=0.3)
    assert cell.curves["random"].reward == pytest.approx(np.full(25, 0.5), abs=0.04)


def test_gaussian_arms_are_played_by_those_who_believe_in_them(policy: OnnxPolicy) -> None:
    family = Family(arms="gaussian")
    assert "gittins" not in fitting(family, 30)
    cell = evaluate_bandits(
        policy, n=30, k=3, trials=300, seed=1, family=family, baselines=opponents(family, 30)
    )
    reward = {name: baseline.reward for name, baseline in cell.baselines.items()}
    assert reward["ts"] > reward["random"] + 5
    assert reward["ucb1"] > reward["greedy"]
    assert cell.published == {}
    assert cell.optimum is None


def test_who_fits_a_family_depends_on_it() -> None:
    usual = ("gittins", "ts", "ots", "ucb1", "epsilon_greedy", "greedy", "random")
    assert fitting(Family(), 500) == usual
    assert fitting(Family(), 501) == usual[1:]
    assert fitting(Family(drift="slow"), 9) == (*usual, "discounted_ts", "discounted_ucb1")


def test_the_answer_has_the_documented_shape(policy: OnnxPolicy) -> None:
    (cell,) = to_json([evaluate_bandits(policy, n=5, k=2, trials=20, seed=0)])["cells"]
    comparison = {"reward", "difference", "difference_se"}
    wanted = {"n", "k", "trials", "policy", "policy_se", "greedy_play", "optimum", "published"}
    assert set(cell) == wanted | {"baselines"}
    assert (cell["n"], cell["k"], cell["trials"]) == (5, 2, 20)
    assert set(cell["greedy_play"]) == comparison
    assert set(cell["baselines"]) == {"ts", "ucb1", "random"}
    for baseline in cell["baselines"].values():
        assert set(baseline) == comparison


def test_baselines_score_on_these_tasks_what_they_score_elsewhere(policy: OnnxPolicy) -> None:
    """Duan et al. (2016), table 1: TS 74.7, UCB1 78.0, random 49.9."""
    cell = evaluate_bandits(
        policy,
        n=100,
        k=5,
        trials=3_000,
        seed=7,
        baselines={"ts": thompson(), "ucb1": ucb1(), "random": uniform},
    )
    for name, published in (("ts", 74.7), ("ucb1", 78.0), ("random", 49.9)):
        assert cell.baselines[name].reward == pytest.approx(published, abs=3 * 0.62), name


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"trials": 1}, "trials: expected at least 2"),
        ({"k": 51}, "k: expected 2 to 50"),
        ({"n": 0}, "n: expected at least 1"),
    ],
)
def test_an_impossible_evaluation_is_refused(
    policy: OnnxPolicy, wrong: dict[str, int], message: str
) -> None:
    settings = {"n": 10, "k": 5, "trials": 10, "seed": 0} | wrong
    with pytest.raises(ValueError, match=message):
        evaluate_bandits(
            policy,
            n=settings["n"],
            k=settings["k"],
            trials=settings["trials"],
            seed=settings["seed"],
        )


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["bandits", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_with_json_there_is_only_json_on_standard_output(bundle: Path) -> None:
    arguments = ("--policy", str(bundle), "--trials", "50", "--seed", "7", "--json")
    status, out, _ = run(*arguments, "--n", "10", "--n", "20", "--k", "5")
    assert status == 0
    assert [(cell["n"], cell["k"]) for cell in json.loads(out)["cells"]] == [(10, 5), (20, 5)]


def test_without_json_there_is_a_table_of_every_player(bundle: Path) -> None:
    status, out, _ = run("--policy", str(bundle), "--trials", "50", "--n", "10")
    assert status == 0
    words = ("n = 10, k = 5", "counting/1", "ts", "ucb1", "random", "±", "gittins", "SNAIL", "RL²")
    for word in words:
        assert word in out
    assert "6.66" in out, "the exact optimum"


def test_the_report_holds_figures_pictures_and_the_command_that_made_them(
    bundle: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "report"
    arguments = ("--policy", str(bundle), "--trials", "50", "--seed", "7", "--json")
    status, out, _ = run(*arguments, "--n", "10", "--k", "5", "--report", str(directory))
    assert status == 0
    assert json.loads((directory / "cells.json").read_text()) == json.loads(out)
    text = (directory / "report.md").read_text()
    (cell,) = json.loads(out)["cells"]
    for word in ("acclimate", "seed 7", "50 trials", f"{cell['policy']:.2f}", "SNAIL"):
        assert word in text
    for name in cell["baselines"]:
        assert f"| {name} |" in text
    assert (directory / "within-trial-10-5.png").stat().st_size > 10_000
    assert "within-trial-10-5.png" in text


def test_drifting_late_and_gaussian_families_can_be_asked_for(bundle: Path) -> None:
    arguments = ("--policy", str(bundle), "--n", "20", "--k", "4", "--trials", "20", "--json")
    shifts = ("--drift", "slow", "--delay", "2", "--batch", "3", "--arms", "gaussian")
    status, out, _ = run(*arguments, *shifts)
    assert status == 0
    (cell,) = json.loads(out)["cells"]
    assert "discounted_ts" in cell["baselines"]
    assert "gittins" not in cell["baselines"]


def test_only_the_baselines_asked_for_play(bundle: Path) -> None:
    arguments = ("--policy", str(bundle), "--n", "10", "--trials", "20", "--json")
    _, out, _ = run(*arguments, "--baseline", "greedy", "--baseline", "gittins")
    assert list(json.loads(out)["cells"][0]["baselines"]) == ["greedy", "gittins"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--policy", "nowhere"), "manifest.json"),
        (("--policy", str(ROOT / "policies/mdps/1")), "mdps/1, which was trained on mdps"),
        (("--k", "0"), "k: expected 2 to 50"),
        (("--k", "1"), "k: expected 2 to 50"),
        (("--trials", "1"), "trials: expected at least 2"),
        (("--delay", "5"), "delay: expected 0 to 4"),
        (("--batch", "6"), "batch: expected 1 to 5"),
        (("--drift", "fast"), "drift: expected one of none, change-points, slow"),
        (("--arms", "poisson"), "arms: expected one of bernoulli, gaussian"),
        (("--baseline", "psrl"), "baseline: expected one of gittins, ts"),
        (("--baseline", "ts", "--baseline", "ts"), "baseline: expected each once"),
        (("--table",), "table: expected without n and k"),
        (("--report", __file__), "report: expected a directory"),
    ],
)
def test_bad_input_exits_with_2_and_says_what_was_expected(
    bundle: Path, arguments: tuple[str, ...], said: str
) -> None:
    status, out, error = run("--policy", str(bundle), "--n", "5", *arguments)
    assert (status, out) == (2, "")
    assert said in error
