"""A simulated workflow as a task to train on: its accounts, in the words of `Situated`. Numpy only.

What is forced is shown as the only action allowed. It changes nothing of the simulator.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.encode import (
    Float32,
    context_size,
    encode_action_features,
    encode_reward,
    horizon_left,
)
from contract.spec import WorkflowSpec
from training.tasks.feedback import known_before
from training.tasks.workflows.accounts import encode_columns
from training.tasks.workflows.families import Options, build_accounts
from training.tasks.workflows.simulation import SimulatedAccounts

Array = NDArray[Any]


class WorkflowTrials:
    """B accounts of one vertical, T decisions each, every feedback late by the same delay."""

    def __init__(
        self,
        workflow: str,
        vertical: str,
        trials: int,
        n: int,
        rng: np.random.Generator,
        *,
        delay: int = 0,
        spec: WorkflowSpec | None = None,
    ) -> None:
        accounts = build_accounts(
            workflow,
            vertical,
            accounts=trials,
            steps=n,
            rng=rng,
            options=Options(delay=delay),
            spec=spec,
        )
        assert isinstance(accounts, SimulatedAccounts)
        self.accounts, self.spec = accounts, accounts.spec
        self.num_envs, self.steps, self.actions = trials, n, len(self.spec.actions)
        self.reward_range = (self.spec.reward.min, self.spec.reward.max)
        self.known = known_before(n, delay)
        self.action_features: Float32 = encode_action_features(
            self.spec, len(self.spec.actions[0].features)
        )
        horizon = self.spec.horizon
        self.told_horizon: Float32 = horizon_left(self.known, horizon.interactions, horizon.floor)
        self._slots = context_size(self.spec)

    def reset(self) -> tuple[Float32, dict[str, Any]]:
        """New accounts; their first context `[B, C]`."""
        self.accounts.reset()
        return self._look(), {}

    def step(self, actions: Array) -> tuple[Float32, Array, Array, Array, dict[str, Any]]:
        """Actions `[B]`: the next context, reward, terminated, truncated, each `[B]`, and info."""
        came = self.accounts.step(actions)
        last = self.accounts.t == self.steps
        context = np.zeros((self.num_envs, self._slots), np.float32) if last else self._look()
        return context, came.reward, came.done, np.zeros_like(came.done), {}

    def shown(self, reward: Array) -> Float32:
        """Rewards of any shape in [−1, 1]."""
        return encode_reward(reward, *self.reward_range)

    def expected(self, actions: Array) -> NDArray[np.float64]:
        """The mean reward of these actions `[B]` at the decision to come."""
        found: NDArray[np.float64] = self._paid[np.arange(self.num_envs), actions]
        return found

    def bounds(self) -> tuple[Array, Array]:
        """What random play and the oracle earn at the decision to come, `[B]` each."""
        allowed = np.where(self.mask, self._paid, np.nan)
        oracle = self._paid[np.arange(self.num_envs), self._oracle]
        return np.nanmean(allowed, 1), oracle

    def _look(self) -> Float32:
        """Takes in the decision to come; its context."""
        now = self.accounts.situation()
        forced = now.forced >= 0
        self.mask = now.mask.copy()
        self.mask[forced] = np.arange(self.actions) == now.forced[forced][:, None]
        self.means = np.asarray(self.accounts.worth(now.means), np.float64)
        self._paid = now.means
        self._oracle = np.where(forced, now.forced, now.oracle)
        return encode_columns(self.spec, now.columns, self.num_envs, self._slots)
