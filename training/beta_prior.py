"""The Beta prior of a success probability, fitted to many accounts' counts. Numpy only.

Empirical Bayes: the maximum likelihood of the beta-binomial, by Minka's (2000, "Estimating a
Dirichlet distribution") fixed point for the Pólya distribution with two categories.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class BetaPrior(NamedTuple):
    """Beta(alpha, beta)."""

    alpha: float
    beta: float


_SMALLEST, _LARGEST = 1e-3, 1e3
"""Where the likelihood has no maximum (every account alike, or never a success), the fit stops."""


def fit_beta_prior(successes: Array, trials: Array) -> BetaPrior:
    """The prior that makes the counts `[N]` of N accounts most likely."""
    wins, losses, total = _exceeding(successes), _exceeding(trials - successes), _exceeding(trials)
    if not total.size:
        raise ValueError("trials: expected at least one in some account, got none")
    alpha, beta = 1.0, 1.0
    for _ in range(20_000):
        shared = _difference(total, alpha + beta)
        next_alpha = float(np.clip(alpha * _difference(wins, alpha) / shared, _SMALLEST, _LARGEST))
        next_beta = float(np.clip(beta * _difference(losses, beta) / shared, _SMALLEST, _LARGEST))
        moved = abs(next_alpha - alpha) / alpha + abs(next_beta - beta) / beta
        alpha, beta = next_alpha, next_beta
        if moved < 1e-10:
            break
    return BetaPrior(alpha, beta)


def log_likelihood(prior: BetaPrior, successes: Array, trials: Array) -> float:
    """Log probability of the counts, up to the binomial coefficients, which no prior changes."""
    alpha, beta = prior
    parts = ((successes, alpha, 1), (trials - successes, beta, 1), (trials, alpha + beta, -1))
    return sum(
        sign * float(np.sum((counts := _exceeding(n)) * np.log(start + np.arange(counts.size))))
        for n, start, sign in parts
    )


def _exceeding(counts: Array) -> NDArray[np.float64]:
    """How many of the counts `[N]` exceed j, for j = 0 … max − 1."""
    highest = int(np.max(counts, initial=0))
    return np.array([np.sum(counts > j) for j in range(highest)], np.float64)


def _difference(exceeding: Array, start: float) -> float:
    """Σ over accounts of digamma(start + count) − digamma(start)."""
    return float(np.sum(exceeding / (start + np.arange(exceeding.size))))
