"""A tiny simulated workflow for tests of who plays it: three letters, one number, two moods."""

from __future__ import annotations

import numpy as np

from contract.spec import parse_workflow
from training.tasks.workflows import Outcome, Situation

SPEC = parse_workflow("""
schema: 1
workflow: letters
policy: counting/1
horizon: {interactions: 40, floor: 0.1}
actions: [{id: a}, {id: b}, {id: c}]
context:
  age: {type: number, min: 0, max: 10}
  mood: {type: boolean}
reward: {min: -1, max: 3}
guardrails:
  limits: [{name: adults, forbid: 'action.id == "c" && context.age < 1'}]
  safe_action: a
fallback:
  rules: [{when: context.mood, action: c}]
  action: b
adaptation: {target: 0.5}
""")


class Letters:
    """Every account has its own weights; the best of three is worth about one more than the mean.

    A tenth of the decisions is forced, and feedback is late by up to `latest` decisions.
    """

    spec = SPEC
    vertical = "plain"

    def __init__(self, accounts: int, steps: int, seed: int, latest: int = 0) -> None:
        self.num_envs, self.steps = accounts, steps
        self._seed, self._latest = seed, latest

    def reset(self) -> None:
        rng = np.random.default_rng(self._seed)
        shape = (self.steps, self.num_envs)
        self._weights = 1.0 + np.array([0.0, 0.3, -0.2]) + rng.normal(0, 0.5, (self.num_envs, 3))
        self._slopes = rng.normal(0, 0.4, (self.num_envs, 3))
        self._age = rng.uniform(0, 10, shape)
        self._mood = rng.random(shape) < 0.5
        self._noise = rng.normal(0, 0.2, shape)
        force = rng.random(shape) < 0.1
        self._forced = np.where(force, np.where(rng.random(shape) < 0.5, 0, 1), -1)
        self._late = rng.integers(0, self._latest + 1, shape)
        self._t = 0

    def situation(self) -> Situation:
        t = self._t
        mask = np.ones((self.num_envs, 3), bool)
        mask[self._age[t] < 1, 2] = False
        means = self._weights + self._slopes * (self._age[t] / 5 - 1)[:, None]
        return Situation(
            columns={"age": self._age[t], "mood": self._mood[t]},
            mask=mask,
            forced=self._forced[t],
            means=means,
            oracle=np.where(mask, means, -np.inf).argmax(axis=1),
        )

    def step(self, actions: np.ndarray) -> Outcome:
        now = self.situation()
        served = np.where(now.forced >= 0, now.forced, actions)
        rows = np.arange(self.num_envs)
        if not now.mask[rows, served].all():
            raise ValueError("actions: expected actions that the mask allows")
        reward = np.clip(now.means[rows, served] + self._noise[self._t], -1, 3)
        known = self._t + 1 + self._late[self._t]
        self._t += 1
        return Outcome(served, reward, np.ones(self.num_envs, bool), known)
