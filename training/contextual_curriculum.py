"""The very broad family that the universal policy is trained on, and what it is watched on.

Numpy only. Contextual accounts of every layout, choices with habits, bandits without a context and
small MDPs, at any length, with feedback at once, late or in batches. No workflow is among them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from training.bounds import refuse_below, refuse_no_range, refuse_no_share
from training.check import Look
from training.horizons import log_uniform, stratified
from training.tasks.bandits import BernoulliBandits
from training.tasks.contextual import ACTION_FEATURES, SLOTS, ContextualTrials, draw_layout
from training.tasks.drift import Drift
from training.tasks.funnel import FunnelTrials
from training.tasks.side_by_side import SideBySide
from training.tasks.situated import SituatedBandits
from training.tasks.task import Situated, Task

_LONGEST_WAIT = 20
_MOST_CHOICES = 12
"""Actions of a choice or a small MDP."""
_ACTIONS_IN_FULL = 8
"""More actions than these are played by fewer accounts: what an iteration costs stays the same."""
_FLOORS = (0.0, 0.05, 0.1)
_LOOK_SEED = 20_261_122


@dataclass(frozen=True)
class ContextualCurriculum:
    """Contextual decisions of any layout, and what has no context beside them."""

    name: ClassVar[str] = "contexts"

    horizons: int = 2
    """Numbers of decisions drawn for an iteration."""
    groups: int = 2
    """Numbers of actions for each."""
    families: int = 8
    """Families of accounts for each number of actions, side by side: a step that saw few of them
    would be a step towards those few."""
    steps_per_group: int = 8_000
    """Interactions that they play together, fewer where there are many actions."""
    actions: tuple[int, int] = (2, 50)
    """Actions are drawn log-uniformly from this range."""
    decisions: tuple[int, int] = (10, 200)
    """Decisions an account are drawn log-uniformly from this range."""
    choice_share: float = 0.12
    """Share of families in which at most one action pays each time, with habits that stick."""
    bandit_share: float = 0.1
    """Share of families without any context."""
    funnel_share: float = 0.12
    """Share of families that are small MDPs."""
    delay_share: float = 0.3
    """Share of families fed back late, one half of them in batches."""

    def __post_init__(self) -> None:
        refuse_no_range(self, 2, "actions", "decisions")
        refuse_no_share(self, "choice_share", "bandit_share", "funnel_share", "delay_share")
        if self.choice_share + self.bandit_share + self.funnel_share > 1.0:
            raise ValueError("choice_share: expected at most 1 with bandit_share and funnel_share")
        refuse_below(self, 1, "horizons", "groups", "families", "steps_per_group")

    def batches(self, rng: np.random.Generator, iteration: int) -> Iterator[Sequence[Task]]:
        """`horizons` batches of `groups`, each of its own number of actions."""
        for part in range(self.horizons):
            n = stratified(rng, self.decisions, part, self.horizons)
            counts = [log_uniform(rng, self.actions) for _ in range(self.groups)]
            share = min(1.0, _ACTIONS_IN_FULL * self.groups / sum(counts))
            trials = max(1, round(self.steps_per_group / n * share / self.families))
            yield [self._group(trials, k, n, rng) for k in counts]

    def _group(self, trials: int, k: int, n: int, rng: np.random.Generator) -> Situated:
        """`families` of k actions and n decisions, fed back and told alike."""
        delay, batch = 0, 1
        if rng.random() < self.delay_share:
            late = log_uniform(rng, (1, min(n - 1, _LONGEST_WAIT)))
            delay, batch = (late, 1) if rng.random() < 0.5 else (0, late + 1)
        horizon, floor = n, 0.0
        if rng.random() < 0.5:  # a service knows no account's end
            horizon = max(2, round(n * np.exp(rng.uniform(np.log(0.6), np.log(2.0)))))
            floor = float(rng.choice(_FLOORS))

        def family() -> Situated:
            kind = rng.random()
            if kind < self.choice_share and k <= _MOST_CHOICES:
                bandits = BernoulliBandits(trials, k, n, rng, 1.0, delay=delay, batch=batch)
                return SituatedBandits(bandits, horizon, floor)
            kind -= self.choice_share
            if kind < self.bandit_share:
                drift: Drift = rng.choice(["none", "change-points", "slow"])
                bandits = BernoulliBandits(trials, k, n, rng, drift=drift, delay=delay, batch=batch)
                return SituatedBandits(bandits, horizon, floor)
            told = {"delay": delay, "batch": batch, "horizon": horizon}
            if kind - self.bandit_share < self.funnel_share and k <= _MOST_CHOICES:
                return FunnelTrials(trials, k, n, rng, floor=floor, **told)
            return ContextualTrials(trials, n, draw_layout(rng, k), rng, floor=floor, **told)

        families = [family() for _ in range(self.families)]
        return SideBySide(families, SLOTS, ACTION_FEATURES)

    def looks(self, action_range: tuple[int, int]) -> list[Look]:
        """Fixed accounts with a context, fixed ones with none, and choices."""
        return [
            Look("contexts, k=5", _contexts, 0.0),
            Look("choices, k=4", _choices, 0.0),
            Look("no context, k=10", _bandits, 0.0),
        ]


def _contexts() -> tuple[Task, np.random.Generator]:
    rng = np.random.default_rng(_LOOK_SEED)
    layout = draw_layout(rng, 5)
    while not (layout.pays == "coin" and 6 <= layout.slots < SLOTS and layout.drift == "none"):
        layout = draw_layout(rng, 5)
    return ContextualTrials(300, 100, layout, rng), rng


def _choices() -> tuple[Task, np.random.Generator]:
    rng = np.random.default_rng(_LOOK_SEED)
    return SituatedBandits(BernoulliBandits(500, 4, 20, rng, 1.0), 20), rng


def _bandits() -> tuple[Task, np.random.Generator]:
    rng = np.random.default_rng(_LOOK_SEED)
    return SituatedBandits(BernoulliBandits(300, 10, 100, rng), 100), rng
