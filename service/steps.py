"""How long the steps of a piece of work took, by one clock: for metrics and traces."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple


class Step(NamedTuple):
    """One step, by the clock of `time.perf_counter`."""

    name: str
    began: float
    ended: float


class Steps:
    """Steps that follow one another: each begins where the one before ended."""

    __slots__ = ("_began", "_ended")

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._ended: list[tuple[str, float]] = []

    def done(self, name: str) -> None:
        """The step that is called so has ended."""
        self._ended.append((name, time.perf_counter()))

    def __iter__(self) -> Iterator[Step]:
        began = self._began
        for name, ended in self._ended:
            yield Step(name, began, ended)
            began = ended
