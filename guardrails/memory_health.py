"""Is a memory like those that its policy was trained with? Norm, saturation, distance; by age.

Pure, and blind to what the numbers mean: they are compared with what they were in training.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from contract.memory_reference import MemoryReference
from contract.policy import Memory

SATURATED = 0.98
"""A number that stays within [−1, 1] is saturated from here on."""
TIMES_USUAL = 2.0
"""Norm and distance are unhealthy beyond so many times what one account in a thousand exceeds."""
MORE_SATURATED = 0.25
"""Saturation is unhealthy so far above what one account in a thousand exceeds."""
OLDEST = 1.25
"""Memories older than the oldest reference by more than this factor are judged as finite or not
alone: no training saw their age."""
_SMALLEST_STD = 0.1
"""Of the root mean square of an age's deviations: numbers that hardly ever move in training."""


class Health(NamedTuple):
    """How far a memory is from training."""

    norm: float
    """Root mean square of its numbers."""
    saturation: float
    """Share of the numbers within [−1, 1] that are at its ends."""
    distance: float
    """Root mean square of the numbers' standard scores."""


class Sickness(NamedTuple):
    """Why a memory is unhealthy."""

    measure: str
    """not_finite, norm, saturation or distance."""
    found: float | None
    limit: float | None


def measure(reference: MemoryReference, memory: Memory, position: int) -> Health:
    """The health of one memory, batch 1, of an account of this position."""
    return Health(*(float(one[0]) for one in measure_each(reference, memory, position)))


def measure_each(
    reference: MemoryReference, memory: Memory, position: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Norm, saturation and distance of each of B memories, `[B]`."""
    batch, actions = memory.rows.shape[:2]
    numbers = _joined(memory.shared, memory.rows.reshape(batch, actions * memory.rows.shape[2]))
    mean = _at(reference, "mean", position, actions)
    std = _at(reference, "std", position, actions)
    bounded = _joined(reference.shared_bounded, np.tile(reference.row_bounded, actions)) > 0
    if not numbers.shape[1]:
        nothing = np.zeros(batch)
        return nothing, nothing, nothing
    floor = max(_SMALLEST_STD * float(np.sqrt(np.mean(std**2))), 1e-6)
    scores = (numbers - mean) / np.maximum(std, floor)
    saturated = np.abs(numbers[:, bounded]) >= SATURATED
    return (
        np.sqrt(np.mean(numbers**2, axis=1)),
        saturated.mean(axis=1) if bounded.any() else np.zeros(batch),
        np.sqrt(np.mean(scores**2, axis=1)),
    )


def sickness(reference: MemoryReference | None, memory: Memory, position: int) -> Sickness | None:
    """What is wrong with one memory, batch 1; None where nothing is. Without a reference, or at an
    age that no training saw, only what is not finite is wrong."""
    if not all(np.isfinite(part).all() for part in memory):
        return Sickness("not_finite", None, None)
    highest = limits(reference, position)
    if reference is None or highest is None:
        return None
    found = measure(reference, memory, position)
    for name, value, limit in zip(Health._fields, found, highest, strict=True):
        if value > limit:
            return Sickness(name, value, limit)
    return None


def limits(reference: MemoryReference | None, position: int) -> Health | None:
    """Beyond what a memory of this position is unhealthy; None where nobody can say: without a
    reference, or at an age that no training saw."""
    if reference is None or not 0 < position <= OLDEST * reference.positions[-1]:
        return None
    usual = _between(reference.positions, reference.usual, position)
    return Health(
        TIMES_USUAL * float(usual[0]),
        float(usual[1]) + MORE_SATURATED,
        TIMES_USUAL * float(usual[2]),
    )


def _at(reference: MemoryReference, what: str, position: int, actions: int) -> NDArray[np.float64]:
    """The mean or deviation of all numbers at an age, `[G + K * H]`."""
    shared: NDArray[np.float32] = getattr(reference, f"shared_{what}")
    row: NDArray[np.float32] = getattr(reference, f"row_{what}")
    return _joined(
        _between(reference.positions, shared, position),
        np.tile(_between(reference.positions, row, position), actions),
    )


def _between(
    positions: NDArray[np.int64], values: NDArray[np.float32], position: int
) -> NDArray[np.float64]:
    """`values` `[P, N]` at a position between those that are known, straight in its logarithm."""
    after = int(np.searchsorted(positions, position))
    if after == 0 or after == len(positions):
        at_end: NDArray[np.float64] = values[min(after, len(positions) - 1)].astype(np.float64)
        return at_end
    low, high = np.log(positions[after - 1 : after + 1])
    share = (np.log(position) - low) / (high - low)
    between: NDArray[np.float64] = (1 - share) * values[after - 1] + share * values[after]
    return between


def _joined(*parts: NDArray[np.generic]) -> NDArray[np.float64]:
    return np.concatenate(parts, axis=-1).astype(np.float64)
