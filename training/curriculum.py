"""What is trained on: which trials an iteration plays, and which fixed ones it is watched on.

Numpy only. A curriculum draws tasks and must never know a policy; a new family is a new curriculum
here, and the learner stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import numpy as np

from training.bounds import refuse_below, refuse_no_range, refuse_no_share
from training.check import Look, bandit_looks, mdp_looks
from training.horizons import log_uniform, stratified
from training.informed_mdps import InformedMDPs
from training.tasks.bandits import BernoulliBandits, refuse_impossible_family
from training.tasks.drift import Drift
from training.tasks.gaussian_bandits import GaussianBandits
from training.tasks.mdps import EPISODE_STEPS
from training.tasks.task import Task

_FIRST_MOST_PULLS = 20
"""What a growing horizon starts from."""
_LONGEST_WAIT = 20
"""Interactions that feedback waits at most."""


class Curriculum(Protocol):
    """A task family, cut into iterations. A frozen dataclass of its settings, with a name."""

    name: ClassVar[str]

    def batches(self, rng: np.random.Generator, iteration: int) -> Iterator[Sequence[Task]]:
        """The tasks of iteration 1, 2, …; those of one batch have the same number of steps.

        A batch is drawn when it is asked for, after the one before was played from the same `rng`.
        """
        ...

    def looks(self, action_range: tuple[int, int]) -> list[Look]:
        """The fixed trials that a policy of so many actions is watched on, the main ones first."""
        ...


@dataclass(frozen=True)
class BanditCurriculum:
    """Bandits of any number of arms and pulls, most of them Bernoulli with fixed means."""

    name: ClassVar[str] = "bandits"

    horizons: int = 2
    """Numbers of pulls drawn for an iteration."""
    groups: int = 3
    """Families for each, all of that many pulls, each with its own number of arms."""
    steps_per_group: int = 8_000
    """Interactions a family plays; trials = steps / pulls."""
    arms: tuple[int, int] = (2, 50)
    """Arms are drawn log-uniformly from this range."""
    held_out_arms: tuple[int, ...] = (3, 25)
    """Numbers of arms never trained on, so that an evaluation shows what was not seen."""
    pulls: tuple[int, int] = (2, 500)
    """Pulls a trial are drawn log-uniformly from this range. A single pull teaches nothing."""
    growing: int = 40
    """Iterations over which the most pulls grow to the range's end; 0: all from the start."""
    choice_share: float = 0.25
    """Share of trials that are choices: preferences over the arms that sum to one, with habits and
    changes, instead of fixed uniform means."""
    gaussian_share: float = 0.1
    """Share of families that pay real numbers."""
    drift_share: float = 0.15
    """Share of families whose means drift, one half of them in change-points, one half slowly."""
    delay_share: float = 0.15
    """Share of families fed back late, one half of them in batches."""

    def __post_init__(self) -> None:
        for name in ("arms", "pulls"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: expected a range from low to high, got {low} to {high}")
        for name, field in (("arms", "k"), ("pulls", "n")):
            for bound in getattr(self, name):
                try:
                    refuse_impossible_family(**{"k": 2, "n": 1, field: bound})
                except ValueError as error:
                    expected = str(error).removeprefix(f"{field}: ")
                    raise ValueError(f"{name}: {expected}") from error
        refuse_no_share(self, "choice_share", "gaussian_share", "drift_share", "delay_share")
        refuse_below(self, 1, "horizons", "groups", "steps_per_group")
        refuse_below(self, 0, "growing")
        if set(self.held_out_arms) >= set(range(self.arms[0], self.arms[1] + 1)):
            raise ValueError(
                f"held_out_arms: expected to leave some of {self.arms[0]} to {self.arms[1]} arms, "
                f"got {self.held_out_arms}"
            )

    def batches(self, rng: np.random.Generator, iteration: int) -> Iterator[Sequence[Task]]:
        """`horizons` batches of `groups` families, each of its own number of arms."""
        least, most = self.pulls
        if self.growing:
            grown = round(most * min(1.0, iteration / self.growing))
            most = max(least, min(most, _FIRST_MOST_PULLS), grown)
        for _ in range(self.horizons):
            n = log_uniform(rng, (least, most))
            trials = max(2, round(self.steps_per_group / n))
            yield [self._family(trials, n, rng) for _ in range(self.groups)]

    def _family(self, trials: int, n: int, rng: np.random.Generator) -> Task:
        """A family of n pulls; a share of 0 draws nothing."""
        k = log_uniform(rng, self.arms)
        while k in self.held_out_arms:
            k = log_uniform(rng, self.arms)
        gaussian = self.gaussian_share and rng.random() < self.gaussian_share
        drift: Drift = "none"
        if self.drift_share and rng.random() < self.drift_share:
            drift = "slow" if rng.random() < 0.5 else "change-points"
        delay, batch = 0, 1
        if self.delay_share and rng.random() < self.delay_share and n > 1:
            late = log_uniform(rng, (1, min(n - 1, _LONGEST_WAIT)))
            delay, batch = (late, 1) if rng.random() < 0.5 else (0, late + 1)
        if gaussian:
            return GaussianBandits(trials, k, n, rng, drift=drift, delay=delay, batch=batch)
        choices = self.choice_share
        return BernoulliBandits(trials, k, n, rng, choices, drift=drift, delay=delay, batch=batch)

    def plain(self) -> BanditCurriculum:
        """The part of it whose means stay as they are and whose feedback comes at once."""
        return replace(self, choice_share=0.0, gaussian_share=0.0, drift_share=0.0, delay_share=0.0)

    def looks(self, action_range: tuple[int, int]) -> list[Look]:
        """The cells of the paper's table that say most."""
        return bandit_looks(action_range)


@dataclass(frozen=True)
class MdpCurriculum:
    """Tabular MDPs of any number of episodes, which tell a critic what a choice costs."""

    name: ClassVar[str] = "mdps"

    horizons: int = 3
    """Numbers of episodes drawn for an iteration."""
    steps_per_horizon: int = 15_000
    """Interactions played on each; trials = steps / (10 · episodes)."""
    episodes: tuple[int, int] = (5, 100)
    """Episodes a trial are drawn log-uniformly from this range, once from each of its parts."""
    growing: int = 0
    """Iterations over which the most episodes grow to the range's end; 0: all from the start."""

    def __post_init__(self) -> None:
        refuse_no_range(self, 1, "episodes")
        refuse_below(self, 1, "horizons", "steps_per_horizon")
        refuse_below(self, 0, "growing")

    def batches(self, rng: np.random.Generator, iteration: int) -> Iterator[Sequence[Task]]:
        """`horizons` batches of one family each."""
        grown = min(1.0, iteration / self.growing) if self.growing else 1.0
        for part in range(self.horizons):
            n = stratified(rng, self.episodes, part, self.horizons, grown)
            trials = max(2, round(self.steps_per_horizon / (n * EPISODE_STEPS)))
            yield [InformedMDPs(trials, n, rng)]

    def looks(self, action_range: tuple[int, int]) -> list[Look]:
        """The ends and the middle of the paper's table."""
        return mdp_looks()
