"""Two players on the same trials: what differs between them, and how surely. Numpy only.

Paired trials share tasks and luck, so the difference is known far better than either total.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Comparison:
    """A player on the policy's own trials; `difference` is policy − player."""

    reward: float
    difference: float
    difference_se: float


def compare(policy: Array, player: Array) -> Comparison:
    """From the total reward of each trial, `[B]` each, in the same order."""
    difference, se = mean_and_se(policy - player)
    return Comparison(float(player.mean()), difference, se)


def mean_and_se(values: Array) -> tuple[float, float]:
    """Mean and standard error of independent values, `[B]`, at least 2."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(values.size))
