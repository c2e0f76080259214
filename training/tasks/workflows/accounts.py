"""What a simulated workflow offers: B accounts of one vertical, T decisions each. Numpy only.

A simulator draws every account's latent parameters and all luck when it is reset, so that players
who are given the same generator's seed meet the same accounts, contexts and coins whatever they
choose. It must never look at a policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from contract.encode import Float32
from contract.spec import BooleanFeature, CategoryFeature, ImageFeature, NumberFeature, WorkflowSpec

Array = NDArray[Any]


@dataclass(frozen=True)
class Situation:
    """B accounts before one decision each."""

    columns: Mapping[str, Array]
    """The raw context by feature: numbers float64 `[B]`, booleans bool `[B]`, categories int64
    `[B]`, the place of the value among those that the spec declares."""
    mask: NDArray[np.bool_]
    """`[B, K]`: what the spec's limits leave of what was asked for; never empty."""
    forced: NDArray[np.int64]
    """`[B]`: the action that a guardrail or an operator serves whatever is chosen, −1 for none."""
    means: NDArray[np.float64]
    """Expected reward of each action now, `[B, K]`, in the reward's own units: the simulator's
    knowledge, masked actions included."""
    oracle: NDArray[np.int64]
    """`[B]`: what one who knows the latent parameters would choose; best for all that is left where
    a choice moves the state, else the best mean among what is allowed."""


@dataclass(frozen=True)
class Outcome:
    """What came of one decision of each of B accounts."""

    served: NDArray[np.int64]
    """`[B]`: the action that was served, the forced one where there was one."""
    reward: NDArray[np.float64]
    """`[B]`, in the reward's own units."""
    done: NDArray[np.bool_]
    """`[B]`: whether the episode ended."""
    known_at: NDArray[np.int64]
    """`[B]`: the number of the first decision, from 0, that may be made knowing the reward; the
    next one's number where feedback comes at once."""


class Accounts(Protocol):
    """B accounts of T decisions on K actions, all of one vertical."""

    spec: WorkflowSpec
    vertical: str
    num_envs: int
    """B."""
    steps: int
    """T."""

    def reset(self) -> None:
        """New accounts, before their first decision."""
        ...

    def situation(self) -> Situation:
        """What the next decision is made in. Asking again gives the same."""
        ...

    def step(self, actions: Array) -> Outcome:
        """Serves these actions `[B]`, or what is forced, and moves on to the next decision.

        Raises ValueError for an action that the mask forbids where none is forced.
        """
        ...


def encode_columns(
    spec: WorkflowSpec, columns: Mapping[str, Array], batch: int, size: int
) -> Float32:
    """Raw columns as `contract.encode.encode_contexts` encodes them, `[B, size]`, all at once."""
    encoded = np.zeros((batch, size), np.float32)
    slot = 0
    for name, feature in sorted(spec.context.items()):
        if feature.feeds != "policy":
            continue
        column = columns[name]
        match feature:
            case NumberFeature(min=low, max=high):
                inside = np.clip(column, low, high)
                encoded[:, slot] = 2.0 * ((inside - low) / (high - low)) - 1.0
                slot += 1
            case CategoryFeature(values=values):
                encoded[np.arange(batch), slot + column] = 1.0
                slot += len(values)
            case BooleanFeature():
                encoded[:, slot] = np.where(column, 1.0, -1.0)
                slot += 1
            case ImageFeature():
                raise ValueError(f"context.{name}: no simulated account has pictures")
    return encoded


def raw_context(spec: WorkflowSpec, columns: Mapping[str, Array], account: int) -> dict[str, Any]:
    """One account's context as a caller of the service would send it."""
    context: dict[str, Any] = {}
    for name, feature in spec.context.items():
        value = columns[name][account]
        match feature:
            case NumberFeature():
                context[name] = float(value)
            case CategoryFeature(values=values):
                context[name] = values[int(value)]
            case BooleanFeature():
                context[name] = bool(value)
            case ImageFeature():
                raise ValueError(f"context.{name}: no simulated account has pictures")
    return context
