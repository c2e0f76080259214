"""A fall of rewards is found within so many interactions, and hardly ever where there is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from guardrails.reward_shift import ACCOUNT, STREAM, Rule, find_shift, is_over

ACCOUNTS = 500
STEPS = 400


def coins(rng: np.random.Generator, chance: NDArray[Any], rows: int) -> NDArray[np.float64]:
    """Rewards of 0 and 1, `[rows, T]`."""
    return (rng.random((rows, chance.size)) < chance).astype(np.float64)


def found_at(values: NDArray[np.float64], rule: Rule) -> NDArray[np.int64]:
    """Where a fall is found in each row; −1: nowhere."""
    shifts = [find_shift(row.tolist(), rule) for row in values]
    return np.array([-1 if one is None else one.at for one in shifts])


@pytest.mark.parametrize("level", [0.5, 0.7, 0.9])
def test_of_accounts_that_adapt_and_stay_so_at_most_one_in_fifty_is_told_of(level: float) -> None:
    rng = np.random.default_rng(1)
    adapting = level - (level - 0.4) * np.exp(-np.arange(STEPS) / 15)
    told = found_at(coins(rng, adapting, ACCOUNTS), ACCOUNT) >= 0
    assert told.mean() <= 0.02


@pytest.mark.parametrize(("before", "after", "within"), [(0.8, 0.3, 70), (0.9, 0.5, 140)])
def test_a_fall_of_an_account_is_found_within_so_many_interactions(
    before: float, after: float, within: int
) -> None:
    rng = np.random.default_rng(2)
    chance = np.where(np.arange(STEPS) < 100, before, after)
    at = found_at(coins(rng, chance, ACCOUNTS), ACCOUNT)
    in_time = (at >= 100) & (at < 100 + within)
    assert in_time.mean() >= 0.9


def test_a_rise_is_no_alarm() -> None:
    rng = np.random.default_rng(3)
    chance = np.where(np.arange(STEPS) < 100, 0.3, 0.8)
    assert (found_at(coins(rng, chance, ACCOUNTS), ACCOUNT) >= 0).mean() <= 0.01


def test_of_steady_workflows_at_most_one_in_fifty_is_told_of_in_20000_interactions() -> None:
    rng = np.random.default_rng(4)
    means = rng.binomial(50, 0.5, (ACCOUNTS, 400)) / 50
    assert (found_at(means, STREAM) >= 0).mean() <= 0.02


def test_a_fall_of_a_workflow_by_a_tenth_is_found_within_1000_interactions() -> None:
    rng = np.random.default_rng(5)
    chance = np.where(np.arange(200) < 100, 0.6, 0.5)
    at = found_at(rng.binomial(50, chance, (ACCOUNTS, 200)) / 50, STREAM)
    in_time = (at >= 100) & ((at - 99) * 50 <= 1_000)
    assert in_time.mean() >= 0.9


def test_it_is_said_where_a_fall_began_and_from_what_to_what() -> None:
    shift = find_shift([1.0] * 40 + [0.0] * 20, ACCOUNT)
    assert shift is not None
    assert (shift.began, shift.before, shift.after) == (40, 1.0, 0.0)
    assert 40 < shift.at < 60
    assert find_shift([1.0] * 40 + [0.0] * 20, ACCOUNT) == shift


def test_a_fall_is_over_when_most_of_it_is_made_good() -> None:
    assert not is_over(0.8, 0.4, [0.6, 0.6])
    assert is_over(0.8, 0.4, [0.7, 0.8])
