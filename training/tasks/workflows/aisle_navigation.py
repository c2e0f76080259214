"""Aisle navigation: a crossing of three rows, each with a gap, in one of a site's layouts.

An account is a site. It has three layouts, some more usual than others; which one holds is drawn
for each crossing and never shown. The robot's place is the state; the oracle knows the layout and
takes the way of the highest reward a decision (as in `chains`). Numpy only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from training.tasks.workflows.simulation import Served, SimulatedAccounts
from training.tasks.workflows.verticals import Latents, Practice, Segments, Vertical, largest, pick

Array = NDArray[Any]

WORKFLOW = "aisle-navigation"

LEFT, RIGHT, AHEAD, CREEP = range(4)

ROWS = LANES = LAYOUTS = 3

OPEN, SHUT = 0.92, 0.08
"""Usual probabilities that `ahead` finds a way through a gap and through shelves."""
PASSED, CREPT, MOVED = 1.0, 0.4, 0.1
COUNTS = np.array([MOVED, MOVED, PASSED, CREPT])
"""Reward of each action where it succeeds."""

BISECTIONS = 30

SEGMENTS = Segments(
    names=("left_handed", "middle_aisle", "right_handed", "zigzag"),
    centres={},
    deviations={},
    meanings={},
)
# How much each kind of site likes its gap in each lane, by row; a draw of Gumbel noise decides.
LIKES = np.array(
    [
        [[3.0, 0.0, 0.0], [3.0, 0.0, 0.0], [3.0, 0.0, 0.0]],
        [[0.0, 3.0, 0.0], [0.0, 3.0, 0.0], [0.0, 3.0, 0.0]],
        [[0.0, 0.0, 3.0], [0.0, 0.0, 3.0], [0.0, 0.0, 3.0]],
        [[3.0, 0.0, 0.0], [0.0, 0.0, 3.0], [3.0, 0.0, 0.0]],
    ]
)

APART = np.abs(np.arange(LANES)[:, None] - np.arange(LANES))
"""Moves between lanes, `[from, to]`."""

PRACTICE = Practice(late=0.0, batched=0.2, batch=4)

TRAINING: Mapping[str, Vertical] = {
    "spare-parts": Vertical(
        about="spare parts: fixed shelves, gaps that seldom move",
        segments=(0.3, 0.2, 0.3, 0.2),
        facts={"usual": 0.75, "loaded": 0.5, "people": 0.05},
        practice=PRACTICE,
    ),
    "fashion": Vertical(
        about="fashion: shelves on wheels, another layout every other crossing",
        segments=(0.25, 0.15, 0.25, 0.35),
        facts={"usual": 0.55, "loaded": 0.3, "people": 0.1},
        practice=PRACTICE,
    ),
}

HELD_OUT: Mapping[str, Vertical] = {
    "cold-store": Vertical(
        about="cold stores: zigzag aisles, hardly anybody about",
        segments=(0.2, 0.15, 0.2, 0.45),
        facts={"usual": 0.65, "loaded": 0.7, "people": 0.02},
        practice=PRACTICE,
    ),
}


class AisleNavigation(SimulatedAccounts):
    """B sites, one robot each."""

    coins: ClassVar[int] = 5

    def draw_latents(self, rng: np.random.Generator) -> Latents:
        """`through` `[B, layout, row, lane]`: how likely `ahead` is to pass; `usual` `[B, layout]`:
        shares of the layouts."""
        batch = self.num_envs
        segment = pick(rng.random(batch), self.population.segments)
        noise = rng.gumbel(size=(batch, LAYOUTS, ROWS, LANES))
        gap = (LIKES[segment][:, None] + noise).argmax(axis=-1)
        is_gap = gap[..., None] == np.arange(LANES)
        through = np.where(is_gap, OPEN, SHUT) + rng.uniform(-0.06, 0.06, is_gap.shape)
        usual = self.population.facts["usual"]
        others = rng.uniform(0.3, 0.7, batch) * (1.0 - usual)
        shares = np.stack([np.full(batch, usual), others, 1.0 - usual - others], axis=1)
        return {"segment": segment, "through": through, "usual": shares}

    def open(self, rng: np.random.Generator) -> None:
        """A crossing begins."""
        batch = self.num_envs
        self._at_row = np.zeros(batch, np.int64)
        self._bumped = np.zeros(batch, np.bool_)
        self._number = np.zeros(batch, np.int64)
        self._layout, self._lane, self._loaded = self._crossing(rng.random((batch, 3)))

    def _crossing(self, coins: Array) -> tuple[Array, Array, Array]:
        """Layout, lane and load of new crossings from uniform numbers `[B, 3]`."""
        edges = self.latents["usual"].cumsum(axis=1)[:, :-1]
        layout = (coins[:, :1] >= edges).sum(axis=1)
        lane = np.floor(coins[:, 1] * LANES).astype(np.int64)
        return layout, lane, coins[:, 2] < self.population.facts["loaded"]

    def context(self, coins: Array) -> dict[str, Array]:
        """Where the robot is."""
        return {
            "row": self._at_row,
            "lane": self._lane,
            "bumped": self._bumped,
            "loaded": self._loaded,
            "people_near": coins[:, 0] < self.population.facts["people"],
        }

    def lawful(self, columns: Mapping[str, Array]) -> NDArray[np.bool_]:
        """Walls, and people."""
        lawful = np.ones((self.num_envs, self.actions), np.bool_)
        lawful[:, LEFT] = columns["lane"] != 0
        lawful[:, RIGHT] = columns["lane"] != LANES - 1
        lawful[:, AHEAD] = ~columns["people_near"]
        return lawful

    def rules(self, columns: Mapping[str, Array]) -> Sequence[tuple[Array, str]]:
        """Slowly after a bump."""
        return ((columns["bumped"], "creep"),)

    def means(self, columns: Mapping[str, Array]) -> NDArray[np.float64]:
        """What each move counts, in expectation."""
        ahead = self.latents["through"][self.rows, self._layout, self._at_row, self._lane]
        self._through = np.ones((self.num_envs, self.actions))
        """Probability that each move succeeds, `[B, K]`."""
        self._through[:, AHEAD] = ahead
        self._through[:, CREEP] = _creeping(ahead)
        means: NDArray[np.float64] = COUNTS * self._through
        return means

    def worth(self, means: Array) -> Array:
        """The move, and what the crossing is then worth, a move costing what it earns elsewhere."""
        values = _values(self.latents["through"][self.rows, self._layout], self.plans["rate"])
        below = np.append(values, np.zeros((self.num_envs, 1, LANES)), axis=1)
        here, on = below[self.rows, self._at_row], below[self.rows, self._at_row + 1]
        stays, on_ahead = here[self.rows, self._lane], on[self.rows, self._lane]
        worth = np.empty_like(means)
        for action, lane in ((LEFT, self._lane - 1), (RIGHT, self._lane + 1)):
            worth[:, action] = here[self.rows, np.clip(lane, 0, LANES - 1)]
        for action in (AHEAD, CREEP):
            p = self._through[:, action]
            worth[:, action] = p * on_ahead + (1.0 - p) * stays
        return means + worth

    def plan(self, latents: Latents, rows: Array) -> Latents:
        """The best reward a decision, layouts as usual as they are and nobody about, by bisection:
        at it, a crossing is worth nothing beyond what its moves cost."""
        low, high = np.zeros(len(rows)), np.ones(len(rows))
        for _ in range(BISECTIONS):
            rate = 0.5 * (low + high)
            first = _values(latents["through"], rate[:, None])[:, :, 0].mean(axis=-1)
            pays = (first * latents["usual"]).sum(axis=1) > 0.0
            low, high = np.where(pays, rate, low), np.where(pays, high, rate)
        return {"rate": 0.5 * (low + high)}

    def serve(self, actions: Array, coins: Array) -> Served:
        """Past the row, into the next lane, or against an obstacle."""
        passed = coins[:, 1] < self._through[self.rows, actions]
        sideways = np.where(actions == LEFT, -1, np.where(actions == RIGHT, 1, 0))
        self._bumped = ~passed
        self._lane = np.clip(self._lane + sideways, 0, LANES - 1)
        row = self._at_row + (passed & (sideways == 0))
        done = row == ROWS
        layout, lane, loaded = self._crossing(coins[:, 2:5])
        self._layout = np.where(done, layout, self._layout)
        self._lane = np.where(done, lane, self._lane)
        self._loaded = np.where(done, loaded, self._loaded)
        self._bumped &= ~done
        self._at_row = np.where(done, 0, row)
        self._number = self._number + done
        return Served(COUNTS[actions] * passed, done, np.zeros(self.num_envs, np.int64))

    @property
    def episode(self) -> NDArray[np.int64]:
        """Which crossing the next decision belongs to, `[B]`."""
        return self._number


def _creeping(ahead: Array) -> Array:
    """How likely `creep` is to pass where `ahead` passes with this probability."""
    return 0.3 + 0.7 * ahead


def _values(through: Array, rate: Array) -> Array:
    """What a crossing is worth at each place, `[..., row, lane]`, from `through` of that shape, a
    move costing `rate` `[...]`. Moves sideways always succeed, so that each row is solved by where
    it is best passed."""
    values = np.empty(through.shape)
    later = np.zeros((*through.shape[:-2], LANES))
    cost = rate[..., None]
    for row in range(ROWS - 1, -1, -1):
        ahead = through[..., row, :]
        pass_here = np.maximum(
            *(
                (counts * p - cost + p * later) / p
                for counts, p in ((PASSED, ahead), (CREPT, _creeping(ahead)))
            )
        )
        over = (pass_here + (MOVED - cost) * APART[lane] for lane in range(LANES))
        values[..., row, :] = later = np.stack([largest(one) for one in over], axis=-1)
    return values
