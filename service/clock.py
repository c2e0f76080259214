"""Time as the service keeps it: integer microseconds since the epoch, UTC."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], int]
"""Now, in microseconds since the epoch. Injected, so that tests own the time."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def now_us() -> int:
    """The wall clock."""
    return time.time_ns() // 1_000


def to_us(moment: datetime) -> int:
    """An aware datetime in microseconds since the epoch."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def to_moment(at_us: int) -> datetime:
    """Microseconds since the epoch as a datetime in UTC, to the microsecond."""
    return _EPOCH + timedelta(microseconds=at_us)


def to_moment_or_none(at_us: int | None) -> datetime | None:
    """`to_moment` of what may not have happened."""
    return None if at_us is None else to_moment(at_us)
