"""Oracles of workflows whose state moves: as good as trying every policy there is."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from training.tasks.workflows.chains import best_rate, chain_worth
from training.tasks.workflows.families import build_accounts
from training.tasks.workflows.onboarding import Onboarding
from training.tasks.workflows.simulation import SimulatedAccounts

Array = NDArray[Any]

KINDS, STAGES, ACTIONS = 2, 2, 3
SHARES = np.array([0.3, 0.7])


def small_chain(seed: int) -> tuple[Array, Array, Array]:
    """Rewards and probabilities of moving on and dropping out, `[1, M, S, K]` each."""
    rng = np.random.default_rng(seed)
    on, off, _ = np.moveaxis(rng.dirichlet((2, 1, 1), (1, KINDS, STAGES, ACTIONS)), -1, 0)
    return rng.random(on.shape) * on, on, off


def rate_of(policy: Array, rewards: Array, on: Array, off: Array) -> float:
    """Reward a decision of one policy `[M, S]`: the chain's linear equations, solved."""
    earned = taken = 0.0
    for kind, share in enumerate(SHARES):
        at = 0, kind, np.arange(STAGES), policy[kind]
        moves = np.diag(1.0 - on[at] - off[at]) + np.diag(on[at][:-1], 1)
        earned += share * np.linalg.solve(np.eye(STAGES) - moves, rewards[at])[0]
        taken += share * np.linalg.solve(np.eye(STAGES) - moves, np.ones(STAGES))[0]
    return earned / taken


@pytest.mark.parametrize("seed", range(5))
def test_the_best_rate_is_that_of_the_best_of_all_policies(seed: int) -> None:
    chain = small_chain(seed)
    policies = [
        np.reshape(choice, (KINDS, STAGES))
        for choice in itertools.product(range(ACTIONS), repeat=KINDS * STAGES)
    ]
    rates = [rate_of(policy, *chain) for policy in policies]
    rate = best_rate(*chain, SHARES)
    assert rate[0] == pytest.approx(max(rates), abs=1e-9)
    chosen = chain_worth(*chain, np.repeat(rate[:, None], KINDS, axis=1)).argmax(axis=-1)
    assert rate_of(chosen[0], *chain) == pytest.approx(max(rates), abs=1e-9)


def test_an_impossible_action_is_never_worth_taking() -> None:
    rewards, on, off = small_chain(0)
    rewards[..., 1] = -np.inf
    rate = best_rate(rewards, on, off, SHARES)
    without = best_rate(rewards[..., [0, 2]], on[..., [0, 2]], off[..., [0, 2]], SHARES)
    assert rate == pytest.approx(without)


def built(workflow: str, vertical: str, accounts: int, steps: int) -> SimulatedAccounts:
    rng = np.random.default_rng(5)
    one = build_accounts(workflow, vertical, accounts=accounts, steps=steps, rng=rng)
    assert isinstance(one, SimulatedAccounts)
    one.reset()
    return one


def earned(accounts: SimulatedAccounts, planning: bool) -> Array:
    """Mean expected reward of each account, by the oracle or by the best mean each time."""
    total = np.zeros(accounts.num_envs)
    for _ in range(accounts.steps):
        now = accounts.situation()
        greedy = np.where(now.mask, now.means, -np.inf).argmax(axis=1)
        served = accounts.step(now.oracle if planning else greedy).served
        total += now.means[accounts.rows, served]
    return total / accounts.steps


@pytest.mark.parametrize(
    ("workflow", "vertical"), [("retention-offer", "telecom"), ("onboarding", "payroll")]
)
def test_where_choices_move_the_state_planning_earns_more_than_greed(
    workflow: str, vertical: str
) -> None:
    planned, greedy = (earned(built(workflow, vertical, 400, 60), p) for p in (True, False))
    gain = planned - greedy
    assert gain.mean() > 2 * gain.std() / np.sqrt(gain.size)


def test_an_onboarding_rate_is_what_the_oracle_earns_a_decision_in_the_long_run() -> None:
    """Of accounts that stay who they are, where nothing is forced."""
    accounts = built("onboarding", "analytics", 300, 200)
    assert isinstance(accounts, Onboarding)
    stays = (accounts._change_at == accounts.steps) & ~np.isin(accounts.rows, accounts._drifting)
    rate = accounts.plans["rate"][stays]
    mean = earned(accounts, planning=True)[stays]
    assert np.corrcoef(rate, mean)[0, 1] > 0.8
    assert mean.mean() == pytest.approx(rate.mean(), rel=0.08)
