"""A circuit breaker: what has failed several times in a row is left alone for a while, and then one
alone tries it. Pure: the time comes with each call, in microseconds by a clock that only goes on.
"""

from __future__ import annotations

from typing import NamedTuple


class Fuse(NamedTuple):
    """When a breaker opens, and for how long."""

    failures: int
    """In a row, after which it opens."""
    rest_us: int
    """How long it is left alone before it is tried again."""


class Breaker(NamedTuple):
    """One of them. Start from `Breaker()`, closed."""

    failures: int = 0
    """In a row."""
    until_us: int | None = None
    """Until when it is left alone; None: it is closed."""


def ask(breaker: Breaker, fuse: Fuse, now_us: int) -> tuple[bool, Breaker]:
    """Whether it may be used now, and the breaker after that. Of one that has rested, whoever asks
    first tries it, and the others wait for what comes of it, or for another rest."""
    if breaker.until_us is None:
        return True, breaker
    if now_us < breaker.until_us:
        return False, breaker
    return True, breaker._replace(until_us=now_us + fuse.rest_us)


def failed(breaker: Breaker, fuse: Fuse, now_us: int) -> Breaker:
    """The breaker after a use that failed."""
    failures = breaker.failures + 1
    if failures < fuse.failures:
        return breaker._replace(failures=failures)
    return Breaker(failures, now_us + fuse.rest_us)
