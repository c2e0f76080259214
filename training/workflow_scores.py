"""From expected rewards to what is reported: batches, differences, regret, adaptation, recovery.

It plays nothing. Every player has met the same accounts, so differences are paired by account;
decisions that were forced count for nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.adaptation import cohort_adaptation, gap_target
from training.paired import mean_and_se

Array = NDArray[Any]
Curve = NDArray[np.float64]

BATCH = 10
"""Decisions of a batch."""

BATCHES = (1, 5, 20)
"""The batches that are reported: decisions 1–10, 41–50 and 191–200."""

SMOOTHED_OVER = 5
"""Interactions of the centred running mean in which a cohort's curve is compared with a target."""

BEFORE_CHANGE = 20
"""Decisions just before a change-point over which a player's gain over the fallback is measured."""

REGAINED = 0.9
"""Share of that gain at which a player has recovered."""


@dataclass(frozen=True)
class Estimate:
    """A mean over accounts and its standard error."""

    mean: float
    se: float


@dataclass(frozen=True)
class Score:
    """One player on B accounts of one vertical, or of several pooled."""

    accounts: int
    reward: dict[int, Estimate]
    """By batch: those that the trial is long enough for."""
    difference: dict[int, Estimate]
    """Policy − player, by batch; zero for the policy itself."""
    overall: Estimate
    """All decisions."""
    overall_difference: Estimate
    regret: Estimate
    """What the oracle earned more, summed over an account's decisions."""
    curve: Curve
    """Mean expected reward at each decision, `[T]`."""
    gain: Curve
    """How far that is above the fallback's on the same accounts, `[T]`."""
    target: float
    """80 % of the way from the fallback's mean reward to the oracle's, on the same accounts."""
    adaptation: int | None
    recovery: int | None
    """Decisions after the change-point until REGAINED of the gain before it; None where there was
    no change, no gain, or no recovery within the trial."""
    seconds: float
    """Processor time of the player alone."""

    @property
    def decisions_per_cpu_second(self) -> float | None:
        """Decisions, each with what was learned between it and the next."""
        return self.accounts * self.curve.size / self.seconds if self.seconds else None


def score(
    expected: Array,
    policy: Array,
    fallback: Array,
    oracle: Array,
    *,
    change_at: int | None = None,
    seconds: float = 0.0,
) -> Score:
    """Scores expected rewards `[T, B]`, NaN where forced. Where a player met fewer accounts than
    the others, it met the first of theirs, and is compared on those."""
    count = expected.shape[1]
    policy, fallback, oracle = (each[:, :count] for each in (policy, fallback, oracle))
    mine, theirs = _by_batch(expected), _by_batch(policy)
    curve = _curve(expected)
    target = gap_target(float(np.nanmean(fallback)), float(np.nanmean(oracle)))
    lost = oracle - expected
    return Score(
        accounts=count,
        reward={batch: _estimate(earned) for batch, earned in mine.items()},
        difference={batch: _estimate(theirs[batch] - mine[batch]) for batch in mine},
        overall=_estimate(_mean(expected)),
        overall_difference=_estimate(_mean(policy) - _mean(expected)),
        regret=_estimate(np.nansum(lost, axis=0)),
        curve=curve,
        gain=(gain := curve - _curve(fallback)),
        target=target,
        adaptation=cohort_adaptation(smoothed(curve), target),
        recovery=recovery(gain, change_at),
        seconds=seconds,
    )


def pooled(scores: Sequence[Score], change_at: int | None = None) -> Score:
    """One player on several verticals, each counting the same: strata, whose variances add."""
    curve = np.mean([one.curve for one in scores], axis=0)
    gain = np.mean([one.gain for one in scores], axis=0)
    target = float(np.mean([one.target for one in scores]))

    def over(estimates: Sequence[Estimate]) -> Estimate:
        se = float(np.sqrt(np.sum([one.se**2 for one in estimates])) / len(estimates))
        return Estimate(float(np.mean([one.mean for one in estimates])), se)

    return Score(
        accounts=sum(one.accounts for one in scores),
        reward={b: over([one.reward[b] for one in scores]) for b in scores[0].reward},
        difference={b: over([one.difference[b] for one in scores]) for b in scores[0].reward},
        overall=over([one.overall for one in scores]),
        overall_difference=over([one.overall_difference for one in scores]),
        regret=over([one.regret for one in scores]),
        curve=curve,
        gain=gain,
        target=target,
        adaptation=cohort_adaptation(smoothed(curve), target),
        recovery=recovery(gain, change_at),
        seconds=sum(one.seconds for one in scores),
    )


def recovery(gain: Array, change_at: int | None) -> int | None:
    """The first interaction after the change, from 1, at which the cohort's gain over the fallback
    `[T]` is again REGAINED of what it was just before decision `change_at`, counted from 0."""
    if change_at is None:
        return None
    before = float(gain[max(0, change_at - BEFORE_CHANGE) : change_at].mean())
    if before <= 0:
        return None
    return cohort_adaptation(smoothed(gain[change_at:]), REGAINED * before)


def smoothed(curve: Array, over: int = SMOOTHED_OVER) -> Curve:
    """Centred running mean of `[T]`, over fewer values at both ends."""
    window = np.ones(min(over, curve.size))
    means: Curve = np.convolve(curve, window, "same") / np.convolve(
        np.ones_like(curve), window, "same"
    )
    return means


def to_json(score: Score, others: Mapping[str, Score]) -> dict[str, Any]:
    """The policy's score and those of its peers as plain numbers."""
    return {**_numbers(score), "peers": {name: _beside(one) for name, one in others.items()}}


def _beside(score: Score) -> dict[str, Any]:
    return {
        **_numbers(score),
        "difference": {str(b): _mean_of(score.difference, b) for b in BATCHES},
        "difference_se": {str(b): _se_of(score.difference, b) for b in BATCHES},
        "overall_difference": score.overall_difference.mean,
        "overall_difference_se": score.overall_difference.se,
    }


def _numbers(score: Score) -> dict[str, Any]:
    return {
        "reward": {str(b): _mean_of(score.reward, b) for b in BATCHES},
        "reward_se": {str(b): _se_of(score.reward, b) for b in BATCHES},
        "overall": score.overall.mean,
        "overall_se": score.overall.se,
        "regret": score.regret.mean,
        "regret_se": score.regret.se,
        "adaptation_interactions": score.adaptation,
        "recovery_interactions": score.recovery,
        "accounts": score.accounts,
        "decisions_per_cpu_second": score.decisions_per_cpu_second,
    }


def _mean_of(estimates: Mapping[int, Estimate], batch: int) -> float | None:
    return estimates[batch].mean if batch in estimates else None


def _se_of(estimates: Mapping[int, Estimate], batch: int) -> float | None:
    return estimates[batch].se if batch in estimates else None


def _by_batch(expected: Array) -> dict[int, Array]:
    """Each account's mean expected reward in each reported batch that the trial reaches, `[B]`."""
    reached = [batch for batch in BATCHES if batch * BATCH <= len(expected)]
    return {batch: _mean(expected[(batch - 1) * BATCH : batch * BATCH]) for batch in reached}


def _mean(expected: Array) -> Array:
    """Each account's mean over its own decisions, `[B]`; NaN where all were forced."""
    own = np.isfinite(expected)
    total = np.where(own, expected, 0.0).sum(axis=0, dtype=np.float64)
    counts = own.sum(axis=0)
    mean: Array = np.where(counts > 0, total / np.maximum(counts, 1), np.nan)
    return mean


def _curve(expected: Array) -> Curve:
    """The cohort's mean at each decision, `[T]`; where everybody was forced, as before it."""
    own = np.isfinite(expected)
    total = np.where(own, expected, 0.0).sum(axis=1, dtype=np.float64)
    counts = own.sum(axis=1)
    curve: Curve = np.where(counts > 0, total / np.maximum(counts, 1), np.nan)
    for t in np.flatnonzero(np.isnan(curve)):
        curve[t] = curve[t - 1] if t else np.nanmean(expected)
    return curve


def _estimate(values: Array) -> Estimate:
    return Estimate(*mean_and_se(values[np.isfinite(values)]))
