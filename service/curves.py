"""The job that counts adaptation curves on: it walks what changed since it last ran."""

from __future__ import annotations

from functools import partial

from service.clock import Clock
from service.ledger.curves import Place, count, read_changed, write_page
from service.ledger.leases import Kept
from service.ledger.ledger import Ledger

PAGE = 200
"""Accounts that one transaction counts in."""
PAGES_A_RUN = 100
OVERLAP_US = 10_000_000
"""How far a run looks back behind where the last one got to: commits land in no clock's order."""


class Curves:
    """Counts on. What is counted twice is seen by its mark, and counted once."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock

    async def count(self, kept: Kept) -> int:
        """One run; how many accounts had something new."""
        place: Place = (int(kept.get("counted_to_us", 0)), "", "", "")
        counted = 0
        for _ in range(PAGES_A_RUN):
            changed = await self._ledger.read(read_changed(place, PAGE))
            if changed:
                page = await self._ledger.read(count(changed))
                if page.marks:
                    if not await self._ledger.alone(partial(write_page, page=page)):
                        return counted  # another is at it
                    counted += len(page.marks)
                place = changed[-1].place
                kept["counted_to_us"] = min(place[0], self._clock() - OVERLAP_US)
            if len(changed) < PAGE:
                break
        return counted
