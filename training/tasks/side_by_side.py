"""Several situated tasks of one shape as one, side by side along B. Numpy only.

Accounts of many kinds then pass through a network together, and one natural step sees them all. It
changes nothing of the tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.encode import Float32
from training.tasks.task import Situated

Array = NDArray[Any]


class SideBySide:
    """Tasks with the same actions, steps, feedback and rewards' range."""

    def __init__(self, tasks: Sequence[Situated], slots: int, features: int) -> None:
        first = tasks[0]
        for task in tasks:
            if (task.actions, task.steps, task.reward_range) != (
                first.actions,
                first.steps,
                first.reward_range,
            ) or not np.array_equal(task.known, first.known):
                raise ValueError("tasks: expected the same actions, steps, feedback and range")
        self.tasks = tasks
        self.actions, self.steps, self.known = first.actions, first.steps, first.known
        self.reward_range, self.told_horizon = first.reward_range, first.told_horizon
        self.num_envs = sum(task.num_envs for task in tasks)
        self._slots = slots
        self._ends = np.cumsum([task.num_envs for task in tasks])[:-1]
        described = np.zeros((self.num_envs, self.actions, features), np.float32)
        for task, part in zip(tasks, np.split(described, self._ends), strict=True):
            part[..., : task.action_features.shape[-1]] = task.action_features
        self.action_features: Float32 = described

    @property
    def mask(self) -> NDArray[np.bool_]:
        """What the decision to come may use, `[B, K]`."""
        return np.concatenate([task.mask for task in self.tasks])

    @property
    def means(self) -> NDArray[np.float64]:
        """What each action would earn, `[B, K]`."""
        return np.concatenate([task.means for task in self.tasks])

    def reset(self) -> tuple[Float32, dict[str, Any]]:
        """New accounts in every task."""
        return self._padded([task.reset()[0] for task in self.tasks]), {}

    def step(self, actions: Array) -> tuple[Float32, Array, Array, Array, dict[str, Any]]:
        """Actions `[B]`: the next context, reward, terminated, truncated, each `[B]`, and info."""
        parts = np.split(actions, self._ends)
        came = [task.step(part) for task, part in zip(self.tasks, parts, strict=True)]
        contexts, rewards, terminated, truncated, _ = zip(*came, strict=True)
        return (
            self._padded(contexts),
            np.concatenate(rewards),
            np.concatenate(terminated),
            np.concatenate(truncated),
            {},
        )

    def shown(self, reward: Array) -> Float32:
        """Rewards of any shape in [−1, 1]."""
        return self.tasks[0].shown(reward)

    def expected(self, actions: Array) -> NDArray[np.float64]:
        """The mean reward of these actions `[B]` at the decision to come."""
        parts = np.split(actions, self._ends)
        return np.concatenate([t.expected(part) for t, part in zip(self.tasks, parts, strict=True)])

    def bounds(self) -> tuple[Array, Array]:
        """What random play and the best play earn at the decision to come, `[B]` each."""
        low, high = zip(*(task.bounds() for task in self.tasks), strict=True)
        return np.concatenate(low), np.concatenate(high)

    def _padded(self, contexts: Sequence[Float32]) -> Float32:
        padded = np.zeros((self.num_envs, self._slots), np.float32)
        for part, context in zip(np.split(padded, self._ends), contexts, strict=True):
            part[:, : context.shape[1]] = context
        return padded
