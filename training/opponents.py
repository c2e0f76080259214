"""Which families a bundle is evaluated on, and who plays against it there. Numpy only.

It must never know the bundle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np

from training.baselines import (
    FLAT,
    UCB1_EXPLORATION,
    Algorithm,
    NormalBelief,
    epsilon_greedy,
    forgetting,
    gittins_rule,
    greedy,
    optimistic_thompson,
    posterior_sampling,
    ucb1,
    uniform,
)
from training.baselines.gittins import LONGEST_HORIZON
from training.tasks.bandit_trials import BanditTrials
from training.tasks.bandits import BernoulliBandits
from training.tasks.drift import DRIFTS, Drift
from training.tasks.gaussian_bandits import NOISE, GaussianBandits

Arms = Literal["bernoulli", "gaussian"]

GAUSSIAN_UCB1_EXPLORATION = 0.5
"""The c that serves `ucb1` best on Gaussian arms, of 0.2, 0.3, 0.4, 0.5, 0.6, 0.8 and 1, at
n = 100 with k = 10 and 50."""

TS_DISCOUNT, UCB1_DISCOUNT = 0.99, 0.98
"""Of 0.8, 0.9, 0.95, 0.98, 0.99 and 1, what serves them best where means change at points, at
n = 500, k = 5."""


@dataclass(frozen=True)
class Family:
    """A family of bandits, but for its n and k."""

    arms: Arms = "bernoulli"
    drift: Drift = "none"
    delay: int = 0
    batch: int = 1

    @classmethod
    def named(cls, arms: str, drift: str, delay: int = 0, batch: int = 1) -> Family:
        """Raises ValueError for arms or a drift that there is not."""
        for what, given, known in (("arms", arms, get_args(Arms)), ("drift", drift, DRIFTS)):
            if given not in known:
                raise ValueError(f"{what}: expected one of {', '.join(known)}, got {given!r}")
        return cls(cast("Arms", arms), cast("Drift", drift), delay, batch)

    def trials(self, trials: int, k: int, n: int, rng: np.random.Generator) -> BanditTrials:
        """So many trials of it."""
        kind = BernoulliBandits if self.arms == "bernoulli" else GaussianBandits
        return kind(trials, k, n, rng, drift=self.drift, delay=self.delay, batch=self.batch)

    @property
    def in_print(self) -> bool:
        """Whether this is the family of Duan et al. (2016)."""
        return self == Family()

    def __str__(self) -> str:
        parts = [f"{self.arms.capitalize()} arms"]
        if self.drift != "none":
            parts.append({"slow": "slow drift"}.get(self.drift, self.drift))
        if self.delay:
            parts.append(f"feedback {self.delay} late")
        if self.batch > 1:
            parts.append(f"feedback in batches of {self.batch}")
        return ", ".join(parts)


def opponents(family: Family, n: int, names: Sequence[str] | None = None) -> dict[str, Algorithm]:
    """The algorithms by name; without names, all that fit the family.

    Raises ValueError as `chosen` does.
    """
    return {name: _made(name, family, n) for name in chosen(family, n, names)}


def chosen(family: Family, n: int, names: Sequence[str] | None = None) -> tuple[str, ...]:
    """The names themselves, or without any those of all that fit.

    Raises ValueError for a name that there is not in this family, or that comes twice.
    """
    known = fitting(family, n)
    for name in names or ():
        if name not in known:
            raise ValueError(
                f"baseline: expected one of {', '.join(known)} for {family}, n = {n}, got {name}"
            )
    if names and len(set(names)) < len(names):
        raise ValueError(f"baseline: expected each once, got {', '.join(names)}")
    return tuple(names or known)


def fitting(family: Family, n: int) -> tuple[str, ...]:
    """Who can play in a family: the index is there for Bernoulli arms and up to 500 pulls."""
    index = ("gittins",) if family.arms == "bernoulli" and n <= LONGEST_HORIZON else ()
    forgetful = () if family.drift == "none" else ("discounted_ts", "discounted_ucb1")
    return (*index, "ts", "ots", "ucb1", "epsilon_greedy", "greedy", "random", *forgetful)


def _made(name: str, family: Family, n: int) -> Algorithm:
    bernoulli = family.arms == "bernoulli"
    belief = FLAT if bernoulli else NormalBelief(NOISE)
    c = UCB1_EXPLORATION if bernoulli else GAUSSIAN_UCB1_EXPLORATION
    match name:
        case "gittins":
            return gittins_rule(n)
        case "ts":
            return posterior_sampling(belief)
        case "ots":
            return optimistic_thompson(belief=belief)
        case "ucb1":
            return ucb1(c, belief)
        case "epsilon_greedy":
            return epsilon_greedy(belief=belief)
        case "greedy":
            return greedy(belief)
        case "discounted_ts":
            return forgetting(posterior_sampling(belief), TS_DISCOUNT)
        case "discounted_ucb1":
            return forgetting(ucb1(c, belief), UCB1_DISCOUNT)
        case _:
            return uniform
