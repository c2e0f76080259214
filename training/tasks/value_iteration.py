"""Finite-horizon value iteration on B tabular MDPs at once. Numpy only: it must never draw."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def value_iteration(rewards: Array, transitions: Array, steps: int) -> NDArray[np.float64]:
    """Q `[steps, B, S, A]`, with all steps to go at index 0 and one at the last (Bellman 1957).

    rewards `[B, S, A]`, transitions `[B, S, A, S]`.
    """
    batch, states, actions = rewards.shape
    flat = transitions.reshape(batch, states * actions, states)
    q = np.empty((steps, *rewards.shape))
    q[-1] = rewards
    for step in range(steps - 2, -1, -1):
        value = q[step + 1].max(axis=-1)
        q[step] = rewards + (flat @ value[..., None]).reshape(rewards.shape)
    return q


def earned_per_step(rewards: Array, transitions: Array, policy: Array) -> NDArray[np.float64]:
    """What probabilities `policy` `[steps, B, S, A]` earn at each step from state 0, `[steps, B]`.

    rewards `[B, S, A]`, transitions `[B, S, A, S]`.
    """
    earned = np.empty(policy.shape[:2])
    reached = np.zeros(rewards.shape[:2])
    reached[:, 0] = 1.0
    for step, probabilities in enumerate(policy):
        taken = reached[..., None] * probabilities
        earned[step] = np.einsum("bsa,bsa->b", taken, rewards)
        reached = np.einsum("bsa,bsaz->bz", taken, transitions)
    return earned
