"""What a policy would have earned at logged decisions that another one made. Numpy only; it knows
of no file and no network.

IPS (Horvitz & Thompson 1952), SNIPS (Swaminathan & Joachims 2015) and doubly robust estimates
(Dudík, Langford & Li 2011). Decisions of one account are not independent, so every interval counts
accounts and not decisions (Liang & Zeger 1986).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

FEW_EFFECTIVE = 200
"""Effective decisions below which overlap is called poor."""
SMALL_SHARE = 0.05
"""Share of effective decisions below which it is."""
LARGE_SHARE = 0.01
"""Share of decisions above the bound on weights from which it is."""


@dataclass(frozen=True)
class Estimate:
    """A mean reward, its standard error and interval; and what it is above what was logged."""

    value: float
    se: float
    low: float
    high: float
    difference: float
    difference_se: float
    difference_low: float
    difference_high: float


@dataclass(frozen=True)
class Overlap:
    """How much the logged decisions say of the policy."""

    decisions: int
    effective: float
    """Decisions of equal weight that would say as much (Kish 1965)."""
    bound: float
    above_bound: float
    """Share of decisions whose weight is above the bound."""
    largest: float
    mean: float
    """Of the weights; 1, up to luck, where the logged probabilities are right and all that the
    policy does had a chance."""
    mean_se: float

    def warnings(self) -> list[str]:
        """What is wrong with it, in words."""
        found = []
        share = self.effective / self.decisions
        if self.effective < FEW_EFFECTIVE or share < SMALL_SHARE:
            found.append(
                f"overlap is poor: {self.decisions:,} decisions say as much as "
                f"{self.effective:,.0f} made by the policy itself; trust no interval here"
            )
        if self.above_bound > LARGE_SHARE:
            found.append(
                f"overlap is poor: {self.above_bound:.1%} of decisions weigh more than "
                f"{self.bound:g}; a few of them settle the estimates"
            )
        if abs(self.mean - 1.0) > max(3.0 * self.mean_se, 0.02):
            why = (
                "what the policy would do had too often no chance in the log"
                if self.mean < 1.0
                else "logged probabilities are too small: are they those of the actions served?"
            )
            found.append(
                f"weights are {self.mean:.3f} ± {self.mean_se:.3f} in the mean, expected 1: {why}"
            )
        return found


@dataclass(frozen=True)
class Evaluation:
    """What the log says of a policy."""

    accounts: int
    logged: Estimate
    """What was earned by whoever decided."""
    ips: Estimate
    snips: Estimate
    dr: Estimate
    overlap: Overlap


def evaluate(
    *,
    account: Array,
    action: Array,
    reward: Array,
    logged: Array,
    target: Array,
    predicted: Array,
    level: float = 0.95,
    weight_bound: float = 20.0,
) -> Evaluation:
    """Estimates from N decisions of at least 2 accounts.

    account, action, reward and the logged probability of that action, each `[N]`; the target
    policy's probabilities and the predicted reward of every action, `[N, K]`. The bound is only
    counted by: nothing is clipped.
    """
    rows = np.arange(len(action))
    weight = target[rows, action].astype(np.float64) / logged
    one = np.ones(len(action))
    expected = (target * predicted).sum(1)
    corrected = expected + weight * (reward - predicted[rows, action])
    _, account = np.unique(account, return_inverse=True)
    accounts = int(account.max()) + 1
    base = _Ratio.of(account, reward, one)

    def estimate(numerator: Array, denominator: Array) -> Estimate:
        return _Ratio.of(account, numerator, denominator).above(base, accounts, level)

    weights = _Ratio.of(account, weight, one)
    squared = float(np.square(weight).sum())
    return Evaluation(
        accounts=accounts,
        logged=base.above(base, accounts, level),
        ips=estimate(weight * reward, one),
        snips=estimate(weight * reward, weight),
        dr=estimate(corrected, one),
        overlap=Overlap(
            decisions=len(action),
            effective=float(weight.sum()) ** 2 / squared if squared else 0.0,
            bound=weight_bound,
            above_bound=float((weight > weight_bound).mean()),
            largest=float(weight.max()),
            mean=weights.value,
            mean_se=_se(weights.influence, accounts),
        ),
    )


@dataclass(frozen=True)
class _Ratio:
    """Σ numerator / Σ denominator, and what each account moves it by, `[A]`."""

    value: float
    influence: Array

    @classmethod
    def of(cls, account: Array, numerator: Array, denominator: Array) -> _Ratio:
        whole = float(denominator.sum())
        if whole == 0.0:
            return cls(math.nan, np.full(account.max() + 1, math.nan))
        value = float(numerator.sum()) / whole
        return cls(value, np.bincount(account, numerator - value * denominator) / whole)

    def above(self, base: _Ratio, accounts: int, level: float) -> Estimate:
        """The estimate, and what it is above another of the same accounts."""
        z = quantile_t(0.5 + level / 2, accounts - 1)
        se = _se(self.influence, accounts)
        gap, gap_se = self.value - base.value, _se(self.influence - base.influence, accounts)
        return Estimate(
            value=self.value,
            se=se,
            low=self.value - z * se,
            high=self.value + z * se,
            difference=gap,
            difference_se=gap_se,
            difference_low=gap - z * gap_se,
            difference_high=gap + z * gap_se,
        )


def _se(influence: Array, accounts: int) -> float:
    return math.sqrt(accounts / (accounts - 1) * float(np.square(influence).sum()))


def quantile_t(probability: float, freedom: int) -> float:
    """Student's t, by its expansion about the normal (Abramowitz & Stegun 1964, 26.7.5)."""
    z = NormalDist().inv_cdf(probability)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3
