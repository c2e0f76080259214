"""Off-policy estimates against the truth: what only a simulator knows of a log."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from contract.policy import OnnxPolicy
from tests.house.tree import ROOT
from tests.training.ledgers import log_accounts, mixed
from training.evaluate_ledger import Settings, evaluate, scored
from training.ledger_records import Log, read_log
from training.logged_policy import Past, pasts, probabilities
from training.off_policy import Evaluation, quantile_t
from training.off_policy import evaluate as estimates
from training.reward_model import predictions
from training.tasks.workflows.families import TRAINING_VERTICALS, build_accounts

WORKFLOW = "retention-offer"
ACCOUNTS, STEPS, A_GROUP = 900, 7, 30
Array = NDArray[Any]


class Case(NamedTuple):
    """A log of simulated accounts, and a policy on it."""

    log: Log
    policy: OnnxPolicy
    target: Array
    """`[N', K]`, as everything here: of the decisions that are scored."""
    truth: Array
    """Expected reward of the policy at each, `[N']`."""
    predicted: Array

    def of(self, rows: Array, predicted: Array | None = None) -> Evaluation:
        """Estimates from some of the decisions."""
        made, at = self.log.decisions, scored(self.log)[rows]
        return estimates(
            account=made.account[at],
            action=made.action[at],
            reward=made.reward[at],
            logged=made.probability[at],
            target=self.target[rows],
            predicted=(self.predicted if predicted is None else predicted)[rows],
        )


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    accounts = build_accounts(
        WORKFLOW,
        TRAINING_VERTICALS[WORKFLOW][0],
        accounts=ACCOUNTS,
        steps=STEPS,
        rng=np.random.default_rng(11),
    )
    logged = log_accounts(accounts, mixed(accounts, 0.6), np.random.default_rng(12))
    log = read_log(logged.write(tmp_path_factory.mktemp("log") / "log.jsonl"), accounts.spec)
    policy = OnnxPolicy.load(ROOT / "policies" / "bandits" / "2")
    at = scored(log)
    target = probabilities(policy, log, blind=True)[at]
    truth = (target * logged.means[at]).sum(1)
    predicted = predictions(log.decisions, pasts(log), at, np.random.default_rng(0))
    return Case(log, policy, target, truth, predicted)


def test_all_three_estimates_agree_with_the_truth_of_a_simulated_workflow(case: Case) -> None:
    found = case.of(np.arange(len(case.truth)))
    truth = case.truth.mean()
    for one in (found.ips, found.snips, found.dr):
        assert one.low < truth < one.high
        assert one.high - one.low < 0.1
    assert found.dr.se < found.ips.se
    assert found.overlap.warnings() == []
    assert abs(found.logged.value - truth) > 0 and found.logged.difference == 0


def test_intervals_hold_in_small_runs_and_dr_varies_less(case: Case) -> None:
    account = case.log.decisions.account[scored(case.log)]
    truth, rng = case.truth.mean(), np.random.default_rng(13)
    held: dict[str, list[bool]] = {"ips": [], "snips": [], "dr": []}
    missed: dict[str, list[float]] = {name: [] for name in held}
    for _ in range(4):
        group = rng.permuted(np.arange(ACCOUNTS) // A_GROUP)[account]
        for number in range(ACCOUNTS // A_GROUP):
            found = case.of(np.flatnonzero(group == number))
            for name in held:
                one = getattr(found, name)
                held[name].append(one.low < truth < one.high)
                missed[name].append(one.value - truth)
    for name in held:
        assert 0.88 <= np.mean(held[name]) <= 0.99, name
        assert abs(np.mean(missed[name])) < 0.02, name
    assert np.std(missed["dr"]) < 0.95 * np.std(missed["ips"])


def test_a_useless_reward_model_leaves_dr_right(case: Case) -> None:
    rows = np.arange(len(case.truth))
    wrong = np.random.default_rng(3).random(case.predicted.shape)
    found = case.of(rows, wrong).dr
    assert found.low < case.truth.mean() < found.high
    assert found.se > case.of(rows).dr.se


def test_a_policy_evaluated_on_what_it_would_have_drawn_earns_what_was_logged(case: Case) -> None:
    made, at = case.log.decisions, scored(case.log)
    own = np.zeros_like(case.target)
    own[np.arange(len(at)), made.action[at]] = made.probability[at]
    found = estimates(
        account=made.account[at],
        action=made.action[at],
        reward=made.reward[at],
        logged=made.probability[at],
        target=own,
        predicted=case.predicted,
    )
    assert found.ips.value == pytest.approx(found.logged.value)
    assert found.ips.difference_se == pytest.approx(0, abs=1e-9)
    assert found.overlap.effective == pytest.approx(found.overlap.decisions)


def synthetic(
    rng: np.random.Generator, accounts: int, target: Array, logged: Array
) -> tuple[Evaluation, Evaluation]:
    """A run of accounts that differ, evaluated with the means as model and with none."""
    n, K = rng.integers(2, 12, accounts), len(target)
    account = np.repeat(np.arange(accounts), n)
    means = np.clip(
        0.1 + 0.2 * np.arange(K) + 0.2 * rng.normal(size=(accounts, 1))[account], 0.02, 0.98
    )
    action = rng.choice(K, size=len(account), p=logged)
    reward = (rng.random(len(account)) < means[np.arange(len(account)), action]).astype(float)
    whole = np.broadcast_to(target, means.shape)

    def of(predicted: Array) -> Evaluation:
        return estimates(
            account=account,
            action=action,
            reward=reward,
            logged=logged[action],
            target=whole,
            predicted=predicted,
        )

    return of(means), of(np.zeros_like(means))


def test_intervals_hold_as_often_as_they_say() -> None:
    """400 runs of 40 accounts; clustered intervals, where decisions of one account are alike."""
    rng = np.random.default_rng(5)
    target, logged = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.4, 0.3, 0.2, 0.1])
    truth = np.mean([synthetic(rng, 4_000, target, logged)[0].dr.value for _ in range(5)])
    held: dict[str, int] = dict.fromkeys(("ips", "snips", "dr"), 0)
    values: dict[str, list[float]] = {name: [] for name in held}
    for _ in range(400):
        found, without = synthetic(rng, 40, target, logged)
        assert without.dr.value == pytest.approx(without.ips.value)
        for name in held:
            one = getattr(found, name)
            held[name] += one.low < truth < one.high
            values[name].append(one.value)
    for name, count in held.items():
        assert 0.915 <= count / 400 <= 0.98, name
    assert np.std(values["dr"]) < 0.75 * np.std(values["ips"])
    assert np.std(values["snips"]) < np.std(values["ips"])


def test_the_quantile_is_that_of_students_t() -> None:
    table = {5: 2.5706, 9: 2.2622, 29: 2.0452, 999: 1.9623}
    for freedom, value in table.items():
        assert quantile_t(0.975, freedom) == pytest.approx(value, rel=2e-3)


def test_poor_overlap_and_wrong_probabilities_are_warned_of() -> None:
    rng = np.random.default_rng(6)
    rare = np.array([0.003, 0.997])
    found, _ = synthetic(rng, 200, np.array([0.95, 0.05]), rare)
    assert any("overlap is poor" in one for one in found.overlap.warnings())
    never = np.array([0.0, 1.0])
    found, _ = synthetic(rng, 200, np.array([0.5, 0.5]), never)
    assert any("no chance" in one for one in found.overlap.warnings())


def test_the_model_of_the_reward_never_saw_the_account_that_it_predicts(case: Case) -> None:
    made, at = case.log.decisions, scored(case.log)
    past = pasts(case.log)
    before = predictions(made, past, at, np.random.default_rng(0))
    own = made.account == 5
    reward = np.where(own, 1.0 - made.reward, made.reward)
    changed = made.__class__(**(vars(made) | {"reward": reward}))
    after = predictions(changed, past, at, np.random.default_rng(0))
    np.testing.assert_allclose(after[own[at]], before[own[at]], atol=0.02)
    assert np.abs(after[~own[at]] - before[~own[at]]).max() > 0


def test_what_is_known_of_an_account_is_what_had_been_fed_back_by_then(case: Case) -> None:
    log, past = case.log, pasts(case.log)
    assert isinstance(past, Past)
    made, came = log.decisions, log.interactions
    for n in (3, 77, 4_000):
        mine = (came.history == made.history[n]) & (came.ordinal < made.folded[n])
        assert past.number[n] == mine.sum()
        served = made.action[came.decision[mine]]
        np.testing.assert_array_equal(past.number_of[n], np.bincount(served, minlength=6))
        assert past.total[n] == pytest.approx((2 * came.reward[mine] - 1).sum(), abs=1e-5)


def test_the_whole_way_gives_the_same_figures_again(case: Case) -> None:
    settings = Settings(blind=True, greedy=True)
    first, again = (evaluate(case.policy, case.log, settings) for _ in range(2))
    assert first.evaluation == again.evaluation
    assert first.evaluation.ips.value != case.of(np.arange(len(case.truth))).ips.value
    assert any("memory_unavailable" in one for one in first.warnings)
