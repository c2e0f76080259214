"""Bounds that hold however often one looks: one-sided normal mixtures (Robbins 1970).

After n accounts the estimate's error is near normal, and over time the estimate times its
information runs like a Brownian motion, whose mixture boundary Howard et al. (2021) give; that the
variance may be estimated is Waudby-Smith et al. (2024, asymptotic confidence sequences). Rewards of
one account go together, which makes looks more alike than the boundary allows for (Slepian 1962).
"""

from __future__ import annotations

import math
from functools import lru_cache

_LOWEST, _HIGHEST = -35.0, 60.0


def radius(standard_error: float, alpha: float, scale: float) -> float:
    """How far the true difference is below (or above) an estimate with this standard error at most,
    at every look but with probability `alpha` in all.

    `scale` is the size of a difference that is looked for, in the estimate's units: the bound is
    narrowest where the standard error is some third of it. It is infinite without an error.
    """
    if not 0 < standard_error < math.inf:
        return math.inf
    information, prior = standard_error**-2, scale**-2
    both = information + prior
    crossing = _crossing(-math.log(alpha) - 0.5 * math.log(prior / both))
    return crossing * math.sqrt(both) / information


def log_sample_ratio_evidence(candidates: int, accounts: int, share: float) -> float:
    """The log of the e-value against "each of `accounts` was a candidate's with chance `share`":
    the Beta-binomial mixture around that share (Lindon and Malek 2022)."""
    weight = 100.0
    a, b = weight * share, weight * (1 - share)
    others = accounts - candidates
    return (
        _log_beta(a + candidates, b + others)
        - _log_beta(a, b)
        - candidates * math.log(share)
        - others * math.log1p(-share)
    )


def _log_mixture(x: float) -> float:
    """log(2 Φ(x) exp(x² / 2)), rising in x."""
    x = min(max(x, _LOWEST), 1e6)
    return math.log(math.erfc(-x / math.sqrt(2))) + 0.5 * x * x


@lru_cache(maxsize=10_000)
def _crossing(level: float) -> float:
    """Where `_log_mixture` reaches the level, by halving."""
    low, high = 0.0, _HIGHEST
    while _log_mixture(high) < level:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _log_mixture(middle) < level else (low, middle)
    return high


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
