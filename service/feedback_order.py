"""Whether what came of decisions is folded in the order they were made in, as far as one process
has seen. It only ever counts."""

from __future__ import annotations

from collections import OrderedDict

from service.ledger.records import AccountKey

MOST_ACCOUNTS = 100_000
"""Accounts remembered, those of the newest feedback."""


class FeedbackOrder:
    """Remembers the newest decision of each account that something came of. Each replica counts
    what it took itself."""

    def __init__(self) -> None:
        self._newest: OrderedDict[AccountKey, int] = OrderedDict()

    def folded(self, key: AccountKey, decided_at_us: int) -> bool:
        """Takes note of an interaction; whether that of a later decision was folded before it."""
        newest = self._newest.pop(key, decided_at_us)
        self._newest[key] = max(newest, decided_at_us)
        if len(self._newest) > MOST_ACCOUNTS:
            self._newest.popitem(last=False)
        return decided_at_us < newest
