"""UCRL2 (Jaksch, Ortner & Auer 2010) for episodes of known length. Numpy only."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.baselines_mdps.algorithm import Algorithm, each_episode
from training.baselines_mdps.history import History
from training.tasks.mdps import ACTIONS, EPISODE_STEPS, STATES

Array = NDArray[Any]

REWARD_SCALE, TRANSITION_SCALE = 0.2, 0.05
"""How much of either confidence bound serves best over all n, of the pairs that
`python -m training.compare_mdps tune` plays."""

_DELTA = 0.05


def ucrl2(
    reward_scale: float = REWARD_SCALE, transition_scale: float = TRANSITION_SCALE
) -> Algorithm:
    """Plans every episode in the most favourable MDP that the confidence bounds allow.

    The bounds take the form of Jaksch et al. with δ = 0.05, scaled: mean rewards within
    √(4 log(2 S A t / δ) / N) of those seen, transitions within √(4 S log(2 S A t / δ) / N) in L1
    norm, t the running episode. What was never seen pays 0 and leads anywhere, equally often. As
    episodes are short it replans at every one, and not only once a count has doubled.
    """

    def plan(history: History, rng: np.random.Generator) -> NDArray[np.float64]:
        rewards, transitions = history.empirical()
        t = history.position // EPISODE_STEPS + 1
        confidence = 4.0 * np.log(2.0 * STATES * ACTIONS * t / _DELTA)
        bound = reward_scale * np.sqrt(confidence / np.maximum(history.visits, 1.0))
        moved = np.maximum(history.moves.sum(axis=-1), 1.0)
        radius = transition_scale * np.sqrt(STATES * confidence / moved)
        return optimistic_value_iteration(rewards + bound, transitions, radius, EPISODE_STEPS)

    return each_episode(plan)


def optimistic_value_iteration(
    rewards: Array, transitions: Array, radius: Array, steps: int
) -> NDArray[np.float64]:
    """Q `[steps, B, S, A]` under the best transitions within `radius` `[B, S, A]` in L1 norm.

    rewards `[B, S, A]`, transitions `[B, S, A, S]`. The best transitions move up to radius / 2 of
    the probability from the worst states to the best one. Climbing the states in order of value,
    that is worth min(probability of all states below, radius / 2) at each gap between neighbours.
    """
    batch, states, actions = rewards.shape
    flat = transitions.reshape(batch, states * actions, states)
    most = (radius / 2.0).reshape(batch, states * actions, 1)
    q = np.empty((steps, *rewards.shape))
    q[-1] = rewards
    for step in range(steps - 2, -1, -1):
        value = q[step + 1].max(axis=-1)
        rising = np.sort(value, axis=-1)
        below = (value[:, :, None] <= rising[:, None, :-1]).astype(np.float64)
        moved = np.minimum(flat @ below, most)
        expected = flat @ value[..., None] + moved @ np.diff(rising)[..., None]
        q[step] = rewards + expected.reshape(rewards.shape)
    return q
