"""Whole trials played by a network, many at once. It never changes a weight, or knows a family.

The step is the service's: decide from the memory, draw by `contract.draw.sample`, learn what has
been fed back by then.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from contract.draw import sample
from contract.encode import encode_reward, horizon_left
from training.policies.network import Network
from training.record import Record
from training.tasks.task import Informed, Task


@dataclass(frozen=True)
class Played:
    """B finished trials of T steps."""

    record: Record
    reward: NDArray[np.float32]
    """Raw, `[T, B]`."""
    expected: NDArray[np.float64]
    """The mean of the action played, `[T, B]`: known to the simulator alone."""
    best: NDArray[np.float64]
    """What the best play earns at that step, `[T, B]`."""
    random: NDArray[np.float64]
    """What random play earns at that step, `[T, B]`."""
    reward_range: tuple[float, float] = (0.0, 1.0)
    """The range that rewards are declared in."""
    lost: NDArray[np.float64] | None = None
    """What the action played cost, in expectation, where the task knows it, `[T, B]`."""

    @property
    def gap_closed(self) -> float:
        """Share of the gap between random play and always the best that was closed."""
        floor, ceiling = self.random.mean(), self.best.mean()
        return float((self.expected.mean() - floor) / (ceiling - floor))

    def encoded(self, reward: NDArray[np.float64]) -> NDArray[np.float32]:
        """Mean rewards of any shape in [−1, 1], by the range that rewards are declared in."""
        return encode_reward(reward, *self.reward_range)


@torch.no_grad()
def play(network: Network, task: Task, rng: np.random.Generator, greedy: bool = False) -> Played:
    """New trials on `task`, from the blank memory to the last step."""
    B, K, T = task.num_envs, task.actions, task.steps
    context, _ = task.reset()
    shared, rows = network.blank(B, K)
    mask, features = torch.ones(B, K, dtype=torch.bool), torch.zeros(B, K, 0)
    known = task.known
    horizon = torch.as_tensor(horizon_left(known, T))[:, None].expand(T, B, 2)
    contexts: list[Tensor] = []
    actions: list[Tensor] = []
    shown: list[Tensor] = []
    ends: list[Tensor] = []
    rewards, expected, best, random = [], [], [], []
    informed = task if isinstance(task, Informed) else None
    told: list[Tensor] = []
    lost = []
    learned = 0
    for t in range(T):
        while learned < known[t]:
            shared, rows = network.learn(
                shared,
                rows,
                contexts[learned],
                actions[learned],
                shown[learned],
                ends[learned],
                features,
            )
            learned += 1
        contexts.append(torch.as_tensor(context))
        probabilities, _ = network.decide(shared, rows, contexts[t], mask, horizon[t], features)
        if greedy:
            action = probabilities.cpu().numpy().argmax(1)
        else:
            action = sample(probabilities.cpu().numpy(), rng.random(B))
        if informed:
            told.append(torch.as_tensor(informed.told()))
            lost.append(informed.lost(action))
        expected.append(task.expected(action))
        floor, ceiling = task.bounds()
        random.append(floor)
        best.append(ceiling)
        context, reward, terminated, truncated, _ = task.step(action)
        actions.append(torch.as_tensor(action))
        rewards.append(reward)
        shown.append(torch.as_tensor(task.shown(reward)))
        ends.append(torch.as_tensor((terminated | truncated).astype(np.float32)))
    record = Record(
        action=torch.stack(actions),
        reward=torch.stack(shown),
        done=torch.stack(ends),
        horizon_left=horizon,
        context=torch.stack(contexts),
        action_features=features,
        action_mask=mask,
        known=None if np.array_equal(known, np.arange(T)) else torch.as_tensor(known),
        told=torch.stack(told) if informed else None,
    )
    return Played(
        record,
        np.stack(rewards),
        np.stack(expected),
        np.stack(best),
        np.stack(random),
        task.reward_range,
        np.stack(lost) if informed else None,
    )
