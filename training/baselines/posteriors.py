"""What is believed of each arm's mean after its rewards, for B accounts. Numpy only: never torch.

Conjugate pairs: a Beta prior with rewards 0 or 1, and a normal prior with normal rewards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from training.baselines.history import History

Array = NDArray[Any]

_SMALLEST = 1e-16
"""A draw so near to 0 or 1 is taken to be so far away, for its logarithm's sake."""


class Posterior(Protocol):
    """Beliefs about arm means, each `[B, K]`."""

    def observations(self, history: History) -> Array:
        """Pulls of each arm, with those that the prior is worth."""
        ...

    def mean(self, history: History) -> Array:
        """Expected arm means."""
        ...

    def draw(self, history: History, rng: np.random.Generator) -> Array:
        """One draw of each arm's mean."""
        ...

    def log_density(self, means: Array, history: History) -> Array:
        """Of arm means `[B, K]`, up to a constant for each arm."""
        ...


@dataclass(frozen=True)
class BetaBelief:
    """Arms that pay 0 or 1, under Beta(alpha, beta) priors: one for all, or `[B, K]`."""

    alpha: float | Array = 1.0
    beta: float | Array = 1.0

    def observations(self, history: History) -> Array:
        return history.pulls + self.alpha + self.beta

    def mean(self, history: History) -> Array:
        means: Array = (history.rewards + self.alpha) / self.observations(history)
        return means

    def draw(self, history: History, rng: np.random.Generator) -> Array:
        losses = history.pulls - history.rewards
        drawn: Array = rng.beta(history.rewards + self.alpha, losses + self.beta)
        return drawn

    def log_density(self, means: Array, history: History) -> Array:
        losses = history.pulls - history.rewards
        inside = np.clip(means, _SMALLEST, 1.0 - _SMALLEST)
        logs: Array = (history.rewards + self.alpha - 1) * np.log(inside)
        logs += (losses + self.beta - 1) * np.log1p(-inside)
        return logs


@dataclass(frozen=True)
class NormalBelief:
    """Arms whose means are N(0, 1) and whose rewards are N(mean, noise²)."""

    noise: float = 1.0
    """Standard deviation."""

    def observations(self, history: History) -> Array:
        return history.pulls + self.noise**2

    def mean(self, history: History) -> Array:
        return history.rewards / self.observations(history)

    def draw(self, history: History, rng: np.random.Generator) -> Array:
        deviation = self.noise / np.sqrt(self.observations(history))
        drawn: Array = self.mean(history) + deviation * rng.standard_normal(history.pulls.shape)
        return drawn

    def log_density(self, means: Array, history: History) -> Array:
        from_mean = (means - self.mean(history)) / self.noise
        logs: Array = -0.5 * self.observations(history) * from_mean**2
        return logs


FLAT = BetaBelief()
"""Uniform(0, 1) means: one success and one failure to begin with."""
