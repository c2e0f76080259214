"""Whole trials of bandits played by a network, many at once. It never changes a weight.

The step is the service's: decide from the memory, draw by `contract.draw.sample`, learn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from contract.draw import sample
from contract.encode import encode_reward, horizon_left
from training.policies.network import Network
from training.record import Record
from training.tasks.bandits import BernoulliBandits


@dataclass(frozen=True)
class Played:
    """B finished trials of n pulls."""

    record: Record
    reward: NDArray[np.float32]
    """Raw, `[T, B]`."""
    expected: NDArray[np.float64]
    """The mean of the arm pulled, `[T, B]`: known to the simulator alone."""
    best: NDArray[np.float64]
    """The best arm's mean at that step, `[T, B]`."""
    random: NDArray[np.float64]
    """The mean over the arms at that step, `[T, B]`."""

    @property
    def gap_closed(self) -> float:
        """Share of the gap between random play and always the best arm that was closed."""
        floor, ceiling = self.random.mean(), self.best.mean()
        return float((self.expected.mean() - floor) / (ceiling - floor))


@torch.no_grad()
def play(
    network: Network, bandits: BernoulliBandits, rng: np.random.Generator, greedy: bool = False
) -> Played:
    """New trials on `bandits`, from the blank memory to the last pull."""
    B, K, T = bandits.num_envs, bandits.k, bandits.n
    observation, _ = bandits.reset()
    shared, rows = network.blank(B, K)
    mask, features = torch.ones(B, K, dtype=torch.bool), torch.zeros(B, K, 0)
    horizon = torch.from_numpy(horizon_left(np.arange(T), T))[:, None].expand(T, B, 2)
    actions, rewards, ends = [], [], []
    expected, best, random = [], [], []
    for t in range(T):
        context = torch.from_numpy(observation)
        probabilities, _ = network.decide(shared, rows, context, mask, horizon[t], features)
        if greedy:
            action = probabilities.numpy().argmax(1)
        else:
            action = sample(probabilities.numpy(), rng.random(B))
        expected.append(bandits.means[np.arange(B), action])
        best.append(bandits.means.max(1))
        random.append(bandits.means.mean(1))
        observation, reward, terminated, _, _ = bandits.step(action)
        shared, rows = network.learn(
            shared,
            rows,
            context,
            torch.from_numpy(action),
            torch.from_numpy(encode_reward(reward, 0.0, 1.0)),
            torch.from_numpy(terminated.astype(np.float32)),
            features,
        )
        actions.append(action)
        rewards.append(reward)
        ends.append(terminated)
    reward = np.stack(rewards)
    record = Record(
        action=torch.from_numpy(np.stack(actions)),
        reward=torch.from_numpy(encode_reward(reward, 0.0, 1.0)),
        done=torch.from_numpy(np.stack(ends)).float(),
        horizon_left=horizon,
        context=torch.zeros(T, B, 0),
        action_features=features,
        action_mask=mask,
    )
    return Played(record, reward, np.stack(expected), np.stack(best), np.stack(random))
