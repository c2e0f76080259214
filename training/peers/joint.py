"""Linear regression with a joint prior over all actions, on each account alone. Numpy.

The posterior of all actions' weights together, one Kalman step an interaction: what one action's
reward says of the others, the prior's covariance knows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.peers.player import Actions, Terms, best_allowed, with_bias
from training.peers.prior import JointPrior

Array = NDArray[Any]

_ACCOUNTS_AT_ONCE = 32
"""Covariances a step works on: they then stay in the processor's cache."""


class JointLinear:
    """One posterior over all actions' weights for each account, played greedily or by Thompson.

    `width` 0 takes the highest posterior mean; above 0 it draws all actions' means jointly from
    the posterior, deviation multiplied by `width`. `discount` below 1 forgets at every interaction
    learned, towards the prior, as if weights were a stationary first-order autoregression.
    """

    def __init__(
        self, terms: Terms, prior: JointPrior, *, width: float = 0.0, discount: float = 1.0
    ) -> None:
        self._terms, self._width, self._discount = terms, width, discount
        self._k, self._d = terms.actions, terms.context + 1
        self._noise = prior.noise.astype(np.float32)
        self._prior_mean = prior.mean.astype(np.float32)
        self._prior_covariance = prior.covariance.astype(np.float32)
        self._mean = np.tile(self._prior_mean, (terms.accounts, 1))
        self._covariance = np.tile(self._prior_covariance, (terms.accounts, 1, 1))
        starts = range(0, terms.accounts, _ACCOUNTS_AT_ONCE)
        self._parts = [slice(i, min(i + _ACCOUNTS_AT_ONCE, terms.accounts)) for i in starts]

    def choose(self, context: Array, mask: Array) -> Actions:
        """An action for each account, `[B]`."""
        x = with_bias(context)
        rng = self._terms.rng
        scores = np.einsum("bd,bkd->bk", x, self._mean.reshape(-1, self._k, self._d))
        if self._width > 0.0:
            luck = rng.standard_normal((*scores.shape, 1)).astype(np.float32)
            for part in self._parts:
                drawn = np.linalg.cholesky(self._predictive(x[part], part)) @ luck[part]
                scores[part] += self._width * drawn[..., 0]
        return best_allowed(scores, mask, rng)

    def learn(
        self, accounts: Array, context: Array, action: Array, reward: Array, done: Array
    ) -> None:
        """One interaction more in each of these accounts."""
        x, earned = with_bias(context), self._terms.unit(reward).astype(np.float32)
        bounds = np.searchsorted(accounts, [part.start for part in self._parts])
        for part, low, high in zip(self._parts, bounds, [*bounds[1:], len(accounts)], strict=True):
            if low == high:
                continue
            rows = accounts[low:high]
            if high - low == part.stop - part.start:
                held = self._mean[part], self._covariance[part]
                self._fold(*held, x[low:high], action[low:high], earned[low:high])
                continue
            mean, covariance = self._mean[rows], self._covariance[rows]
            self._fold(mean, covariance, x[low:high], action[low:high], earned[low:high])
            self._mean[rows], self._covariance[rows] = mean, covariance

    def _fold(self, mean: Array, covariance: Array, x: Array, action: Array, earned: Array) -> None:
        """Learns one interaction of N accounts into mean `[N, D]` and covariance `[N, D, D]`."""
        if self._discount < 1.0:
            kept = self._discount
            mean *= kept
            mean += (1.0 - kept) * self._prior_mean
            covariance *= kept**2
            covariance += (1.0 - kept**2) * self._prior_covariance
        n, d = x.shape
        rows = np.arange(n)
        of_action = covariance.reshape(n, self._k, d, -1)[rows, action]  # [N, d, D]
        gain = np.matmul(x[:, None, :], of_action)[:, 0]
        own = gain.reshape(n, self._k, d)[rows, action]
        scale = 1.0 / (np.einsum("nd,nd->n", own, x) + self._noise[action])
        missed = earned - np.einsum("nd,nd->n", mean.reshape(n, self._k, d)[rows, action], x)
        mean += gain * (scale * missed)[:, None]
        covariance -= gain[:, :, None] * (gain * scale[:, None])[:, None, :]

    def _predictive(self, x: Array, part: slice) -> Array:
        """Posterior covariance of all actions' means at x, `[n, K, K]`."""
        n, d = x.shape
        covariance = self._covariance[part].reshape(n, self._k, d, -1)
        half = np.matmul(x[:, None, None, :], covariance).reshape(n, self._k, self._k, d)
        joint = np.einsum("nkld,nd->nkl", half, x)
        joint = 0.5 * (joint + joint.swapaxes(1, 2))
        slack = 1e-6 + 1e-4 * np.einsum("nkk->nk", joint).max(axis=1)
        joint += slack[:, None, None] * np.eye(self._k, dtype=joint.dtype)
        predictive: Array = joint
        return predictive
