"""A bandit as a task whose decisions have a mask, action features and a told horizon. Numpy only.

It changes nothing of the bandit: no context, all actions allowed, no features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.encode import Float32, horizon_left
from training.tasks.bandit_trials import BanditTrials

Array = NDArray[Any]


class SituatedBandits:
    """Any bandit, in the words of `training.tasks.task.Situated`."""

    def __init__(self, bandits: BanditTrials, horizon: int, floor: float = 0.0) -> None:
        self.bandits = bandits
        self.num_envs, self.actions, self.steps = bandits.num_envs, bandits.actions, bandits.steps
        self.known, self.reward_range = bandits.known, bandits.reward_range
        self.told_horizon: Float32 = horizon_left(bandits.known, horizon, floor)
        self.action_features: Float32 = np.zeros((bandits.actions, 0), np.float32)
        self.mask = np.ones((bandits.num_envs, bandits.actions), np.bool_)

    @property
    def means(self) -> NDArray[np.float64]:
        """What each arm pays at the pull to come, `[B, K]`."""
        return self.bandits.means

    def reset(self) -> tuple[Float32, dict[str, Any]]:
        """New bandits."""
        return self.bandits.reset()

    def step(self, actions: Array) -> tuple[Float32, Array, Array, Array, dict[str, Any]]:
        """One pull each."""
        return self.bandits.step(actions)

    def shown(self, reward: Array) -> Float32:
        """Rewards as a policy is shown them."""
        return self.bandits.shown(reward)

    def expected(self, actions: Array) -> NDArray[np.float64]:
        """The means of these arms."""
        return self.bandits.expected(actions)

    def bounds(self) -> tuple[Array, Array]:
        """What random play and the best arm pay."""
        return self.bandits.bounds()
