"""Have rewards fallen? Page–Hinkley (Page 1954), as river has it, on what came lately.

Pure: the same rewards raise the same alarm, so that nothing of a detector has to be kept. Rises are
what adaptation is for, and raise none. Needs river, of the extra `worker`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Rule(NamedTuple):
    """A Page–Hinkley detector of falls."""

    least: int
    """Values before which nothing is said."""
    slack: float
    """δ: a fall that is put up with."""
    threshold: float
    """λ: how much below the mean so far, over the slack, values may come to in sum."""


ACCOUNT = Rule(least=20, slack=0.1, threshold=10.0)
"""For one account's rewards in [0, 1], one by one."""
STREAM = Rule(least=8, slack=0.02, threshold=1.0)
"""For means of `guardrails.streams.BATCH` rewards of many accounts."""
RECOVERED = 0.75
"""The share of a fall that must be made good for it to be over."""


class Shift(NamedTuple):
    """A fall of rewards."""

    at: int
    """Index of the value at which it was found, from 0."""
    began: int
    """Index of the first value below, as far as can be told."""
    before: float
    """Mean before it began."""
    after: float
    """Mean from there on."""


def find_shift(values: Sequence[float], rule: Rule) -> Shift | None:
    """The first fall among the values, oldest first. Raises ImportError without river."""
    from river.drift import PageHinkley

    if len(values) < rule.least:
        return None
    detector = PageHinkley(
        min_instances=rule.least,
        delta=rule.slack,
        threshold=rule.threshold,
        alpha=1.0,
        mode="down",
    )
    for at, value in enumerate(values):
        detector.update(value)  # type: ignore[no-untyped-call]
        if detector.drift_detected:
            return _described(values[: at + 1])
    return None


def is_over(before: float, after: float, recent: Sequence[float]) -> bool:
    """Whether the mean of what came since has made good most of a fall."""
    mean = sum(recent) / len(recent)
    return mean >= after + RECOVERED * (before - after)


def _described(values: Sequence[float]) -> Shift:
    """Where the fall that is found at the last value began: where two means explain most."""
    count, total = len(values), sum(values)
    began, best, below = count - 1, -1.0, 0.0
    for size in range(1, count):  # of the part after
        below += values[count - size]
        before, after = (total - below) / (count - size), below / size
        explained = size * (count - size) * (before - after) ** 2
        if after < before and explained > best:
            began, best = count - size, explained
    after_values, before_values = values[began:], values[:began]
    return Shift(
        count - 1,
        began,
        sum(before_values) / len(before_values),
        sum(after_values) / len(after_values),
    )
