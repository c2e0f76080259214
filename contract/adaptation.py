"""Adaptation, measured the same way everywhere: for one account, and for a cohort.

Never adapted is None, not a number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from contract.spec import AdaptationTarget, Reward

Phase = Literal["adapting", "adapted", "regressed"]

CENSORED_AT = 200
"""A cohort that has not adapted by this interaction counts as never adapted."""


class AccountAdaptation(NamedTuple):
    """Where one account stands. Start from `AccountAdaptation()`, step with `observe`."""

    interactions: int = 0
    recent: tuple[float, ...] = ()
    """The last w rewards, oldest first, raw."""
    phase: Phase = "adapting"
    adapted_at: int | None = None
    """The interaction at which the account was first adapted, counted from 1."""


def observe(
    state: AccountAdaptation, reward: float, target: AdaptationTarget, scale: Reward
) -> AccountAdaptation:
    """The state after one more interaction with this raw reward.

    Adapted at the first interaction t ≥ w at which the lower bound of the mean reward over the
    last w reaches the target; regressed when the upper bound falls below target − hysteresis;
    a regressed account is adapted again as it first was.
    """
    recent = (*state.recent, reward)[-target.window :]
    after = state._replace(interactions=state.interactions + 1, recent=recent)
    return _judged(after, target, scale)


def revise(
    state: AccountAdaptation, back: int, reward: float, target: AdaptationTarget, scale: Reward
) -> AccountAdaptation:
    """The state once the raw reward `back` interactions before the newest (0: the newest) has
    turned out to be another.

    The window is judged again as `observe` judges it, from the phase the account is in: what was
    concluded on the way here stays concluded. A reward that has left the window changes nothing.
    """
    place = len(state.recent) - 1 - back
    if place < 0:
        return state
    recent = (*state.recent[:place], reward, *state.recent[place + 1 :])
    return _judged(state._replace(recent=recent), target, scale)


def _judged(state: AccountAdaptation, target: AdaptationTarget, scale: Reward) -> AccountAdaptation:
    """The state with the phase that its window says."""
    if len(state.recent) < target.window:
        return state
    low, high = mean_bounds(state.recent, target.level, scale)
    if state.phase != "adapted" and low >= target.target:
        first = state.adapted_at if state.adapted_at is not None else state.interactions
        return state._replace(phase="adapted", adapted_at=first)
    if state.phase == "adapted" and high < target.target - target.hysteresis:
        return state._replace(phase="regressed")
    return state


def mean_bounds(rewards: Sequence[float], level: float, scale: Reward) -> tuple[float, float]:
    """One-sided lower and upper confidence bounds of the mean, each at `level`, raw units.

    The score interval (Wilson, 1927) of the rewards scaled to [0, 1]: exact in form for coins and
    conservative for anything else in that range, whose variance is at most a coin's.
    """
    n = len(rewards)
    z = _quantile(level)
    span = scale.max - scale.min
    mean = (math.fsum(rewards) / n - scale.min) / span
    centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
    spread = max(mean * (1 - mean) / n + z * z / (4 * n * n), 0.0)
    half = z / (1 + z * z / n) * math.sqrt(spread)
    return scale.min + span * (centre - half), scale.min + span * (centre + half)


def cohort_adaptation(
    mean_reward: ArrayLike, target: float, censored_at: int = CENSORED_AT
) -> int | None:
    """The first interaction, from 1, at which a cohort's mean reward `[T]` reaches the target."""
    curve = np.asarray(mean_reward, np.float64)[:censored_at]
    reached = np.flatnonzero(curve >= target)
    return int(reached[0]) + 1 if reached.size else None


def gap_target(fallback: float, oracle: float, share: float = 0.8) -> float:
    """The mean reward at which `share` of the gap from fallback to oracle is closed."""
    return fallback + share * (oracle - fallback)


@lru_cache(maxsize=256)
def _quantile(level: float) -> float:
    return NormalDist().inv_cdf(level)
