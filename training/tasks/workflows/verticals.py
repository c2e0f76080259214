"""Verticals, and how an account's latent parameters are drawn in one. Numpy only.

A family has a few hidden segments, each with its own response to actions and context. A vertical
says how common each segment is, how far its latent parameters lie from the family's, and whom one
meets there. Nothing here may depend on what is played.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Latents = dict[str, Array]
"""Latent parameters by name, each `[B, ...]`."""


@dataclass(frozen=True)
class Practice:
    """How accounts of a vertical are served, apart from who they are. Shares are in [0, 1]."""

    forced: float = 0.03
    """Share of decisions that a guardrail or an operator makes: half by the fallback's rules."""
    subset: float = 0.05
    """Share of decisions that ask for some of the actions only."""
    changing: float = 0.15
    """Share of accounts that become another one, once, at a random decision."""
    drifting: float = 0.10
    """Share of accounts that slowly turn half into another one."""
    late: float = 0.25
    """Share of accounts whose every feedback comes 0 to `longest_delay` decisions late."""
    batched: float = 0.15
    """Share of accounts whose feedback comes together after every `batch` decisions."""
    longest_delay: int = 6
    batch: int = 5


@dataclass(frozen=True)
class Vertical:
    """One sub-family: who is met, and how far they differ from the family's segments."""

    about: str
    segments: tuple[float, ...]
    """Share of each hidden segment, in the family's order."""
    shift: Mapping[str, float | tuple[float, ...]] = field(default_factory=dict)
    """What is added to a latent parameter of every segment, a number or one an entry."""
    spread: float = 1.0
    """What the family's deviation of accounts within a segment is multiplied by."""
    mix: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Shares of the values of each category."""
    facts: Mapping[str, float] = field(default_factory=dict)
    """Other numbers of the vertical, by the name that its family gives them."""
    practice: Practice = Practice()


@dataclass(frozen=True)
class Segments:
    """The hidden segments of a family."""

    names: tuple[str, ...]
    centres: Mapping[str, Array]
    """Mean of each latent parameter in each segment, `[S, ...]`."""
    deviations: Mapping[str, float]
    """Standard deviation of each latent parameter between accounts of one segment."""
    meanings: Mapping[str, str]
    """What each latent parameter is."""

    def draw(self, vertical: Vertical, rng: np.random.Generator, count: int) -> Latents:
        """The latent parameters of so many accounts, and their `segment` `[B]`."""
        segment = pick(rng.random(count), vertical.segments)
        latents: Latents = {"segment": segment}
        for name, centres in self.centres.items():
            centre = centres[segment] + np.asarray(vertical.shift.get(name, 0.0))
            noise = rng.standard_normal(centre.shape)
            latents[name] = centre + vertical.spread * self.deviations[name] * noise
        return latents


def pick(uniforms: Array, shares: tuple[float, ...] | Array) -> NDArray[np.int64]:
    """The value that each uniform number falls on, by shares that sum to 1."""
    edges = np.cumsum(np.asarray(shares, np.float64))[:-1]
    return np.searchsorted(edges, uniforms, side="right").astype(np.int64)


def logistic(x: Array) -> Array:
    """1 / (1 + e^−x), any shape."""
    squashed: Array = 0.5 + 0.5 * np.tanh(0.5 * x)
    return squashed


def largest(x: Array) -> Array:
    """The largest along the last axis, which is short: several times as fast as `max` there."""
    return reduce(np.maximum, (x[..., i] for i in range(x.shape[-1])))
