"""Bernoulli bandits, B trials at once. Numpy only: it must never import torch or know a policy.

One trial is n pulls on k arms. Their means are drawn once (the setting of Duan et al. 2016, section
3.1) or move from pull to pull: in a choice, or where the family drifts. Every pull is an episode of
length 1, so `terminated` is true after every step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.draw import sample
from training.tasks.bandit_trials import MOST_ARMS, BanditTrials, refuse_impossible_trials
from training.tasks.drift import Drift, change_points, draw_rates, log_uniform, reflected_walk

Array = NDArray[Any]

__all__ = ["MOST_ARMS", "BernoulliBandits", "refuse_impossible_family"]

_TOTAL_CONCENTRATION = (0.3, 10.0)
"""Range of the Dirichlet's total concentration, drawn log-uniformly per trial."""
_STRONGEST_HABIT = 0.9
"""A choosing trial repeats its last choice with a probability uniform in [0, this]."""
_CHANGE = (0.001, 0.1)
"""Range of the probability a step that a choosing trial's preferences are drawn anew, drawn
log-uniformly per trial."""


class BernoulliBandits(BanditTrials):
    """B independent trials of n pulls on k arms that pay 0 or 1.

    Most trials have fixed arm means, each uniform(0, 1). A share `choice_share` are *choices*: the
    preferences of someone who wants exactly one of the k actions each time, one symmetric Dirichlet
    draw of random concentration, who repeats the last choice by habit and changes preferences now
    and then. Every arm is a Bernoulli arm at every step, whatever was pulled before.

    In the trials that are no choices the means move as `drift` says. A trial's coin at step t is
    one uniform number whatever the arm.
    """

    reward_range = (0.0, 1.0)

    def __init__(
        self,
        trials: int,
        k: int,
        n: int,
        rng: np.random.Generator,
        choice_share: float = 0.0,
        *,
        drift: Drift = "none",
        delay: int = 0,
        batch: int = 1,
    ) -> None:
        refuse_impossible_family(k=k, n=n, choice_share=choice_share)
        super().__init__(trials, k, n, rng, drift=drift, delay=delay, batch=batch)
        self.choice_share = choice_share
        self._choosing: Array = np.empty(0, np.int64)
        self._preferences: Array = np.empty((0, k))
        self._habit: Array = np.empty(0)
        self._change: Array = np.empty(0)
        self._concentration: Array = np.empty(0)

    def _new_means(self) -> None:
        rng = self._task_rng
        self.means = rng.random((self.num_envs, self.k))
        self._choosing = np.flatnonzero(rng.random(self.num_envs) < self.choice_share)
        count = self._choosing.size
        self._concentration = log_uniform(rng, _TOTAL_CONCENTRATION, count) / self.k
        self._habit = rng.uniform(0.0, _STRONGEST_HABIT, count)
        self._change = log_uniform(rng, _CHANGE, count)
        self._preferences = _dirichlet(rng, self._concentration, self.k)
        self.means[self._choosing] = self._preferences
        self._rates = draw_rates(self.drift, rng, self.num_envs)

    def _pay(self, actions: Array) -> Array:
        coins = self._luck_rng.random(self.num_envs)
        rewards = (coins < self.expected(actions)).astype(np.float32)
        if self._choosing.size:
            wanted = self._choose(coins[self._choosing])
            rewards[self._choosing] = wanted == actions[self._choosing]
        return rewards

    def _drift(self) -> None:
        """Moves the means to the next pull's in all trials but the choices, which have moved."""
        chosen = self.means[self._choosing]
        match self.drift:
            case "none":
                return
            case "change-points":
                self.means = change_points(self.means, self._rates, self._uniform, self._task_rng)
            case "slow":
                self.means = reflected_walk(self.means, self._rates, self._task_rng)
        self.means[self._choosing] = chosen

    def _uniform(self, rng: np.random.Generator, trials: int) -> Array:
        return rng.random((trials, self.k))

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


def refuse_impossible_family(
    *,
    k: int,
    n: int,
    trials: int = 1,
    choice_share: float = 0.0,
    drift: str = "none",
    delay: int = 0,
    batch: int = 1,
) -> None:
    """Raises ValueError naming the field and what it expects."""
    refuse_impossible_trials(k=k, n=n, trials=trials, drift=drift, delay=delay, batch=batch)
    if not 0.0 <= choice_share <= 1.0:
        raise ValueError(f"choice_share: expected a share in [0, 1], got {choice_share}")
