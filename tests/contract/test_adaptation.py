"""When an account, and a cohort, counts as adapted."""

from __future__ import annotations

import math
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.adaptation import (
    AccountAdaptation,
    cohort_adaptation,
    gap_target,
    mean_bounds,
    observe,
    revise,
)
from contract.spec import AdaptationTarget, Reward

COINS = Reward()
ONE_SIGMA = 0.8413447460685429
"""The level at which z is 1, so that bounds can be worked out by hand."""


def target_of(
    target: float, window: int = 4, level: float = ONE_SIGMA, hysteresis: float = 0.0
) -> AdaptationTarget:
    return AdaptationTarget(target=target, window=window, level=level, hysteresis=hysteresis)


def lived(
    rewards: list[float], target: AdaptationTarget, scale: Reward = COINS
) -> list[AccountAdaptation]:
    """The account after each of its rewards."""
    states = accumulate(
        rewards, lambda state, r: observe(state, r, target, scale), initial=AccountAdaptation()
    )
    return list(states)[1:]


# Bounds


@pytest.mark.parametrize(
    ("wins", "low", "high"),
    [
        # At z = 1 and n = 4: centre (p + 1/8) / 1.25, half sqrt(p (1 − p) / 4 + 1/64) / 1.25.
        (0, 0.0, 0.2),
        (1, 0.1, 0.5),
        (2, 0.5 - 1 / math.sqrt(20), 0.5 + 1 / math.sqrt(20)),
        (3, 0.5, 0.9),
        (4, 0.8, 1.0),
    ],
)
def test_bounds_of_four_coins_are_those_worked_out_by_hand(
    wins: int, low: float, high: float
) -> None:
    rewards = [1.0] * wins + [0.0] * (4 - wins)
    assert mean_bounds(rewards, ONE_SIGMA, COINS) == pytest.approx((low, high), abs=1e-12)


def test_bounds_at_80_percent_are_wilsons() -> None:
    # 7 of 10 at z = 0.8416212: (0.7 + z²/20 ∓ z sqrt(0.021 + z²/400)) / (1 + z²/10)
    low, high = mean_bounds([1.0] * 7 + [0.0] * 3, 0.8, COINS)
    assert (low, high) == pytest.approx((0.5681706, 0.8053705), abs=1e-7)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50), st.floats(0.51, 0.999))
def test_bounds_hold_the_mean_between_them_within_the_rewards_range(
    rewards: list[float], level: float
) -> None:
    low, high = mean_bounds(rewards, level, COINS)
    mean = math.fsum(rewards) / len(rewards)
    assert -1e-12 <= low <= mean + 1e-12
    assert mean - 1e-12 <= high <= 1 + 1e-12
    closer_low, closer_high = mean_bounds(rewards * 4, level, COINS)
    assert low - 1e-12 <= closer_low
    assert closer_high <= high + 1e-12


@given(
    st.lists(st.sampled_from([0, 0.25, 0.5, 0.75, 1]), min_size=1, max_size=40),
    st.floats(-100, 100),
    st.floats(0.01, 1000),
)
def test_another_unit_of_reward_changes_nothing_but_the_unit(
    rewards: list[float], zero: float, unit: float
) -> None:
    scale = Reward(min=zero, max=zero + unit)
    in_units = [zero + unit * reward for reward in rewards]
    low, high = mean_bounds(rewards, 0.8, COINS)
    assert mean_bounds(in_units, 0.8, scale) == pytest.approx(
        (zero + unit * low, zero + unit * high), abs=1e-9 * (abs(zero) + unit)
    )
    ours = target_of(0.432, 5, 0.8, 0.0567)
    theirs = target_of(zero + unit * 0.432, 5, 0.8, unit * 0.0567)
    assert [(s.phase, s.adapted_at) for s in lived(rewards, ours)] == [
        (s.phase, s.adapted_at) for s in lived(in_units, theirs, scale)
    ]


# One account


@pytest.mark.parametrize(
    ("rewards", "adapted_at"),
    [
        ("1111", 4),  # not before the window is full, however good
        ("111", None),
        ("0111", 4),
        ("100111", 6),
        ("0001101011110", 7),
        ("0101010101", None),
        ("", None),
    ],
)
def test_an_account_adapts_when_its_lower_bound_over_the_window_reaches_the_target(
    rewards: str, adapted_at: int | None
) -> None:
    # With 3 of 4 the lower bound is 0.5, with 2 of 4 it is 0.28.
    states = lived([float(r) for r in rewards], target_of(0.45))
    firsts = [i for i, state in enumerate(states, 1) if state.phase == "adapted"]
    assert (firsts[0] if firsts else None) == adapted_at
    assert (states[-1].adapted_at if states else None) == adapted_at


def test_a_bound_on_the_target_reaches_it() -> None:
    low, _ = mean_bounds([0.0, 1.0, 1.0, 1.0], ONE_SIGMA, COINS)
    assert lived([0, 1, 1, 1], target_of(low))[-1].phase == "adapted"
    above = target_of(math.nextafter(low, 1))
    assert lived([0, 1, 1, 1], above)[-1].phase == "adapting"


def test_an_account_regresses_and_adapts_again_and_its_first_time_is_kept() -> None:
    # Upper bounds: 0.9, 0.72, 0.5 and 0.2 with 3, 2, 1 and 0 of 4.
    states = lived([0, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1], target_of(0.45, hysteresis=0.1))
    assert [state.phase for state in states] == (
        ["adapting"] * 3 + ["adapted"] * 4 + ["regressed"] * 3 + ["adapted"]
    )
    assert [state.adapted_at for state in states] == [None] * 3 + [4] * 8
    assert [state.interactions for state in states] == list(range(1, 12))


@pytest.mark.parametrize(
    ("hysteresis", "phase"), [(0.0, "regressed"), (0.02, "regressed"), (0.04, "adapted")]
)
def test_an_account_within_the_hysteresis_has_not_regressed(hysteresis: float, phase: str) -> None:
    # 2 of 4: the upper bound is 0.724, below the target by 0.026.
    states = lived([1, 1, 1, 1, 0, 0], target_of(0.75, hysteresis=hysteresis))
    assert states[3].phase == "adapted"
    assert states[-1].phase == phase


def test_an_account_that_never_adapted_has_no_number_and_never_regresses() -> None:
    states = lived([0.0] * 300, target_of(0.45))
    assert {state.phase for state in states} == {"adapting"}
    assert {state.adapted_at for state in states} == {None}


def test_only_the_last_window_counts() -> None:
    assert lived([0.0] * 50 + [1.0] * 4, target_of(0.75))[-1].adapted_at == 54
    state = lived([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], target_of(0.75))[-1]
    assert state.recent == (0.3, 0.4, 0.5, 0.6)


def test_observing_leaves_the_earlier_state_as_it_was() -> None:
    before = lived([0, 1, 1], target_of(0.45))[-1]
    observe(before, 1.0, target_of(0.45), COINS)
    assert before == AccountAdaptation(3, (0, 1, 1))


# A revised reward


@given(
    st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=20),
    st.integers(0, 19),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_a_revised_window_is_the_window_of_the_revised_past(
    rewards: list[float], back: int, reward: float
) -> None:
    back %= len(rewards)
    target = target_of(0.45, hysteresis=0.1)
    state = revise(lived(rewards, target)[-1], back, reward, target, COINS)
    place = len(rewards) - 1 - back
    straight = lived([*rewards[:place], reward, *rewards[place + 1 :]], target)[-1]
    assert (state.interactions, state.recent) == (straight.interactions, straight.recent)


def test_a_revision_adapts_an_account_now_and_not_in_hindsight() -> None:
    target = target_of(0.45)
    before = lived([0, 1, 1, 0, 0], target)[-1]  # 1, 1, 0, 0
    after = revise(before, 0, 1.0, target, COINS)  # 1, 1, 0, 1
    assert (before.phase, before.adapted_at) == ("adapting", None)
    assert (after.phase, after.adapted_at) == ("adapted", 5)
    assert after.recent == (1, 1, 0, 1)


def test_what_was_concluded_on_the_way_stays_concluded() -> None:
    target = target_of(0.45, hysteresis=0.1)
    adapted = lived([1, 1, 1, 1, 0], target)[-1]
    lower = revise(adapted, 2, 0.0, target, COINS)  # 1, 0, 1, 0: within its bounds
    assert (lower.phase, lower.adapted_at) == ("adapted", 4)
    regressed = revise(revise(lower, 3, 0.0, target, COINS), 1, 0.0, target, COINS)
    assert (regressed.phase, regressed.adapted_at) == ("regressed", 4)
    again = regressed
    for back in range(4):
        again = revise(again, back, 1.0, target, COINS)
    assert (again.phase, again.adapted_at) == ("adapted", 4)


@pytest.mark.parametrize("back", [4, 5, 100])
def test_a_reward_that_has_left_the_window_changes_nothing(back: int) -> None:
    target = target_of(0.45)
    state = lived([0, 0, 0, 0, 1, 1], target)[-1]
    assert revise(state, back, 1.0, target, COINS) == state


def test_a_window_that_is_not_full_is_revised_and_not_judged() -> None:
    target = target_of(0.45)
    state = revise(lived([0, 1, 1], target)[-1], 2, 1.0, target, COINS)
    assert state == AccountAdaptation(3, (1, 1, 1), "adapting", None)
    assert revise(AccountAdaptation(), 0, 1.0, target, COINS) == AccountAdaptation()


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=20), st.integers(0, 19))
def test_revising_to_the_same_reward_changes_nothing(rewards: list[float], back: int) -> None:
    target = target_of(0.45, hysteresis=0.1)
    state = lived(rewards, target)[-1]
    back %= len(rewards)
    assert revise(state, back, rewards[len(rewards) - 1 - back], target, COINS) == state


# A cohort


@pytest.mark.parametrize(
    ("curve", "target", "adapted_at"),
    [
        ([0.2, 0.4, 0.6, 0.5], 0.6, 3),
        ([0.7, 0.4, 0.8], 0.6, 1),
        ([0.2, 0.4], 0.6, None),
        ([], 0.6, None),
        ([math.nan, 0.6], 0.6, 2),
        ([0.0] * 199 + [1.0], 0.6, 200),
        ([0.0] * 200 + [1.0], 0.6, None),
    ],
)
def test_a_cohort_adapts_at_the_first_interaction_whose_mean_reaches_the_target(
    curve: list[float], target: float, adapted_at: int | None
) -> None:
    assert cohort_adaptation(curve, target) == adapted_at


def test_a_cohort_is_censored_where_it_is_told() -> None:
    curve = np.linspace(0, 1, 101)
    assert cohort_adaptation(curve, 0.5, censored_at=51) == 51
    assert cohort_adaptation(curve, 0.5, censored_at=50) is None


def test_the_target_of_a_cohort_closes_a_share_of_the_gap_to_the_oracle() -> None:
    assert gap_target(0.2, 0.7) == pytest.approx(0.6)
    assert gap_target(0.2, 0.7, 0.5) == pytest.approx(0.45)
    assert gap_target(-3, -1) == pytest.approx(-1.4)
