"""Which mazes lessons are held in: of two sizes, and rather those that take long to search.

It must never draw a layout of the tests, nor one of 5×5 rooms: those are met for the first time.
"""

from __future__ import annotations

from functools import cache
from itertools import islice

import numpy as np

from training.tasks.mazes.explorer import Known, advise
from training.tasks.mazes.layouts import Layout, layouts
from training.tasks.mazes.worlds import ModelWorld

_SEARCHED = {3: 4_800, 4: 1_600}
"""Layouts, by rooms a side, of which the hard ones are taken."""
_LONGEST = 300
"""Steps after which a search is long enough."""


def draw_mazes(
    rng: np.random.Generator, count: int, *, larger: float, hard: float, seed: int
) -> list[Layout]:
    """Training layouts: the share `larger` of 4×4 rooms, the others of 3×3; the share `hard` of
    each from the hard ones of `seed`."""
    bigger = int(rng.binomial(count, larger))
    found: list[Layout] = []
    for rooms, some in ((3, count - bigger), (4, bigger)):
        long = int(rng.binomial(some, hard))
        pool = hard_layouts(rooms, seed) if long else []
        found += [pool[one] for one in rng.integers(0, max(1, len(pool)), long)]
        found += islice(layouts(rooms, "train", int(rng.integers(1 << 31))), some - long)
    return found


@cache
def hard_layouts(rooms: int, seed: int) -> list[Layout]:
    """Of some training layouts the quarter in which the explorer searches longest."""
    drawn = list(islice(layouts(rooms, "train", seed), _SEARCHED[rooms]))
    world = ModelWorld(drawn, len(drawn))
    world.load(everyone := np.arange(len(drawn)), list(range(len(drawn))))
    known = Known.nothing(len(drawn), world.ground.walls.shape[1] - 4)
    taken = np.zeros(len(drawn), int)
    searching = np.ones(len(drawn), bool)
    while searching.any() and taken.max() < _LONGEST:
        known.see(world.ground.look(world.at), world.ground.target)
        advice, _ = advise(known, world.at)
        taken += searching
        searching &= ~world.act(advice, everyone)
    return [drawn[one] for one in np.argsort(-taken, kind="stable")[: len(drawn) // 4]]
