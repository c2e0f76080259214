"""What an account was served lately: the times of use that its caps and cool-downs have to know.

A tally is a materialisation of the ledger's decisions, and can be counted again from them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from guardrails.conservative import Spent

Needs = Mapping[str, tuple[int, int]]
"""By action: how many of its newest uses have to be known, and for how long (microseconds)."""


class Tally(NamedTuple):
    """Of one account, or of all of a tenant or a workflow together, which only say what was
    `explored`. Start from `Tally()`, step with `used`."""

    uses: Mapping[str, tuple[int, ...]] = MappingProxyType({})
    """By action: when it was served last, microseconds, oldest first."""
    kept: Needs = MappingProxyType({})
    """What `uses` is complete for."""
    explored: tuple[tuple[int, int], ...] = ()
    """How many decisions deviated from the fallback, by when (microseconds) the span of time ends
    that they are counted in."""
    spent: Spent = Spent()
    """What the conservative rule knows; from when the workflow declared it."""


def together(*needs: Needs) -> Needs:
    """What all of them have to know."""
    most: dict[str, tuple[int, int]] = {}
    for one in needs:
        for action, (count, window) in one.items():
            other = most.get(action, (0, 0))
            most[action] = max(count, other[0]), max(window, other[1])
    return most


def covers(tally: Tally, needs: Needs) -> bool:
    """Whether the tally knows all that `needs` asks for."""
    return all(
        tally.kept.get(action, (0, 0))[0] >= count and tally.kept[action][1] >= window
        for action, (count, window) in needs.items()
    )


def counted(tally: Tally, needs: Needs, served: Iterable[tuple[str, int]]) -> Tally:
    """The tally that knows what `needs` asks for, counted from all that was `served` (action, when)
    within the longest window of what it is to know from then on (`longest`)."""
    kept = together(tally.kept, needs)
    times: dict[str, list[int]] = {action: [] for action in kept}
    for action, at_us in served:
        if action in times:
            times[action].append(at_us)
    uses = {action: tuple(sorted(some)[-kept[action][0] :]) for action, some in times.items()}
    return tally._replace(uses={action: some for action, some in uses.items() if some}, kept=kept)


def longest(tally: Tally, needs: Needs) -> int:
    """How far back `counted` has to be told, microseconds."""
    return max((window for _, window in together(tally.kept, needs).values()), default=0)


def used(tally: Tally, action: str, at_us: int) -> Tally:
    """The tally once `action` was served. Of one that nothing has to be known of, nothing is."""
    count, _ = tally.kept.get(action, (0, 0))
    if not count:
        return tally
    times = sorted((*tally.uses.get(action, ()), at_us))[-count:]
    return tally._replace(uses={**tally.uses, action: tuple(times)})


def uses_within(tally: Tally, actions: Collection[str], window_us: int, now_us: int) -> int:
    """How often `actions` were served in the window that ends now. What a clock ahead of this one
    wrote counts."""
    return sum(
        now_us - at_us < window_us for action in actions for at_us in tally.uses.get(action, ())
    )
