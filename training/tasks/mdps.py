"""Tabular MDPs, B trials at once. Numpy only: it must never import torch or know a policy.

The family of Duan et al. (2016), section 3.2, after Osband et al. (2013): 10 states, 5 actions;
flat Dirichlet transitions; mean rewards N(1, 1) and observed rewards N(mean, 1). A trial is n
episodes of 10 steps on one MDP, each episode starting in state 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.draw import sample
from contract.encode import Float32, encode_reward
from training.tasks.value_iteration import earned_per_step, value_iteration

Array = NDArray[Any]

STATES = 10
ACTIONS = 5
EPISODE_STEPS = 10

REWARD_RANGE = (-5.0, 7.0)
"""The range that rewards are declared in, 4.2 standard deviations of an observed reward either side
of its mean. Even one who always takes the best-paid action sees fewer than one reward in 10,000
outside, and clipping takes 0.00001 off the mean reward (a million steps)."""


class TabularMDPs:
    """B independent trials of n episodes of 10 steps, in Gymnasium's `VectorEnv` words.

    `means` `[B, S, A]` and `transitions` `[B, S, A, S]` are what a simulator knows: for oracles,
    baselines and returns, never for a policy; `state` `[B]` is where the trials are. A trial's luck
    at a step is one uniform number for the transition and one normal number for the reward whatever
    the action, so two players given the same seed meet the same MDPs and the same luck.
    """

    actions = ACTIONS
    reward_range = REWARD_RANGE

    def __init__(self, trials: int, n: int, rng: np.random.Generator) -> None:
        refuse_impossible_family(n=n, trials=trials)
        self.num_envs = trials
        self.n = n
        self.means: Array = np.empty((trials, STATES, ACTIONS))
        self.transitions: Array = np.empty((trials, STATES, ACTIONS, STATES))
        self.state: NDArray[np.int64] = np.zeros(trials, np.int64)
        self._task_rng, self._luck_rng = rng.spawn(2)
        self._steps = n * EPISODE_STEPS
        self._bounds: tuple[Array, Array] | None = None

    @property
    def steps(self) -> int:
        """T, the steps of a whole trial."""
        return self.n * EPISODE_STEPS

    @property
    def known(self) -> NDArray[np.int64]:
        """Every step is fed back before the next, `[T]`."""
        return np.arange(self.steps)

    def reset(self) -> tuple[Float32, dict[str, Any]]:
        """New tasks for every trial. Returns the states as one-hots `[B, S]` and no info."""
        shape = (self.num_envs, STATES, ACTIONS)
        self.means = self._task_rng.normal(1.0, 1.0, shape)
        weights = self._task_rng.standard_exponential((*shape, STATES))
        self.transitions = weights / weights.sum(axis=-1, keepdims=True)
        self.state = np.zeros(self.num_envs, np.int64)
        self._steps = 0
        self._bounds = None
        return self._observation(), {}

    def step(self, actions: Array) -> tuple[Float32, Array, Array, Array, dict[str, Any]]:
        """One step a trial, actions `[B]`: observation, reward, terminated, truncated, info.

        `terminated` ends an episode; the observation is then that of the next one, state 0.
        `info["trial_over"]` says that all n episodes are spent.
        """
        if self._steps >= self.steps:
            raise RuntimeError(f"all {self.n} episodes of these trials are spent: call reset()")
        at = (np.arange(self.num_envs), self.state, np.asarray(actions, np.int64))
        reached = sample(self.transitions[at], self._luck_rng.random(self.num_envs))
        noise = self._luck_rng.standard_normal(self.num_envs)
        rewards: Float32 = (self.means[at] + noise).astype(np.float32)
        self._steps += 1
        over = self._steps % EPISODE_STEPS == 0
        self.state = np.zeros_like(reached) if over else reached
        terminated = np.full(self.num_envs, over)
        truncated = np.zeros(self.num_envs, bool)
        info = {"trial_over": self._steps == self.steps}
        return self._observation(), rewards, terminated, truncated, info

    @staticmethod
    def shown(reward: Array) -> Float32:
        """Rewards of any shape as a policy is shown them: clipped to the range, in [−1, 1]."""
        return encode_reward(np.clip(reward, *REWARD_RANGE), *REWARD_RANGE)

    def expected(self, actions: Array) -> NDArray[np.float64]:
        """The mean rewards `[B]` of these actions `[B]` where the trials are."""
        means: NDArray[np.float64] = self.means[np.arange(self.num_envs), self.state, actions]
        return means

    def bounds(self) -> tuple[Array, Array]:
        """What random play and the optimal policy earn at the next step, `[B]` each.

        Expectations from the episode's start, over the states each would reach by itself.
        """
        if self._bounds is None:
            q = value_iteration(self.means, self.transitions, EPISODE_STEPS)
            best = (q == q.max(axis=-1, keepdims=True)).astype(np.float64)
            best /= best.sum(axis=-1, keepdims=True)
            self._bounds = (
                earned_per_step(self.means, self.transitions, np.full_like(best, 1.0 / ACTIONS)),
                earned_per_step(self.means, self.transitions, best),
            )
        random, optimal = self._bounds
        at = self._steps % EPISODE_STEPS
        return random[at], optimal[at]

    def _observation(self) -> Float32:
        return one_hot(self.state)


def one_hot(state: Array) -> Float32:
    """States `[B]` as the contexts `[B, S]` that a policy is shown."""
    shown: Float32 = np.eye(STATES, dtype=np.float32)[state]
    return shown


def refuse_impossible_family(*, n: int, trials: int = 1) -> None:
    """Raises ValueError naming the field and what it expects."""
    if n < 1:
        raise ValueError(f"n: expected at least 1 episode a trial, got {n}")
    if trials < 1:
        raise ValueError(f"trials: expected at least 1, got {trials}")
