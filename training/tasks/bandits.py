"""Bernoulli bandits, B trials at once. Numpy only: it must never import torch or know a policy.

One trial is n pulls on k arms. Their means are drawn once (the setting of Duan et al. 2016, section
3.1) or, in a choice, move from pull to pull. Every pull is an episode of length 1, so `terminated`
is true after every step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.draw import sample
from contract.encode import Float32, encode_reward

Array = NDArray[Any]

MOST_ARMS = 50

_TOTAL_CONCENTRATION = (0.3, 10.0)
"""Range of the Dirichlet's total concentration, drawn log-uniformly per trial."""
_STRONGEST_HABIT = 0.9
"""A choosing trial repeats its last choice with a probability uniform in [0, this]."""
_CHANGE = (0.001, 0.1)
"""Range of the probability a step that a choosing trial's preferences are drawn anew, drawn
log-uniformly per trial."""


class BernoulliBandits:
    """B independent trials of n pulls on k arms, in Gymnasium's `VectorEnv` words.

    Most trials have fixed arm means, each uniform(0, 1). A share `choice_share` are *choices*: the
    preferences of someone who wants exactly one of the k actions each time, one symmetric Dirichlet
    draw of random concentration, who repeats the last choice by habit and changes preferences now
    and then. Every arm is a Bernoulli arm at every step, whatever was pulled before.

    `means` `[B, K]` are the means of the next pull: for baselines, oracles and returns, never for a
    policy. A trial's coin at step t is one uniform number whatever the arm, so two players given
    the same seed meet the same tasks and the same luck.
    """

    reward_range = (0.0, 1.0)

    def __init__(
        self, trials: int, k: int, n: int, rng: np.random.Generator, choice_share: float = 0.0
    ) -> None:
        refuse_impossible_family(k=k, n=n, trials=trials, choice_share=choice_share)
        self.num_envs = trials
        self.k = k
        self.n = n
        self.choice_share = choice_share
        self.means: Array = np.empty((trials, k))
        self._task_rng, self._coin_rng = rng.spawn(2)
        self._pulls = n
        self._choosing: Array = np.empty(0, np.int64)
        self._preferences: Array = np.empty((0, k))
        self._habit: Array = np.empty(0)
        self._change: Array = np.empty(0)
        self._concentration: Array = np.empty(0)

    @property
    def actions(self) -> int:
        """K."""
        return self.k

    @property
    def steps(self) -> int:
        """T: every pull is a step."""
        return self.n

    @property
    def known(self) -> NDArray[np.int64]:
        """Every pull is fed back before the next, `[T]`."""
        return np.arange(self.n)

    def shown(self, reward: Array) -> Float32:
        """Rewards of any shape as a policy is shown them, in [−1, 1]."""
        return encode_reward(reward, *self.reward_range)

    def expected(self, actions: Array) -> NDArray[np.float64]:
        """The means `[B]` of the arms about to be pulled."""
        means: NDArray[np.float64] = self.means[np.arange(self.num_envs), actions]
        return means

    def bounds(self) -> tuple[Array, Array]:
        """The mean over the arms, and the best arm's mean, at the next pull, `[B]` each."""
        return self.means.mean(1), self.means.max(1)

    def reset(self) -> tuple[Array, dict[str, Any]]:
        """New tasks for every trial. Returns the empty observation `[B, 0]` and no info."""
        rng = self._task_rng
        self.means = rng.random((self.num_envs, self.k))
        self._choosing = np.flatnonzero(rng.random(self.num_envs) < self.choice_share)
        count = self._choosing.size
        self._concentration = _log_uniform(rng, _TOTAL_CONCENTRATION, count) / self.k
        self._habit = rng.uniform(0.0, _STRONGEST_HABIT, count)
        self._change = _log_uniform(rng, _CHANGE, count)
        self._preferences = _dirichlet(rng, self._concentration, self.k)
        self.means[self._choosing] = self._preferences
        self._pulls = 0
        return self._observation(), {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """One pull a trial, actions `[B]`: observation, reward, terminated, truncated, info.

        Reward 0 or 1. `info["trial_over"]` says that all n pulls are spent.
        """
        if self._pulls >= self.n:
            raise RuntimeError(f"all {self.n} pulls of these trials are spent: call reset()")
        coins = self._coin_rng.random(self.num_envs)
        rewards = (coins < self.means[np.arange(self.num_envs), actions]).astype(np.float32)
        if self._choosing.size:
            wanted = self._choose(coins[self._choosing])
            rewards[self._choosing] = wanted == actions[self._choosing]
        self._pulls += 1
        terminated = np.ones(self.num_envs, bool)
        truncated = np.zeros(self.num_envs, bool)
        info = {"trial_over": self._pulls == self.n}
        return self._observation(), rewards, terminated, truncated, info

    def _choose(self, coins: Array) -> Array:
        """What the choosing trials want now, `[C]`; moves their means to the next pull's."""
        wanted = sample(self.means[self._choosing], coins)
        rng, count = self._task_rng, wanted.size
        changed = np.flatnonzero(rng.random(count) < self._change)
        self._preferences[changed] = _dirichlet(rng, self._concentration[changed], self.k)
        habit = self._habit[:, None]
        repeated = habit * np.eye(self.k)[wanted]
        self.means[self._choosing] = (1.0 - habit) * self._preferences + repeated
        return wanted

    def _observation(self) -> Array:
        return np.empty((self.num_envs, 0), np.float32)


def _log_uniform(
    rng: np.random.Generator, bounds: tuple[float, float], count: int
) -> NDArray[np.float64]:
    """`count` numbers, log-uniform between the bounds."""
    low, high = np.log(bounds)
    drawn: NDArray[np.float64] = np.exp(rng.uniform(low, high, count))
    return drawn


def _dirichlet(rng: np.random.Generator, concentration: Array, k: int) -> NDArray[np.float64]:
    """Symmetric Dirichlet rows `[C, K]`, one a concentration `[C]`, in log space, where a small
    concentration does not underflow.

    log Gamma(a) draws are log Gamma(a + 1) + log(U) / a (Marsaglia & Tsang 2000).
    """
    each = np.broadcast_to(concentration[:, None], (concentration.size, k))
    uniform = 1.0 - rng.random(each.shape)
    logs = np.log(rng.standard_gamma(each + 1.0)) + np.log(uniform) / each
    weights = np.exp(logs - logs.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return shares


def refuse_impossible_family(*, k: int, n: int, trials: int = 1, choice_share: float = 0.0) -> None:
    """Raises ValueError naming the field and what it expects."""
    if not 2 <= k <= MOST_ARMS:
        raise ValueError(f"k: expected 2 to {MOST_ARMS} arms, got {k}")
    if n < 1:
        raise ValueError(f"n: expected at least 1 pull a trial, got {n}")
    if trials < 1:
        raise ValueError(f"trials: expected at least 1, got {trials}")
    if not 0.0 <= choice_share <= 1.0:
        raise ValueError(f"choice_share: expected a share in [0, 1], got {choice_share}")
