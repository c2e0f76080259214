"""What an algorithm on tabular MDPs is, how one plans, and how one is played. Numpy only.

`optimal` knows the MDPs it plays and bounds every player from above: it is no opponent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from training.baselines_mdps.history import Actions, History
from training.tasks.mdps import EPISODE_STEPS, TabularMDPs
from training.tasks.value_iteration import value_iteration

Array = NDArray[Any]

_ROUNDING = 1e-9
"""Values closer than this are equal but for the order of their sums."""


class Algorithm(Protocol):
    """A way to play tabular MDPs. It may keep a plan within an episode, nothing beyond."""

    def __call__(self, history: History, rng: np.random.Generator) -> Actions:
        """The next action of each trial, `[B]`."""
        ...


def play(
    algorithm: Algorithm,
    mdps: TabularMDPs,
    rng: np.random.Generator,
    on_step: Callable[[int], None] = lambda steps: None,
) -> NDArray[np.float64]:
    """The rewards of new trials, `[n, B]` by episode. `on_step` hears of B steps at a time."""
    mdps.reset()
    history = History.blank(mdps.num_envs, mdps.n)
    earned = np.zeros((mdps.n, mdps.num_envs))
    for t in range(mdps.steps):
        actions = algorithm(history, rng)
        _, rewards, *_ = mdps.step(actions)
        history.observe(actions, rewards, mdps.state)
        earned[t // EPISODE_STEPS] += rewards
        on_step(mdps.num_envs)
    return earned


def each_episode(
    plan: Callable[[History, np.random.Generator], NDArray[np.float64]],
) -> Algorithm:
    """Plans at the start of an episode, Q `[10, B, S, A]`, and follows the plan to its end."""
    q: NDArray[np.float64] = np.empty(0)

    def choose(history: History, rng: np.random.Generator) -> Actions:
        nonlocal q
        if history.episode_step == 0:
            q = plan(history, rng)
        return largest(own(q[history.episode_step], history), rng)

    return choose


def optimal(mdps: TabularMDPs) -> Algorithm:
    """Value iteration on these very MDPs, known: the upper bound."""

    def plan(history: History, rng: np.random.Generator) -> NDArray[np.float64]:
        return value_iteration(mdps.means, mdps.transitions, EPISODE_STEPS)

    return each_episode(plan)


def optimal_value(mdps: TabularMDPs) -> NDArray[np.float64]:
    """What `optimal` is expected to earn in a whole trial, exactly, `[B]`."""
    q = value_iteration(mdps.means, mdps.transitions, EPISODE_STEPS)
    value: NDArray[np.float64] = mdps.n * q[0, :, 0].max(axis=-1)
    return value


def own(q: Array, history: History) -> NDArray[np.float64]:
    """Of Q `[B, S, A]`, the values in each trial's own state, `[B, A]`."""
    values: NDArray[np.float64] = q[np.arange(history.state.size), history.state]
    return values


def largest(values: Array, rng: np.random.Generator) -> Actions:
    """The index of each row's largest value, `[B, A]` → `[B]`, ties broken at random.

    Actions never tried are tied. Which of them is taken does not matter, but that it is not the
    same one at every return to a state within an episode does.
    """
    tied = values >= values.max(axis=-1, keepdims=True) - _ROUNDING
    actions: Actions = np.where(tied, rng.random(values.shape), -1.0).argmax(axis=-1)
    return actions
