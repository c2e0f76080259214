"""The peers: each is the algorithm it is named after, and keeps to what it may know."""

from __future__ import annotations

import json

import numpy as np
import pytest

from contract.encode import context_size
from tests.training.letters import SPEC, Letters
from training.peers import missing
from training.peers.joint import JointLinear
from training.peers.linear import DisjointLinear, PooledLinTS
from training.peers.missing import PeerMissingError, need
from training.peers.player import Player, Terms, with_bias
from training.peers.prior import Evidence, JointPrior, fit_joint_prior
from training.peers.roster import PEERS, TUNED, Known, build, defaults, named, tuned
from training.peers.tune import search
from training.tasks.workflows.families import FAMILIES, TRAINING_VERTICALS, family_spec
from training.workflow_play import play

K, C = 3, 2


def terms(accounts: int, seed: int = 0) -> Terms:
    return Terms(
        accounts, K, C, np.zeros((K, 0), np.float32), 0.0, 1.0, np.random.default_rng(seed)
    )


def prior_of(variance: float, noise: float = 1.0) -> JointPrior:
    size = K * (C + 1)
    return JointPrior(np.zeros(size), variance * np.eye(size), np.full(K, noise))


def teach(players: list[DisjointLinear | JointLinear], rounds: int, accounts: int) -> None:
    """The same interactions for all, some accounts a round."""
    rng = np.random.default_rng(5)
    for _ in range(rounds):
        who = np.flatnonzero(rng.random(accounts) < 0.7)
        context = rng.uniform(-1, 1, (who.size, C)).astype(np.float32)
        action = rng.integers(K, size=who.size)
        reward = np.clip(0.5 + 0.3 * context[:, 0] * (action - 1), 0, 1)
        for player in players:
            player.learn(who, context, action, reward, np.ones(who.size, bool))


def test_an_account_alone_is_ridge_regression() -> None:
    player = DisjointLinear(terms(1), ridge=2.0, slopes=0.5, centre=0.25)
    rng = np.random.default_rng(1)
    seen = rng.uniform(-1, 1, (30, C)).astype(np.float32)
    earned = rng.random(30)
    for x, reward in zip(seen, earned, strict=True):
        player.learn(np.array([0]), x[None], np.array([1]), np.array([reward]), np.array([True]))
    x = with_bias(seen).astype(np.float64)
    penalty = np.diag([2.0 / 0.5, 2.0 / 0.5, 2.0])
    weights = np.linalg.solve(x.T @ x + penalty, x.T @ (earned - 0.25))
    assert player._mean[0, 1] == pytest.approx(weights, abs=1e-4)
    assert player._covariance[0, 1] == pytest.approx(np.linalg.inv(x.T @ x + penalty), abs=1e-4)
    assert not player._mean[0, 0].any()


def test_a_joint_prior_without_correlations_is_ridge_again() -> None:
    """Over several blocks of accounts, some of which learn only in part."""
    alone = DisjointLinear(terms(150), ridge=2.0, discount=0.95)
    joint = JointLinear(terms(150), prior_of(0.5), discount=0.95)
    teach([alone, joint], 40, 150)
    assert joint._mean.reshape(150, K, C + 1) == pytest.approx(alone._mean, abs=1e-4)


def test_under_a_joint_prior_one_action_speaks_for_another() -> None:
    size = K * (C + 1)
    alike = JointPrior(np.zeros(size), np.tile(np.eye(C + 1), (K, K)), np.full(K, 0.1))
    player = JointLinear(terms(1), alike)
    nothing = np.zeros((1, C), np.float32)
    player.learn(np.array([0]), nothing, np.array([0]), np.array([1.0]), np.array([True]))
    untried = player._mean.reshape(K, C + 1)[2, -1]
    assert untried == pytest.approx(1 / 1.1, abs=1e-3)


def test_what_forgets_returns_to_its_prior_and_no_further() -> None:
    player = DisjointLinear(terms(1), ridge=2.0, slopes=0.5, discount=0.8)
    x = np.array([[0.3, -0.7]], np.float32)
    for action in [0] * 20 + [1] * 60:
        player.learn(np.array([0]), x, np.array([action]), np.array([1.0]), np.array([True]))
    assert player._mean[0, 0] == pytest.approx(np.zeros(C + 1), abs=1e-4)
    assert player._covariance[0, 0] == pytest.approx(np.diag([0.25, 0.25, 0.5]), abs=1e-4)


def test_a_bound_is_the_mean_and_a_width_of_deviations() -> None:
    """LinUCB tries what it knows least of: the action that was never served."""
    player = DisjointLinear(terms(1), ridge=1.0, explore="ucb", width=3.0)
    x, mask = np.zeros((1, C), np.float32), np.ones((1, K), bool)
    for action in (0, 1):
        for _ in range(20):
            player.learn(np.array([0]), x, np.array([action]), np.array([1.0]), np.array([True]))
    assert player.choose(x, mask)[0] == 2
    assert player.choose(x, np.array([[True, True, False]]))[0] in (0, 1)


def test_thompson_draws_spread_as_the_posterior_does() -> None:
    """Two actions of equal mean are chosen alike; a third is certain to be worse."""
    wide = terms(4_000)
    player = DisjointLinear(wide, ridge=1.0, explore="ts", width=0.5)
    joint = JointLinear(terms(4_000, 1), prior_of(1.0), width=0.5)
    everyone, x = np.arange(4_000), np.zeros((4_000, C), np.float32)
    for _ in range(30):
        for one in (player, joint):
            zeros = np.zeros(4_000)
            one.learn(everyone, x, np.full(4_000, 2), zeros - 3.0, np.ones(4_000, bool))
    for one in (player, joint):
        shares = np.bincount(one.choose(x, np.ones((4_000, K), bool)), minlength=K) / 4_000
        assert shares == pytest.approx([0.5, 0.5, 0.0], abs=0.03)


def test_the_prior_is_found_again_from_logs() -> None:
    rng = np.random.default_rng(3)
    size, accounts, steps = K * (C + 1), 800, 60
    mixing = 0.1 * rng.normal(size=(size, size))
    truth = JointPrior(rng.normal(size=size), mixing @ mixing.T, np.array([0.04, 0.01, 0.09]))
    weights = rng.multivariate_normal(truth.mean, truth.covariance, accounts)
    context = rng.uniform(-1, 1, (steps, accounts, C)).astype(np.float32)
    served = rng.integers(K, size=(steps, accounts))
    x = np.stack([with_bias(each) for each in context])
    own = weights.reshape(accounts, K, C + 1)[np.arange(accounts), served]
    noise = rng.normal(size=served.shape) * np.sqrt(truth.noise)[served]
    reward = np.einsum("tnd,tnd->tn", own, x) + noise
    evidence = Evidence.of(context, served, reward, K)
    halves = Evidence.together(
        Evidence.of(context[:, part], served[:, part], reward[:, part], K)
        for part in (slice(0, 400), slice(400, None))
    )
    assert np.array_equal(evidence.squares, halves.squares)
    found = fit_joint_prior(evidence)
    assert found.mean == pytest.approx(truth.mean, abs=0.05)
    assert found.noise == pytest.approx(truth.noise, rel=0.05)
    assert np.abs(found.covariance - truth.covariance).max() < 0.25 * truth.covariance.max()


def test_one_model_for_all_teaches_the_next_account() -> None:
    player = PooledLinTS(terms(1), ridge=1.0, width=0.01)
    x = np.zeros((6, C), np.float32)
    actions = np.array([0, 0, 1, 1, 2, 2])
    for _ in range(20):
        player.learn(np.arange(6), x, actions, (actions == 1) * 1.0, np.ones(6, bool))
    assert (player.choose(x[:2], np.ones((2, K), bool)) == 1).all()


@pytest.mark.parametrize("name", PEERS)
def test_everybody_plays_lawfully_and_learners_beat_chance(name: str) -> None:
    """Letters raises for an action that the mask forbids; feedback is late for some."""
    logged = Letters(120, 40, seed=1)
    random = build("random", Known({}, 0, None), logged, slice(None), np.random.default_rng(0))
    logs = play(random, logged)
    shares = (logs.reward + 1) / 4
    prior = fit_joint_prior(Evidence.of(logs.context, logs.served, shares, 3), rounds=5)
    accounts = Letters(40, 60, seed=2, latest=3)
    player = build(name, Known({}, 1, prior), accounts, slice(0, 30), np.random.default_rng(3))
    late = np.nanmean(play(player, accounts, slice(0, 30)).expected[30:])
    chance = np.nanmean(play(random_of(accounts), accounts, slice(0, 30)).expected[30:])
    if PEERS[name].kind in ("scratch", "fitted", "oracle"):
        assert late > chance + 0.1


def random_of(accounts: Letters) -> Player:
    return build("random", Known({}, 0, None), accounts, slice(0, 30), np.random.default_rng(4))


def test_rules_and_fixed_actions_are_served_as_the_guardrails_serve_them() -> None:
    accounts = Letters(50, 5, seed=3)
    accounts.reset()
    now = accounts.situation()
    nothing, rng = np.zeros((50, context_size(SPEC)), np.float32), np.random.default_rng(0)
    known = Known({}, 2, None)
    fallback = build("fallback", known, accounts, slice(None), rng).choose(nothing, now.mask)
    by_rule = np.where(now.columns["mood"] & now.mask[:, 2], 2, 1)
    assert np.array_equal(fallback, by_rule)
    part = build("fallback", known, accounts, slice(10, 20), rng)
    assert np.array_equal(part.choose(nothing[10:20], now.mask[10:20]), by_rule[10:20])
    fixed = build("best_fixed", known, accounts, slice(None), rng).choose(nothing, now.mask)
    assert np.array_equal(fixed, np.where(now.mask[:, 2], 2, 1))


def test_a_missing_package_names_the_extra_that_brings_it() -> None:
    with pytest.raises(PeerMissingError, match=r"peer vw needs no_such_package.*\[peers\]"):
        need("no_such_package.inner", "vw")
    assert missing.need("json", "any") is json


def test_peers_are_chosen_by_name_in_the_order_of_the_roster() -> None:
    assert named(["fitted_ts", "lin_ucb"]) == ("lin_ucb", "fitted_ts")
    assert set(named(None)) == set(PEERS) - {"oracle"}
    with pytest.raises(ValueError, match=r"--peer: expected one of .*, got 'oracle'"):
        named(["oracle"])


def test_a_search_holds_what_it_does_not_try() -> None:
    asked = []

    def score(parameters: dict[str, float]) -> float:
        asked.append(parameters)
        return -((parameters["x"] - 2) ** 2) - 0.1 * (parameters["y"] - parameters["x"]) ** 2

    found, best, tried = search({"x": (0, 1, 2), "y": (0, 2)}, {"x": 0, "y": 0, "z": 7}, score)
    assert found == {"x": 2, "y": 2, "z": 7}
    assert (best, tried) == (0, len(asked))
    assert all(parameters["z"] == 7 for parameters in asked)


def test_what_was_tuned_was_tuned_on_training_verticals_and_still_fits_the_roster() -> None:
    stored = json.loads(TUNED.read_text())["workflows"] if TUNED.exists() else {}
    assert set(stored) <= set(FAMILIES)
    for workflow, found in tuned().items():
        assert set(stored[workflow]["verticals"]) <= set(TRAINING_VERTICALS[workflow])
        assert found.best_fixed in family_spec(workflow).action_ids
        assert PEERS[found.best_peer].kind in ("scratch", "fitted", "fixed")
        assert PEERS[found.best_discounting].discounts
        for name, parameters in found.parameters.items():
            assert set(parameters) == set(defaults(name)), name
