"""The best way along a chain of stages, again and again: exact, by backward induction. Numpy only.

A journey starts at stage 0. Each decision moves it one stage on, leaves it where it is, or ends it;
past the last stage it ends as well, and another one takes its place. What counts in the long run is
the reward a decision, so a decision costs what the best policy earns at one (renewal-reward theory:
Ross 1970); a journey is then worth V(s) = max over a of (r − rate + on · V(s + 1)) / (on + off).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.tasks.workflows.verticals import largest

Array = NDArray[Any]

ROUNDS = 20
"""Improvements after which the rate is taken as it is; three to six are enough."""


def chain_worth(rewards: Array, on: Array, off: Array, rate: Array) -> NDArray[np.float64]:
    """What each action is worth at each stage, `[..., S, K]`, the best ones following.

    Expected `rewards`, probabilities of moving `on` and of dropping `off`, `[..., S, K]`, an
    impossible action having −inf for its reward; `rate` `[...]` is what a decision costs.
    """
    worth: NDArray[np.float64] = np.empty(np.broadcast_shapes(rewards.shape, on.shape))
    later: Array = np.zeros(worth[..., 0, 0].shape)
    for stage in range(worth.shape[-2] - 1, -1, -1):
        now, moves, drops = rewards[..., stage, :], on[..., stage, :], off[..., stage, :]
        gained = now - rate[..., None] + moves * later[..., None]
        here = largest(gained / (moves + drops))
        worth[..., stage, :] = gained + (1.0 - moves - drops) * here[..., None]
        later = here
    return worth


def best_rate(rewards: Array, on: Array, off: Array, shares: Array) -> NDArray[np.float64]:
    """The highest reward a decision in the long run, `[B]`.

    Shapes `[B, M, S, K]` for M kinds of journey that start with these `shares` `[B, M]` or `[M]`.
    """
    rate = np.zeros(rewards.shape[0])
    for _ in range(ROUNDS):
        chosen = chain_worth(rewards, on, off, np.repeat(rate[:, None], rewards.shape[1], axis=1))
        earned, taken = _of_a_journey(rewards, on, off, chosen.argmax(axis=-1))
        better = (earned * shares).sum(axis=1) / (taken * shares).sum(axis=1)
        settled = bool((better - rate < 1e-9).all())
        rate = better
        if settled:
            break
    return rate


def _of_a_journey(rewards: Array, on: Array, off: Array, actions: Array) -> tuple[Array, Array]:
    """Expected reward and decisions of a journey that takes these actions `[B, M, S]`."""
    r, moves, drops = (
        np.take_along_axis(table, actions[..., None], axis=-1)[..., 0]
        for table in (rewards, on, off)
    )
    earned = taken = np.zeros(r.shape[:-1])
    for stage in range(r.shape[-1] - 1, -1, -1):
        leaves = moves[..., stage] + drops[..., stage]
        earned = (r[..., stage] + moves[..., stage] * earned) / leaves
        taken = (1.0 + moves[..., stage] * taken) / leaves
    return earned, taken
