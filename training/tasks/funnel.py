"""Small MDPs: journeys through a few stages, B accounts at once. Numpy only; it knows no policy.

At every stage each action has its own chance, the account's, to bring the journey to the next one;
the last stage pays 1, the others a little or nothing, and a journey is given up after some steps.
Stage and steps left are the context.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.encode import Float32, encode_reward, horizon_left
from training.tasks.feedback import known_before

Array = NDArray[Any]

_STAGES = (2, 4)
_PATIENCE = (3, 8)


class FunnelTrials:
    """T steps of B accounts; a journey ends by success or when its steps are used up."""

    reward_range = (0.0, 1.0)

    def __init__(
        self,
        trials: int,
        k: int,
        n: int,
        rng: np.random.Generator,
        *,
        slots: int = 16,
        delay: int = 0,
        batch: int = 1,
        horizon: int | None = None,
        floor: float = 0.0,
    ) -> None:
        self.num_envs, self.actions, self.steps, self.slots = trials, k, n, slots
        self.known = known_before(n, delay, batch)
        self.told_horizon: Float32 = horizon_left(self.known, horizon or n, floor)
        self.action_features: Float32 = np.zeros((k, 0), np.float32)
        self.mask = np.ones((trials, k), np.bool_)
        self.stages = int(rng.integers(_STAGES[0], _STAGES[1] + 1))
        self.patience = int(rng.integers(max(_PATIENCE[0], self.stages), _PATIENCE[1] + 1))
        self.small = float(rng.choice([0.0, 0.1, 0.25]))
        self._rng, self._luck = rng.spawn(2)

    def reset(self) -> tuple[Float32, dict[str, Any]]:
        """New accounts at the first stage."""
        rng, B, S, K = self._rng, self.num_envs, self.stages, self.actions
        typical = rng.uniform(0.2, 0.7)
        spread = rng.uniform(1.0, 6.0)
        self.chance = rng.beta(typical * spread, (1 - typical) * spread, (B, S, K))
        self.stage = np.zeros(B, np.int64)
        self.left = np.full(B, self.patience)
        self._plan()
        return self._context(), {}

    def _plan(self) -> None:
        """The worth of every action, `[patience + 1, B, S, K]`, with the best play afterwards."""
        B, S, K = self.chance.shape
        value = np.zeros((B, S + 1))
        self._worth = np.zeros((self.patience + 1, B, S, K))
        for left in range(1, self.patience + 1):
            after = np.zeros((B, S)) if left == 1 else value[:, :S]
            gain = np.where(np.arange(S) == S - 1, 1.0, self.small)
            onward = np.zeros((B, S))
            if left > 1:
                onward[:, :-1] = value[:, 1:S]
            self._worth[left] = self.chance * (gain + onward)[..., None]
            self._worth[left] += (1.0 - self.chance) * after[..., None]
            value = np.concatenate([self._worth[left].max(-1), np.zeros((B, 1))], 1)

    @property
    def means(self) -> NDArray[np.float64]:
        """The worth of each action now, the rest of the journey played at best, `[B, K]`."""
        worth: NDArray[np.float64] = self._worth[self.left, np.arange(self.num_envs), self.stage]
        return worth

    def step(self, actions: Array) -> tuple[Float32, Array, Array, Array, dict[str, Any]]:
        """One step each."""
        rows = np.arange(self.num_envs)
        moved = self._luck.random(self.num_envs) < self.chance[rows, self.stage, actions]
        last = self.stage == self.stages - 1
        reward = np.where(moved, np.where(last, 1.0, self.small), 0.0).astype(np.float32)
        self.left = self.left - 1
        done = (moved & last) | (self.left == 0)
        self.stage = np.where(done, 0, self.stage + moved)
        self.left = np.where(done, self.patience, self.left)
        return self._context(), reward, done, np.zeros_like(done), {}

    def shown(self, reward: Array) -> Float32:
        """Rewards of any shape in [−1, 1]."""
        return encode_reward(reward, *self.reward_range)

    def expected(self, actions: Array) -> NDArray[np.float64]:
        """The mean reward of this very step, `[B]`."""
        chance = self.chance[np.arange(self.num_envs), self.stage, actions]
        pays: NDArray[np.float64] = np.where(self.stage == self.stages - 1, 1.0, self.small)
        return chance * pays

    def bounds(self) -> tuple[Array, Array]:
        """What a journey pays a step at random and at best, whatever the stage."""
        best = self._worth[self.patience, :, 0].max(-1) / self.patience
        return np.zeros(self.num_envs), best

    def _context(self) -> Float32:
        context = np.zeros((self.num_envs, self.slots), np.float32)
        context[np.arange(self.num_envs), self.stage] = 1.0
        context[:, self.stages] = 2.0 * self.left / self.patience - 1.0
        return context
