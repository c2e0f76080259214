"""Gaussian bandits, B trials at once. Numpy only: it must never import torch or know a policy.

Arm means are N(0, 1), a reward is N(mean, 1): the family under which Gaussian Thompson sampling is
exact. With drift the means are drawn anew or follow a stationary autoregression.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.tasks.bandit_trials import BanditTrials
from training.tasks.drift import autoregression, change_points, draw_rates

Array = NDArray[Any]

NOISE = 1.0
"""Standard deviation of a reward around its arm's mean, in those of the means over the family."""


class GaussianBandits(BanditTrials):
    """B independent trials of n pulls on k arms that pay real numbers.

    Rewards are declared to lie within 5 either way, which leaves out four in 10,000 of a random
    arm's; where a policy is shown one outside it is clipped. A trial's noise at step t is one
    normal number whatever the arm.
    """

    reward_range = (-5.0, 5.0)

    def _new_means(self) -> None:
        self.means = self._normal(self._task_rng, self.num_envs)
        self._rates = draw_rates(self.drift, self._task_rng, self.num_envs)

    def _pay(self, actions: Array) -> Array:
        noise = NOISE * self._luck_rng.standard_normal(self.num_envs)
        rewards: Array = (self.expected(actions) + noise).astype(np.float32)
        return rewards

    def _drift(self) -> None:
        match self.drift:
            case "none":
                return
            case "change-points":
                self.means = change_points(self.means, self._rates, self._normal, self._task_rng)
            case "slow":
                self.means = autoregression(self.means, self._rates, self._task_rng)

    def _normal(self, rng: np.random.Generator, trials: int) -> Array:
        return rng.standard_normal((trials, self.k))
