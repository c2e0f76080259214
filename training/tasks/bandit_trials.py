"""What every bandit family is: B trials of n pulls on k arms at once. Numpy only.

It must never import torch or know a policy; what arms pay, and how their means move, is the
family's own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.encode import Float32, encode_reward
from training.tasks.drift import DRIFTS, Drift
from training.tasks.feedback import known_before, refuse_impossible_feedback

Array = NDArray[Any]

MOST_ARMS = 50


class BanditTrials(ABC):
    """B independent trials of n pulls on k arms, in Gymnasium's `VectorEnv` words.

    Every pull is an episode of length 1. `means` `[B, K]` are the means of the next pull: for
    baselines, oracles and returns, never for a policy. Means and luck do not depend on what is
    pulled, so two players given the same seed meet the same tasks and the same luck.

    `step` answers at once, but a player may be shown no more than the first `known[t]`
    interactions before pull t, as `delay` and `batch` say (`training.tasks.feedback`).
    """

    reward_range: tuple[float, float]
    """The range that rewards are declared in, and clipped to where a policy is shown them."""

    def __init__(
        self,
        trials: int,
        k: int,
        n: int,
        rng: np.random.Generator,
        *,
        drift: Drift = "none",
        delay: int = 0,
        batch: int = 1,
    ) -> None:
        refuse_impossible_trials(k=k, n=n, trials=trials, drift=drift, delay=delay, batch=batch)
        self.num_envs = trials
        self.k = k
        self.n = n
        self.drift: Drift = drift
        self.delay = delay
        self.batch = batch
        self.means: Array = np.empty((trials, k))
        self._task_rng, self._luck_rng = rng.spawn(2)
        self._rates: Array = np.empty(0)
        self._pulls = n

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
        """How many interactions have been fed back before pull t, `[T]`."""
        return known_before(self.n, self.delay, self.batch)

    def shown(self, reward: Array) -> Float32:
        """Rewards of any shape as a policy is shown them, in [−1, 1]."""
        return encode_reward(np.clip(reward, *self.reward_range), *self.reward_range)

    def expected(self, actions: Array) -> NDArray[np.float64]:
        """The means `[B]` of the arms about to be pulled."""
        means: NDArray[np.float64] = self.means[np.arange(self.num_envs), actions]
        return means

    def bounds(self) -> tuple[Array, Array]:
        """The mean over the arms, and the best arm's mean, at the next pull, `[B]` each."""
        return self.means.mean(1), self.means.max(1)

    def reset(self) -> tuple[Float32, dict[str, Any]]:
        """New tasks for every trial. Returns the empty observation `[B, 0]` and no info."""
        self._new_means()
        self._pulls = 0
        return self._observation(), {}

    def step(self, actions: Array) -> tuple[Float32, Array, Array, Array, dict[str, Any]]:
        """One pull a trial, actions `[B]`: observation, reward, terminated, truncated, info.

        `info["trial_over"]` says that all n pulls are spent.
        """
        if self._pulls >= self.n:
            raise RuntimeError(f"all {self.n} pulls of these trials are spent: call reset()")
        rewards = self._pay(actions)
        self._drift()
        self._pulls += 1
        terminated = np.ones(self.num_envs, bool)
        truncated = np.zeros(self.num_envs, bool)
        info = {"trial_over": self._pulls == self.n}
        return self._observation(), rewards, terminated, truncated, info

    @abstractmethod
    def _new_means(self) -> None:
        """Draws `means` of new tasks, and the `_rates` at which they move."""

    @abstractmethod
    def _pay(self, actions: Array) -> Array:
        """Rewards `[B]`, float32, of these arms."""

    @abstractmethod
    def _drift(self) -> None:
        """Moves `means` to the next pull's."""

    def _observation(self) -> Float32:
        return np.empty((self.num_envs, 0), np.float32)


def refuse_impossible_trials(
    *, k: int, n: int, trials: int = 1, drift: str = "none", delay: int = 0, batch: int = 1
) -> None:
    """Raises ValueError naming the field and what it expects."""
    if not 2 <= k <= MOST_ARMS:
        raise ValueError(f"k: expected 2 to {MOST_ARMS} arms, got {k}")
    if n < 1:
        raise ValueError(f"n: expected at least 1 pull a trial, got {n}")
    if trials < 1:
        raise ValueError(f"trials: expected at least 1, got {trials}")
    if drift not in DRIFTS:
        raise ValueError(f"drift: expected one of {', '.join(DRIFTS)}, got {drift!r}")
    refuse_impossible_feedback(n=n, delay=delay, batch=batch)
