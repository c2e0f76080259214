"""The conservative rule: exploring never costs an account more than a share of what the fallback
would have earned, and a credit (after Wu, Shariff, Lattimore and Szepesvári 2016).

Rewards are scaled to [0, 1]. Of t decisions N deviated from the fallback and F = t − N did not; the
fallback's mean reward is μ. A decision may deviate when, with its own reward counted as 0,

    μ F + L(R) ≥ (1 − α) μ (t + 1) − credit

where R is what deviations have earned, those still pending counted as 0, and L(R) a lower bound of
what they had to expect. For rewards in [0, 1], exp(λR − (e^λ − 1) M) is a supermartingale for every
λ > 0, where M is the sum of their conditional means, whatever policy chose them; so is a mixture of
these over λ, and by Ville's inequality it is never above 1 / (1 − level), with probability `level`.
L is where it would be. So with that probability, over all the account's decisions at once,

    expected cumulative reward ≥ (1 − α) · the fallback's − credit.

It is about expected rewards: what the coins then do is on neither side of it. An account that has
earned more than the fallback has L(R) above its share and is free; one that has not trickles on, as
every decision of the fallback's pays in α μ.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

from contract.safety import Conservative

RATES = tuple(0.02 * 1.5**i for i in range(12))
"""The mixture's λ, 0.02 to 1.7, of equal weight: small ones are tight for much reward, large ones
for little."""
STEPS = 40
"""Halvings that find the bound: to within a millionth of any reward."""


class Spent(NamedTuple):
    """What the decisions of one account came to. Start from `Spent()`."""

    fallbacks: int = 0
    """F: decisions that chose as the fallback would have."""
    deviations: int = 0
    """N."""
    earned: float = 0.0
    """R: scaled rewards of deviations, so far."""


def may_deviate(spent: Spent, rule: Conservative, fallback_reward: float) -> bool:
    """Whether the next decision may deviate; `fallback_reward` is μ, scaled to [0, 1]."""
    owed = (1.0 - rule.alpha) * fallback_reward * (spent.fallbacks + spent.deviations + 1)
    have = fallback_reward * spent.fallbacks + rule.credit
    if have >= owed:  # whatever deviations have earned
        return True
    if have + spent.earned < owed:  # the bound is below what they have earned
        return False
    return have + expected_at_least(spent.earned, rule.level) >= owed


@lru_cache(maxsize=10_000)
def expected_at_least(earned: float, level: float) -> float:
    """L(R): what rewards in [0, 1] that came to `earned` had to expect, at least, at confidence
    `level` for all times at once."""
    limit = -math.log1p(-level) + math.log(len(RATES))
    low, high = 0.0, earned
    if _evidence(earned, 0.0) <= limit:
        return 0.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        if _evidence(earned, middle) > limit:
            low = middle
        else:
            high = middle
    return low


def _evidence(earned: float, expected: float) -> float:
    """The log of the mixture's sum, times the number of rates."""
    exponents = [rate * earned - math.expm1(rate) * expected for rate in RATES]
    top = max(exponents)
    return top + math.log(sum(math.exp(one - top) for one in exponents))
