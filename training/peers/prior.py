"""The joint prior of all actions' weights, fitted on other accounts' logs: empirical Bayes. Numpy.

One account's stacked weights w ∈ R^(K·d), d = C + 1, are one draw from N(mean, covariance); an
action's reward is its part of w · (context, 1) plus noise of that action's own variance. Mean,
covariance and noise are found by expectation–maximisation (Dempster, Laird & Rubin 1977), exact in
both steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.peers.player import with_bias

Array = NDArray[Any]
Double = NDArray[np.float64]

ROUNDS = 25
"""Of expectation–maximisation. The log-likelihood hardly moves after."""

_ACCOUNTS_AT_ONCE = 64
_LEAST_NOISE = 1e-5
"""Of rewards as shares of their range, squared: for actions whose reward never varies."""


@dataclass(frozen=True)
class JointPrior:
    """What accounts are like before any of their decisions; rewards as shares of their range."""

    mean: Double
    """`[K · d]`, action after action."""
    covariance: Double
    """`[K · d, K · d]`."""
    noise: Double
    """Variance of an action's reward around its line, `[K]`."""


@dataclass(frozen=True)
class Evidence:
    """Sums over each account's decisions, all that a linear model needs of them."""

    squares: Double
    """Σ x xᵀ by action, `[N, K, d, d]`, x = (context, 1)."""
    products: Double
    """Σ reward · x by action, `[N, K, d]`."""
    rewards: Double
    """Σ reward² by action, `[N, K]`."""
    counts: Double
    """Decisions by action, `[N, K]`."""

    @classmethod
    def of(cls, context: Array, served: Array, reward: Array, actions: int) -> Evidence:
        """From logs: context `[T, N, C]`, served `[T, N]`, reward `[T, N]` as shares."""
        steps, accounts = served.shape
        d = context.shape[2] + 1
        squares = np.zeros((accounts, actions, d, d))
        products = np.zeros((accounts, actions, d))
        rewards, counts = np.zeros((accounts, actions)), np.zeros((accounts, actions))
        rows = np.arange(accounts)
        for t in range(steps):
            x = with_bias(context[t]).astype(np.float64)
            at = (rows, served[t])
            squares[at] += x[:, :, None] * x[:, None, :]
            products[at] += reward[t][:, None] * x
            rewards[at] += reward[t] ** 2
            counts[at] += 1.0
        return cls(squares, products, rewards, counts)

    @classmethod
    def together(cls, parts: Iterable[Evidence]) -> Evidence:
        """The evidence of several groups of accounts."""
        every = list(parts)
        return cls(
            np.concatenate([part.squares for part in every]),
            np.concatenate([part.products for part in every]),
            np.concatenate([part.rewards for part in every]),
            np.concatenate([part.counts for part in every]),
        )


def fit_joint_prior(
    evidence: Evidence,
    rounds: int = ROUNDS,
    on_round: Callable[[JointPrior], None] = lambda prior: None,
) -> JointPrior:
    """The prior under which the logs of N accounts are most likely, after so many rounds."""
    if len(evidence.counts) < 2:
        raise ValueError(f"accounts: expected at least 2, got {len(evidence.counts)}")
    prior = _first_guess(evidence)
    for _ in range(rounds):
        prior = _improved(prior, evidence)
        on_round(prior)
    return prior


def _first_guess(evidence: Evidence) -> JointPrior:
    """Ridge regression on everybody together, and weights that differ by a tenth of the range."""
    squares, products = evidence.squares.sum(axis=0), evidence.products.sum(axis=0)
    k, d = products.shape
    weights = np.linalg.solve(squares + np.eye(d), products[..., None])[..., 0]
    missed = (
        evidence.rewards.sum(axis=0)
        - 2 * np.einsum("kd,kd->k", weights, products)
        + np.einsum("kd,kde,ke->k", weights, squares, weights)
    )
    noise = missed / np.maximum(evidence.counts.sum(axis=0), 1.0)
    return JointPrior(weights.ravel(), 0.01 * np.eye(k * d), np.maximum(noise, _LEAST_NOISE))


def _improved(prior: JointPrior, evidence: Evidence) -> JointPrior:
    """One round: everyone's posterior under this prior, and the prior that these suggest."""
    accounts, k, d = evidence.products.shape
    size = k * d
    precision = np.linalg.inv(prior.covariance)
    pulled = precision @ prior.mean
    means = np.empty((accounts, size))
    spread = np.zeros((size, size))
    missed = np.zeros(k)
    blocks = np.arange(size).reshape(k, d)
    for start in range(0, accounts, _ACCOUNTS_AT_ONCE):
        part = slice(start, start + _ACCOUNTS_AT_ONCE)
        squares, products = evidence.squares[part], evidence.products[part]
        posterior = np.tile(precision, (len(squares), 1, 1))
        for action, block in enumerate(blocks):
            at = slice(block[0], block[-1] + 1)
            posterior[:, at, at] += squares[:, action] / prior.noise[action]
        covariance = np.linalg.inv(posterior)
        told = pulled + (products / prior.noise[:, None]).reshape(-1, size)
        mean = np.einsum("nij,nj->ni", covariance, told, optimize=True)
        means[part] = mean
        spread += covariance.sum(axis=0)
        by_action = mean.reshape(-1, k, d)
        missed += evidence.rewards[part].sum(axis=0)
        missed -= 2 * np.einsum("nkd,nkd->k", by_action, products)
        missed += np.einsum("nkd,nkde,nke->k", by_action, squares, by_action, optimize=True)
        for action, block in enumerate(blocks):
            at = slice(block[0], block[-1] + 1)
            missed[action] += np.sum(squares[:, action] * covariance[:, at, at])
    centred = means - means.mean(axis=0)
    noise = missed / np.maximum(evidence.counts.sum(axis=0), 1.0)
    joint = (spread + centred.T @ centred) / accounts
    return JointPrior(
        mean=means.mean(axis=0),
        covariance=0.5 * (joint + joint.T) + 1e-9 * np.eye(size),
        noise=np.maximum(noise, _LEAST_NOISE),
    )
