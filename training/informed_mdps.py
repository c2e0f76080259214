"""Tabular MDPs that tell a critic how far a trial has come. For training alone; numpy only.

The task itself is `TabularMDPs`, draw for draw. It must never show a policy what it tells a critic.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.encode import Float32
from training.baselines_mdps.history import History
from training.tasks.mdps import EPISODE_STEPS, TabularMDPs
from training.tasks.value_iteration import value_iteration

Array = NDArray[Any]

TOLD = 7
"""Numbers told at every step."""

_REPLAN_EVERY = 5
"""Steps between looks at what the posterior-mean plan is truly worth, which are the dear part."""
_UNITS = np.array([1.0, 3.0, 3.0, 3.0, 10.0, 0.5, 1.0])
"""What brings the numbers told to a size near 1."""


class InformedMDPs(TabularMDPs):
    """`TabularMDPs` that know what a choice costs."""

    def __init__(self, trials: int, n: int, rng: np.random.Generator) -> None:
        super().__init__(trials, n, rng)
        self._history = History.blank(trials, n)
        self._optimal: Array = np.empty(0)
        self._true: Array = np.empty(0)
        self._believed: Array = np.empty(0)

    def reset(self) -> tuple[Float32, dict[str, Any]]:
        """New tasks for every trial."""
        shown = super().reset()
        self._history = History.blank(self.num_envs, self.n)
        self._optimal = value_iteration(self.means, self.transitions, EPISODE_STEPS)
        return shown

    def step(self, actions: Array) -> tuple[Float32, Array, Array, Array, dict[str, Any]]:
        """One step a trial, actions `[B]`, which is remembered for what is told."""
        seen = super().step(actions)
        self._history.observe(np.asarray(actions, np.int64), seen[1], self.state)
        return seen

    def lost(self, actions: Array) -> NDArray[np.float64]:
        """The optimal policy's advantage over these actions `[B]` where the trials are, `[B]`."""
        quality = self._optimal[self._history.episode_step][self._here]
        cost: NDArray[np.float64] = quality.max(axis=-1) - quality[np.arange(actions.size), actions]
        return cost

    def told(self) -> Float32:
        """What the critic is told, `[B, TOLD]`: where in the episode; what following the
        posterior-mean plan loses, from an episode's start and from here; by how much that plan
        overrates itself; the optimum; how much is unknown, and how much never tried.
        """
        history = self._history
        if history.position % _REPLAN_EVERY == 0:
            self._look_ahead()
        step = history.episode_step
        best = self._optimal.max(axis=-1)
        rows = np.arange(self.num_envs)
        visits = history.visits
        numbers = np.stack(
            [
                np.full(self.num_envs, step / EPISODE_STEPS),
                best[0, :, 0] - self._true[0, :, 0],
                best[step, rows, self.state] - self._true[step, rows, self.state],
                self._believed - best[0, :, 0],
                best[0, :, 0] - EPISODE_STEPS,
                (1.0 / np.sqrt(1.0 + visits)).mean(axis=(1, 2)),
                (visits == 0).mean(axis=(1, 2)),
            ],
            axis=-1,
        )
        told: Float32 = (numbers / _UNITS).astype(np.float32)
        return told

    @property
    def _here(self) -> tuple[Array, Array]:
        return np.arange(self.num_envs), self.state

    def _look_ahead(self) -> None:
        """What the posterior-mean plan believes of itself, and what it is truly worth."""
        history = self._history
        planned = value_iteration(history.mean_rewards(), history.transitions, EPISODE_STEPS)
        self._believed = planned[0, :, 0].max(axis=-1)
        chosen = planned.argmax(axis=-1)
        means = np.take_along_axis(self.means[None], chosen[..., None], -1)[..., 0]
        rows, states = np.ogrid[: self.num_envs, : self.means.shape[1]]
        self._true = means
        for step in range(EPISODE_STEPS - 2, -1, -1):
            leads = self.transitions[rows, states, chosen[step]]
            self._true[step] += (leads @ self._true[step + 1][..., None])[..., 0]
