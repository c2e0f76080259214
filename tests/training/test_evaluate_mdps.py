"""Evaluation of a bundle on tabular MDPs: what it is shown, pairing, the command, the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from contract.encode import horizon_left
from contract.policy import OnnxPolicy
from tests.bundles import Sizes, write_counting_bundle
from training.baselines_mdps import PUBLISHED, Actions, History
from training.evaluate_cli import app
from training.evaluate_mdps import evaluate_mdps, named, recurrent, to_json
from training.tasks.mdps import STATES, TabularMDPs

SIZES = Sizes(shared=3, row=2 * STATES, context=STATES, features=1)

# Its memory: rows hold sums of shown rewards and counts by state; shared, ended episodes, steps
# and the sum of shown rewards. Its value is the larger of the two numbers on what is left.
DECIDE = """<ir_version: 9, opset_import: ["" : 18]>
decide (float[B, 3] shared, float[B, K, 20] rows, float[B, 10] context, bool[B, K] action_mask,
        float[B, 2] horizon_left, float[B, K, 1] action_features)
    => (float[B, K] probabilities, float[B] value)
    <int64[1] last = {2}, int64[1] one = {1}, int64[2] split = {10, 10}, float unit = {1.0}>
{
    sums, counts = Split <axis = 2> (rows, split)
    here = Unsqueeze (context, one)
    sums_here = Mul (sums, here)
    counts_here = Mul (counts, here)
    sum = ReduceSum <keepdims = 0> (sums_here, last)
    count = ReduceSum <keepdims = 0> (counts_here, last)
    more = Add (count, unit)
    scores = Div (sum, more)
    probabilities = Hardmax <axis = 1> (scores)
    value = ReduceMax <keepdims = 0> (horizon_left, one)
}"""

LEARN = """<ir_version: 9, opset_import: ["" : 18]>
learn (float[B, 3] shared, float[B, K, 20] rows, float[B, 10] context, int64[B] action,
       float[B] reward, float[B] done, float[B, K, 1] action_features)
    => (float[B, 3] shared_next, float[B, K, 20] rows_next)
    <int64[1] one = {1}, int64[1] last = {2}, int64 axis1 = {1}, float[2] off_on = {0.0, 1.0}>
{
    shape = Shape (rows)
    depth = Gather <axis = 0> (shape, axis1)
    hot = OneHot <axis = 1> (action, depth, off_on)
    hot3 = Unsqueeze (hot, last)
    reward1 = Unsqueeze (reward, one)
    paid = Mul (context, reward1)
    both = Concat <axis = 1> (paid, context)
    both3 = Unsqueeze (both, one)
    change = Mul (hot3, both3)
    rows_next = Add (rows, change)
    done1 = Unsqueeze (done, one)
    step = ReduceSum <keepdims = 1> (context, one)
    noted = Concat <axis = 1> (done1, step, reward1)
    shared_next = Add (shared, noted)
}"""


def twin(history: History, rng: np.random.Generator) -> Actions:
    """What DECIDE does, in numpy: the largest mean of shown rewards here, the first of equals."""
    here = (np.arange(history.state.size), history.state)
    shown = (history.rewards[here] - history.visits[here]) / 6.0
    actions: Actions = (shown / (history.visits[here] + 1.0)).round(5).argmax(axis=1)
    return actions


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("policies")
    return write_counting_bundle(home, decide=DECIDE, learn=LEARN, sizes=SIZES)


@pytest.fixture(scope="module")
def policy(bundle: Path) -> OnnxPolicy:
    return OnnxPolicy.load(bundle)


def test_a_policy_paired_with_its_own_twin_differs_by_next_to_nothing(
    policy: OnnxPolicy,
) -> None:
    """Clipping aside, which one reward in 30,000 needs: so nearly every trial is the very same."""
    cell = evaluate_mdps(
        policy, n=6, trials=700, seed=3, baselines={"twin": twin} | named(["random"])
    )
    assert cell.policy > cell.baselines["random"].reward + 20, "or the test shows nothing"
    assert abs(cell.baselines["twin"].difference) < 0.02
    assert cell.baselines["twin"].difference_se < 0.02
    assert cell.greedy_play is not None
    assert (cell.greedy_play.difference, cell.greedy_play.difference_se) == (0.0, 0.0)
    np.testing.assert_allclose(cell.by_episode["twin"], cell.by_episode["policy"], atol=0.05)


def test_the_policy_is_shown_where_it_acted_what_it_was_paid_and_what_is_left(
    bundle: Path,
) -> None:
    seen, left = [], []

    class Watched(OnnxPolicy):
        def learn(self, memory, **shown):  # type: ignore[no-untyped-def]
            after = super().learn(memory, **shown)
            seen.append(after)
            return after

        def decide(self, memory, **shown):  # type: ignore[no-untyped-def]
            probabilities, value = super().decide(memory, **shown)
            left.append(value)
            return probabilities, value

    player = recurrent(Watched.load(bundle), n=3)
    task = TabularMDPs(40, 3, np.random.default_rng(0))
    task.reset()
    history = History.blank(40, 3)
    rng = np.random.default_rng(1)
    for t in range(30):
        assert len(seen) == max(t - 1, 0)
        action = player(history, rng)
        np.testing.assert_array_equal(left[t], horizon_left(t, 30).max())
        if t:
            shared, rows = seen[-1]
            np.testing.assert_array_equal(shared[:, 0], t // 10)
            np.testing.assert_array_equal(shared[:, 1], t)
            np.testing.assert_array_equal(rows[..., STATES:], history.visits.swapaxes(1, 2))
            paid = (history.rewards - history.visits).swapaxes(1, 2) / 6.0
            np.testing.assert_allclose(rows[..., :STATES], paid, atol=1e-5)
        _, reward, *_ = task.step(action)
        history.observe(action, reward, task.state)


def test_the_difference_is_policy_minus_baseline_and_pairing_narrows_it(
    policy: OnnxPolicy,
) -> None:
    cell = evaluate_mdps(policy, n=8, trials=600, seed=1, baselines=named(["greedy", "random"]))
    for one in cell.baselines.values():
        assert one.difference == pytest.approx(cell.policy - one.reward, abs=1e-9)
    assert cell.baselines["greedy"].difference_se < np.sqrt(2) * cell.policy_se
    assert cell.by_episode["policy"].sum() == pytest.approx(cell.policy)
    assert cell.policy < cell.optimum < 8 * 22.5


def test_a_baseline_earns_the_same_whoever_else_plays(policy: OnnxPolicy) -> None:
    alone, crowd, other = (
        evaluate_mdps(policy, n=3, trials=600, seed=seed, greedy=greedy, baselines=named(names))
        for seed, greedy, names in (
            (7, True, ["psrl"]),
            (7, False, ["random", "beb", "psrl"]),
            (8, True, ["psrl"]),
        )
    )
    assert alone.baselines["psrl"].reward == crowd.baselines["psrl"].reward
    assert alone.baselines["psrl"].reward != other.baselines["psrl"].reward


def test_baselines_score_here_what_they_score_in_print(policy: OnnxPolicy) -> None:
    cell = evaluate_mdps(
        policy, n=10, trials=1_000, seed=5, baselines=named(["psrl", "beb", "random"])
    )
    for name, one in cell.baselines.items():
        assert one.reward == pytest.approx(PUBLISHED[name][10], abs=3 * np.sqrt(2) * 0.85), name


def test_the_answer_has_the_documented_shape(policy: OnnxPolicy) -> None:
    cells = to_json([evaluate_mdps(policy, n=n, trials=4, seed=0) for n in (1, 10)])["cells"]
    assert [cell["n"] for cell in cells] == [1, 10]
    assert cells[0]["published"] == {}
    assert cells[1]["published"] == {"rl2": 156.2, "snail": 159.1}
    for cell in cells:
        assert {"policy", "policy_se", "optimum", "trials", "greedy_play"} < set(cell)
        assert set(cell["baselines"]) == {
            *("psrl", "opsrl", "ucrl2", "beb", "epsilon_greedy", "greedy", "random", "planner")
        }
        for one in (*cell["baselines"].values(), cell["greedy_play"]):
            assert set(one) == {"reward", "difference", "difference_se"}


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["mdps", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_with_json_there_is_only_json_on_standard_output(bundle: Path) -> None:
    arguments = ("--policy", str(bundle), "--trials", "20", "--seed", "7", "--json")
    status, out, _ = run(*arguments, "--n", "1", "--n", "2", "--baseline", "random", "--greedy")
    assert status == 0
    cells = json.loads(out)["cells"]
    assert [cell["n"] for cell in cells] == [1, 2]
    assert set(cells[0]["baselines"]) == {"random"}
    assert "greedy_play" not in cells[0]


def test_without_json_there_is_a_table_of_every_player_and_the_figures_in_print(
    bundle: Path,
) -> None:
    status, out, _ = run("--policy", str(bundle), "--trials", "20", "--n", "10")
    assert status == 0
    for word in ("n = 10", "counting/1", "planner", "opsrl", "144.1", "RL²", "156.2", "SNAIL", "±"):
        assert word in out


def test_the_report_has_a_table_for_every_n_and_its_pictures(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "report"
    arguments = ("--policy", str(bundle), "--trials", "20", "--report", str(out))
    status, _, error = run(*arguments, "--n", "3", "--n", "10", "--baseline", "psrl")
    assert status == 0, error
    text = (out / "report.md").read_text(encoding="utf-8")
    for word in ("## n = 3, 20 trials", "## n = 10, 20 trials", "| psrl |", "138.1", "seed 0"):
        assert word in text
    assert sorted(path.name for path in out.iterdir()) == [
        "by-episode.png",
        "by-n.png",
        "report.md",
    ]
    for picture in out.glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--policy", "nowhere"), "manifest.json"),
        (("--n", "0"), "n: expected at least 1"),
        (("--trials", "1"), "trials: expected at least 2"),
        (("--baseline", "psrll"), "baseline: expected one of random, psrl"),
        (("--baseline", "psrl", "--baseline", "psrl"), "baseline: expected each once"),
        (("--report", __file__), "report: expected a directory"),
    ],
)
def test_bad_input_exits_with_2_and_says_what_was_expected(
    bundle: Path, arguments: tuple[str, ...], said: str
) -> None:
    status, out, error = run("--policy", str(bundle), *arguments)
    assert (status, out) == (2, "")
    assert said in error


def test_a_policy_that_is_shown_no_state_is_refused(tmp_path: Path) -> None:
    status, _, error = run("--policy", str(write_counting_bundle(tmp_path)), "--n", "5")
    assert status == 2
    assert "policy: expected one that is shown 10 states" in error
