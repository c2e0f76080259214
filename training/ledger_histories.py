"""Which past each decision of an account was made from: as it was then, whatever was revised since.

It knows of no file, and of one account at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass
class Read:
    """One row, checked."""

    account: int
    context: dict[str, Any]
    asked_for: list[str] | None
    action: int
    probability: float
    reason: str
    reward: float
    is_default: bool
    ends: bool
    """Its episode, as it stands."""
    head: tuple[int, int] | None
    """Generation and position of the memory it was made from."""
    pieces: list[tuple[int, int, float, bool]]
    """(generation, position, reward, done) of each interaction that came of it."""


class Made(NamedTuple):
    """The decisions of one account, with the histories that they were made from."""

    history: Array
    folded: Array
    position: Array
    pasts: list[list[tuple[int, float, bool]]]
    """Of each history: decision, reward and end of its interactions."""
    newest: int


def histories_of(rows: list[Read]) -> Made:
    """The histories of one account, from its rows; all of them have a head, or none has."""
    return _in_order(rows) if rows[0].head is None else _by_head(rows)


def _in_order(rows: list[Read]) -> Made:
    """Each reward was known before the next decision."""
    came = np.array([not math.isnan(row.reward) for row in rows])
    before = np.cumsum(came) - came
    past = [(i, row.reward, row.ends) for i, row in enumerate(rows) if came[i]]
    return Made(np.zeros(len(rows), np.int64), before, before, [past], 0)


def _by_head(rows: list[Read]) -> Made:
    """What the memory of each decision had folded, as of its generation."""
    heads = [row.head for row in rows if row.head is not None]
    pieces = sorted(
        (generation, place, i, reward, done)
        for i, row in enumerate(rows)
        for generation, place, reward, done in row.pieces
    )
    generations = sorted({generation for generation, _ in heads} | {one[0] for one in pieces[-1:]})
    pasts, places = [], []
    for generation in generations:
        past = _as_of(generation, pieces)
        places.append(np.array([place for place, *_ in past], np.int64))
        pasts.append([(i, reward, done) for _, i, reward, done in past])
    history = np.array([generations.index(generation) for generation, _ in heads])
    position = np.array([place for _, place in heads])
    heads_at = zip(history, position, strict=True)
    folded = [np.searchsorted(places[h], place, "right") for h, place in heads_at]
    return Made(history, np.array(folded), position, pasts, len(generations) - 1)


def _as_of(
    generation: int, pieces: Iterable[tuple[int, int, int, float, bool]]
) -> list[tuple[int, int, float, bool]]:
    """(place, decision, reward, done) of an account's past as of a generation, by place.

    At each place the newest stands. Where two decisions had the same place, the account was reset
    in between, and nothing older counts.
    """
    at: dict[int, tuple[int, int, float, bool]] = {}
    base = 0
    for opened, place, decision, reward, done in pieces:
        if opened > generation:
            break
        if place in at and at[place][1] != decision:
            base = max(base, at[place][0] + 1)
        at[place] = (opened, decision, reward, done)
    return sorted(
        (place, decision, reward, done)
        for place, (opened, decision, reward, done) in at.items()
        if opened >= base
    )
