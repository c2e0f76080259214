"""From expected rewards to what is reported, on numbers known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from training.workflow_scores import pooled, recovery, score, smoothed, to_json

T, B = 200, 40


def flat(level: float) -> np.ndarray:
    return np.full((T, B), level, np.float32)


def test_a_batch_is_ten_decisions_and_forced_ones_count_for_nobody() -> None:
    earned = flat(0.5)
    earned[:10] = 0.2
    earned[0, 0] = np.nan
    earned[40:50] = 0.3
    earned[190:] = np.linspace(0.6, 0.8, B)
    found = score(earned, flat(0.9), flat(0.0), flat(1.0))
    assert {batch: one.mean for batch, one in found.reward.items()} == pytest.approx(
        {1: 0.2, 5: 0.3, 20: 0.7}
    )
    assert found.difference[5].mean == pytest.approx(0.6)
    assert found.reward[5].se == pytest.approx(0, abs=1e-8)
    spread = np.linspace(0.6, 0.8, B).std(ddof=1) / np.sqrt(B)
    assert found.difference[20].se == pytest.approx(spread, rel=1e-4)


def test_a_cohort_has_adapted_when_four_fifths_of_the_gap_are_closed() -> None:
    earned = flat(0.2)
    earned[60:] = 0.95
    found = score(earned, earned, flat(0.2), flat(1.0))
    assert found.target == pytest.approx(0.84)
    assert found.adaptation == 63  # the centred mean of five is all new from here
    assert found.regret.mean == pytest.approx(60 * 0.8 + 140 * 0.05, rel=1e-4)
    assert score(flat(0.5), flat(0.5), flat(0.2), flat(1.0)).adaptation is None


def test_recovery_is_counted_from_the_change_and_against_ones_own_gain() -> None:
    gain = np.full(T, 0.4)
    gain[100:130] = 0.0
    assert recovery(gain, 100) == 33
    assert recovery(gain, None) is None
    assert recovery(-gain, 100) is None
    assert recovery(np.where(np.arange(T) < 100, 0.4, 0.3), 100) is None


def test_whoever_met_fewer_accounts_is_compared_on_those() -> None:
    policy = flat(0.5)
    policy[:, 10:] = 0.9
    found = score(flat(0.4)[:, :10], policy, flat(0.0), flat(1.0))
    assert found.accounts == 10
    assert found.difference[1].mean == pytest.approx(0.1)


def test_verticals_pool_as_strata() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.random((T, B)).astype(np.float32) + shift for shift in (0.0, 1.0)]
    one, other = (score(part, part, flat(0.0), flat(2.0)) for part in parts)
    both = pooled([one, other])
    assert both.accounts == 2 * B
    assert both.reward[1].mean == pytest.approx((one.reward[1].mean + other.reward[1].mean) / 2)
    own = np.hypot(one.reward[1].se, other.reward[1].se) / 2
    assert both.reward[1].se == pytest.approx(own)
    assert both.curve == pytest.approx((one.curve + other.curve) / 2)


def test_pooled_recovery_is_that_of_the_pooled_gain() -> None:
    """One vertical never recovers alone; together the gain is back at once."""
    level = np.where(np.arange(T) < 100, 0.4, 0.3)[:, None]
    low, high = (np.broadcast_to(each, (T, B)).astype(np.float32) for each in (level, 0.8 - level))
    scores = [score(each, each, flat(0.0), flat(1.0), change_at=100) for each in (low, high)]
    assert [one.recovery for one in scores] == [None, 1]
    assert pooled(scores, change_at=100).recovery == 1


def test_a_short_trial_has_no_late_batches() -> None:
    short = score(flat(0.5)[:20], flat(0.5)[:20], flat(0.0)[:20], flat(1.0)[:20])
    told = to_json(short, {"same": short})
    assert told["reward"] == {"1": 0.5, "5": None, "20": None}
    assert told["peers"]["same"]["difference"] == {"1": 0.0, "5": None, "20": None}


def test_a_running_mean_is_centred() -> None:
    curve = np.zeros(9)
    curve[4] = 5.0
    assert smoothed(curve) == pytest.approx([0, 0, 1, 1, 1, 1, 1, 0, 0])
