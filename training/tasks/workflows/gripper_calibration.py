"""Gripper calibration: a hidden offset that warmth moves, and a tolerance. Numpy only.

An account is a robot cell. A grasp holds with exp(−error² / 2 tolerance²), the error being the
shift chosen against the one that is needed. Choices move nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from training.tasks.workflows.season import Season
from training.tasks.workflows.simulation import Served, SimulatedAccounts
from training.tasks.workflows.verticals import Latents, Practice, Segments, Vertical, pick

Array = NDArray[Any]

WORKFLOW = "gripper-calibration"

SHIFTS = np.arange(-3.0, 4.0)
"""Millimetres, by action."""

HOLDS = np.array([0.98, 0.85, 0.92])
"""Share of grasps without error that hold, on a dry, an oily and a soft surface."""

WIDEST, WARMEST = 80.0, 30.0

SEGMENTS = Segments(
    names=("true", "bent_left", "bent_right", "warms_up"),
    centres={
        "offset": np.array([0.0, -2.0, 2.0, 1.2]),
        "warming": np.array([0.4, 0.5, -0.5, -3.2]),
        "tolerance": np.array([1.0, 0.9, 0.9, 1.0]),
        "width": np.array([0.3, 0.3, 0.3, 0.3]),
    },
    deviations={"offset": 0.5, "warming": 0.4, "tolerance": 0.1, "width": 0.1},
    meanings={
        "offset": "millimetres to shift when cold",
        "warming": "millimetres more at the warmest",
        "tolerance": "tolerance in millimetres",
        "width": "millimetres that the widest part adds to it",
    },
)

PRACTICE = Practice(late=0.1, batched=0.2, batch=8, drifting=0.2)

TRAINING: Mapping[str, Vertical] = {
    "parcels": Vertical(
        about="parcels: wide, dry, every jaw worn its own way",
        segments=(0.20, 0.30, 0.30, 0.20),
        mix={"surface": (0.8, 0.0, 0.2)},
        facts={"width": 50.0},
        practice=PRACTICE,
    ),
    "groceries": Vertical(
        about="groceries: soft and cold, few parts alike",
        segments=(0.30, 0.20, 0.30, 0.20),
        shift={"tolerance": -0.1},
        mix={"surface": (0.3, 0.1, 0.6)},
        facts={"width": 35.0},
        practice=PRACTICE,
    ),
}

HELD_OUT: Mapping[str, Vertical] = {
    "machine-parts": Vertical(
        about="machine parts: small, oily, in cells that warm up",
        segments=(0.15, 0.25, 0.20, 0.40),
        shift={"tolerance": -0.1},
        mix={"surface": (0.3, 0.7, 0.0)},
        facts={"width": 20.0},
        practice=PRACTICE,
    ),
}


class GripperCalibration(SimulatedAccounts):
    """B robot cells."""

    coins: ClassVar[int] = 4

    def draw_latents(self, rng: np.random.Generator) -> Latents:
        """See SEGMENTS."""
        return SEGMENTS.draw(self.population, rng, self.num_envs)

    def open(self, rng: np.random.Generator) -> None:
        """Somewhere in a shift."""
        self._season = Season(rng.random(self.num_envs), period=50)

    def context(self, coins: Array) -> dict[str, Array]:
        """One part; cells warm up and cool down with the shifts."""
        sine, _ = self._season.at(self.t)
        wide = self.population.facts["width"] * (0.4 + 1.2 * coins[:, 0])
        return {
            "width": np.clip(wide, 5.0, WIDEST),
            "warmth": 0.5 * WARMEST * (1.0 + sine),
            "surface": pick(coins[:, 1], self.population.mix["surface"]),
            "fragile": coins[:, 2] < 0.1,
        }

    def lawful(self, columns: Mapping[str, Array]) -> NDArray[np.bool_]:
        """Fragile parts near the middle."""
        return np.asarray(~columns["fragile"][:, None] | (np.abs(SHIFTS) <= 2.0))

    def rules(self, columns: Mapping[str, Array]) -> Sequence[tuple[Array, str]]:
        """None."""
        return ()

    def means(self, columns: Mapping[str, Array]) -> NDArray[np.float64]:
        """The probability that a grasp holds."""
        latents = self.latents
        needed = latents["offset"] + latents["warming"] * columns["warmth"] / WARMEST
        tolerance = latents["tolerance"] + latents["width"] * columns["width"] / WIDEST
        error = (SHIFTS - needed[:, None]) / np.maximum(tolerance, 0.4)[:, None]
        self._holds = HOLDS[columns["surface"]][:, None] * np.exp(-0.5 * error**2)
        holds: NDArray[np.float64] = self._holds
        return holds

    def serve(self, actions: Array, coins: Array) -> Served:
        """Holds, or slips."""
        held = coins[:, 3] < self._holds[self.rows, actions]
        at_once = np.zeros(self.num_envs, np.int64)
        return Served(held.astype(np.float64), np.ones(self.num_envs, np.bool_), at_once)
