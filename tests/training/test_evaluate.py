"""Evaluation of a bundle: pairing, shape of the answer, and the command around it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from contract.policy import OnnxPolicy
from tests.bundles import DECIDE, write_counting_bundle
from training.baselines import Actions, History, thompson, ucb1, uniform
from training.evaluate import evaluate_bandits, recurrent, to_json
from training.evaluate_cli import app
from training.tasks.bandits import BernoulliBandits

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


def test_the_answer_has_the_documented_shape(policy: OnnxPolicy) -> None:
    (cell,) = to_json([evaluate_bandits(policy, n=5, k=2, trials=20, seed=0)])["cells"]
    assert set(cell) == {"n", "k", "policy", "policy_se", "baselines"}
    assert (cell["n"], cell["k"]) == (5, 2)
    assert set(cell["baselines"]) == {"ts", "ucb1", "random"}
    for baseline in cell["baselines"].values():
        assert set(baseline) == {"reward", "difference", "difference_se"}


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
    for word in ("n = 10, k = 5", "counting/1", "ts", "ucb1", "random", "±"):
        assert word in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--policy", "nowhere"), "manifest.json"),
        (("--k", "1"), "k: expected 2 to 50"),
        (("--trials", "1"), "trials: expected at least 2"),
    ],
)
def test_bad_input_exits_with_2_and_says_what_was_expected(
    bundle: Path, arguments: tuple[str, ...], said: str
) -> None:
    status, out, error = run("--policy", str(bundle), "--n", "5", *arguments)
    assert (status, out) == (2, "")
    assert said in error
