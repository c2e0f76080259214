"""Linear bandits from scratch, one regression an action and account: LinUCB, LinTS, ridge. Numpy.

An action's reward is w · (context, 1) plus noise of variance 1, with w ~ N(0, V / ridge), V the
identity but for `slopes` in place of 1 at the context's weights: the posterior is ridge
regression's, exact, and updated in place (Sherman & Morrison 1950).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from training.peers.player import Actions, Terms, best_allowed, with_bias

Array = NDArray[Any]
Exploration = Literal["none", "ucb", "ts"]


class DisjointLinear:
    """One linear model for each action of each account, none of which knows of another.

    `explore`: "none" takes the highest mean; "ucb" the highest mean + width · deviation (LinUCB,
    disjoint: Li et al. 2010); "ts" draws each action's mean from its posterior, deviation widened
    by `width` (LinTS: Agrawal & Goyal 2013). An action's draw of w · x is all that a choice needs.

    Rewards are shares of their range less `centre`, which is what an untried action promises.
    `discount` below 1 forgets at every interaction learned, towards the prior, as if weights were a
    stationary first-order autoregression: exponential forgetting that never exceeds the prior.
    """

    def __init__(
        self,
        terms: Terms,
        *,
        ridge: float,
        slopes: float = 1.0,
        centre: float = 0.0,
        explore: Exploration = "none",
        width: float = 0.0,
        discount: float = 1.0,
    ) -> None:
        self._terms = terms
        self._centre, self._explore, self._width = centre, explore, width
        self._discount = discount
        b, k, d = terms.accounts, terms.actions, terms.context + 1
        self._prior = _variances(ridge, slopes, d)
        self._mean = np.zeros((b, k, d), np.float32)
        self._covariance = np.zeros((b, k, d, d), np.float32)
        self._diagonal = np.einsum("bkdd->bkd", self._covariance)
        self._diagonal[:] = self._prior

    def choose(self, context: Array, mask: Array) -> Actions:
        """An action for each account, `[B]`."""
        x = with_bias(context)
        scores = np.einsum("bd,bkd->bk", x, self._mean)
        rng = self._terms.rng
        if self._explore != "none":
            spread = np.matmul(self._covariance, x[:, None, :, None])[..., 0]
            variance = np.einsum("bd,bkd->bk", x, spread)
            deviation = self._width * np.sqrt(np.maximum(variance, 0.0))
            drawn = rng.standard_normal(scores.shape) if self._explore == "ts" else 1.0
            scores = scores + drawn * deviation
        return best_allowed(scores, mask, rng)

    def learn(
        self, accounts: Array, context: Array, action: Array, reward: Array, done: Array
    ) -> None:
        """One interaction more in each of these accounts."""
        if self._discount < 1.0:
            self._forget(accounts)
        x = with_bias(context)
        covariance = self._covariance[accounts, action]
        gain = np.einsum("nij,nj->ni", covariance, x)
        scale = 1.0 / (1.0 + np.einsum("ni,ni->n", gain, x))[:, None]
        mean = self._mean[accounts, action]
        missed = self._terms.unit(reward) - self._centre - np.einsum("ni,ni->n", mean, x)
        self._mean[accounts, action] = mean + gain * scale * missed[:, None]
        covariance -= gain[:, :, None] * (gain * scale)[:, None, :]
        self._covariance[accounts, action] = covariance

    def _forget(self, accounts: Array) -> None:
        kept = self._discount
        fresh = (1.0 - kept**2) * self._prior
        if accounts.size == self._terms.accounts:
            self._mean *= kept
            self._covariance *= kept**2
            self._diagonal += fresh
        else:
            self._mean[accounts] *= kept
            self._covariance[accounts] *= kept**2
            self._diagonal[accounts] += fresh


def _variances(ridge: float, slopes: float, d: int) -> Array:
    """Prior variance of each weight, `[d]`, the bias last."""
    variances = np.full(d, slopes / ridge)
    variances[-1] = 1.0 / ridge
    return variances


class PooledLinTS:
    """LinTS whose regressions, one an action, are all accounts': what one account teaches, every
    other knows. Whoever plays it lets accounts arrive one after another."""

    def __init__(
        self,
        terms: Terms,
        *,
        ridge: float,
        width: float,
        slopes: float = 1.0,
        centre: float = 0.0,
    ) -> None:
        self._terms, self._centre, self._width = terms, centre, width
        k, d = terms.actions, terms.context + 1
        prior = _variances(ridge, slopes, d)
        self._precision = np.tile(np.diag(1.0 / prior), (k, 1, 1))
        self._weighted = np.zeros((k, d))
        self._mean = np.zeros((k, d))
        self._covariance = np.tile(np.diag(prior), (k, 1, 1))

    def choose(self, context: Array, mask: Array) -> Actions:
        """An action for each account here now, `[B]`, any number of them."""
        x = with_bias(context)
        variance = np.einsum("bd,kde,be->bk", x, self._covariance, x, optimize=True)
        rng = self._terms.rng
        deviation = self._width * np.sqrt(np.maximum(variance, 0.0))
        drawn = rng.standard_normal(variance.shape)
        return best_allowed(x @ self._mean.T + drawn * deviation, mask, rng)

    def learn(
        self, accounts: Array, context: Array, action: Array, reward: Array, done: Array
    ) -> None:
        """These interactions, whosever they are."""
        x = with_bias(context).astype(np.float64)
        earned = self._terms.unit(reward) - self._centre
        for k in np.unique(action):
            of_action = action == k
            seen = x[of_action]
            self._precision[k] += seen.T @ seen
            self._weighted[k] += earned[of_action] @ seen
            self._covariance[k] = np.linalg.inv(self._precision[k])
            self._mean[k] = self._covariance[k] @ self._weighted[k]
