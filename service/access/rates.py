"""How often each key may ask: a token bucket a key, in this process.

A replica counts what it was asked itself: a key that a balancer spreads over N replicas may ask N
times as often. Nothing is shared, so nothing of it costs a round trip or can be down.
"""

from __future__ import annotations

from collections.abc import Callable

BURST_SECONDS = 1.0
"""A key that was silent may ask at once what it may ask in so long."""
ROUNDING_SECONDS = 1e-6
"""A wait that is only the sum of many roundings is none."""


class Rates:
    """The generic cell rate algorithm (ITU-T I.371): of each key, when its bucket is full again."""

    def __init__(self, per_second: float | None, monotonic: Callable[[], float]) -> None:
        """None: as often as anyone likes."""
        self.per_second = per_second
        self._monotonic = monotonic
        self._full_at: dict[str, float] = {}

    def take(self, name: str) -> float:
        """One request of this key: seconds to wait before it may be sent; 0.0: it may, and
        counts."""
        if self.per_second is None:
            return 0.0
        now, each = self._monotonic(), 1 / self.per_second
        full_at = max(self._full_at.get(name, now), now)
        wait = full_at + each - max(BURST_SECONDS, each) - now
        if wait > ROUNDING_SECONDS:
            return wait
        self._full_at[name] = full_at + each
        return 0.0

    def charge(self, name: str, more: int) -> None:
        """A request that was let in turned out to be so many more: what comes next waits."""
        if self.per_second is not None and more > 0:
            self._full_at[name] = (
                self._full_at.get(name, self._monotonic()) + more / self.per_second
            )
