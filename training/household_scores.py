"""From households' rewards to numbers: means, paired differences, adaptation. It plays nothing.

A mean reward is the share of all purchases that were predicted, and its standard error is over
households: a household is one draw, whatever it bought (the ratio estimator, Cochran 1977). Beside
it stands the mean in which each household counts the same, however little it bought.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.adaptation import cohort_adaptation, gap_target

Array = NDArray[Any]

FEWEST_HOUSEHOLDS = 10
"""A curve ends where fewer households than this still buy (or fewer than all, when they are
fewer)."""


@dataclass(frozen=True)
class Estimate:
    """A mean over households and its standard error."""

    mean: float
    se: float


@dataclass(frozen=True)
class Curve:
    """Mean reward at each interaction over the households still buying; se over households."""

    mean: NDArray[np.float64]
    se: NDArray[np.float64]


@dataclass(frozen=True)
class PlayerScore:
    """How one player did on one family. Differences are policy − player; the policy has none."""

    reward: Estimate
    household_reward: Estimate
    """Each household counts the same."""
    difference: Estimate
    household_difference: Estimate
    adaptation_interactions: int | None
    curve: Curve


@dataclass(frozen=True)
class FamilyScore:
    """One panel: the policy and every baseline on the same households."""

    family: str
    households: int
    target: float
    """The mean reward at which a cohort counts as adapted."""
    policy: PlayerScore
    baselines: dict[str, PlayerScore]


def score_family(
    family: str, active: Array, policy: Array, baselines: Mapping[str, Array], target: float
) -> FamilyScore:
    """Scores rewards `[S, T, B]`, zero where `active` `[T, B]` is false.

    Rewards are first averaged over a player's permutation seeds within each household, so that a
    difference pairs households. The baselines may have played more seeds than the policy: the
    first ones are the policy's.
    """
    by_policy = policy.mean(axis=0)

    def score(rewards: Array) -> PlayerScore:
        earned = rewards.mean(axis=0)  # [T, B]
        lost = by_policy - earned
        curve = _curve(earned, active)
        return PlayerScore(
            reward=_per_purchase(earned, active),
            household_reward=_per_household(earned, active),
            difference=_per_purchase(lost, active),
            household_difference=_per_household(lost, active),
            adaptation_interactions=cohort_adaptation(curve.mean, target),
            curve=curve,
        )

    return FamilyScore(
        family=family,
        households=active.shape[1],
        target=target,
        policy=score(policy),
        baselines={name: score(rewards) for name, rewards in baselines.items()},
    )


def cohort_target(bought: Array, brands: int) -> float:
    """Where 80 % of the gap from fallback to oracle is closed, for purchases `[T, B]` (−1: none).

    The fallback is one fixed label, which is worth chance when labels carry nothing; the oracle
    offers every household the one brand it buys most.
    """
    most = sum(np.bincount(one[one >= 0], minlength=brands).max() for one in bought.T)
    return gap_target(fallback=1 / brands, oracle=float(most / (bought >= 0).sum()))


def _per_purchase(earned: Array, active: Array) -> Estimate:
    """Mean over purchases, se over households: values `[T, B]`, zero where not active."""
    total, purchases = earned.sum(axis=0), active.sum(axis=0)
    households = purchases.size
    mean = total.sum() / purchases.sum()
    spread = np.sum((total - mean * purchases) ** 2) * households / max(households - 1, 1)
    return Estimate(float(mean), float(np.sqrt(spread) / purchases.sum()))


def _per_household(earned: Array, active: Array) -> Estimate:
    share = earned.sum(axis=0) / active.sum(axis=0)
    return Estimate(float(share.mean()), float(_se(share[None])[0]))


def _curve(earned: Array, active: Array) -> Curve:
    buying = active.sum(axis=1)
    end = int(np.sum(buying >= min(FEWEST_HOUSEHOLDS, active.shape[1])))
    steps = [earned[t, active[t]] for t in range(end)]
    return Curve(
        mean=np.array([values.mean() for values in steps]),
        se=np.array([_se(values[None])[0] for values in steps]),
    )


def _se(values: Array) -> NDArray[np.float64]:
    """Standard error of the mean of each row `[R, N]`; of a single value it is taken as 0."""
    n = values.shape[1]
    se: NDArray[np.float64] = values.std(axis=1, ddof=min(1, n - 1)) / np.sqrt(n)
    return se
