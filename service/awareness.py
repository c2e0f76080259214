"""How soon what was fed back is used, as far as one process has seen. It only ever counts.

What comes of a decision changes the account's next one. Where it cannot (no memory to be had, or
one that is behind), this counts the decisions made without it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from service.ledger.records import AccountKey, Head

MOST_ACCOUNTS = 100_000
"""Accounts remembered, those of the newest decisions."""


class _Seen(NamedTuple):
    used: Head | None
    """The head that a decision was made from last; None: none that is remembered."""
    unaware: int
    """Decisions since then that something was waiting for, and that did not use it."""


class Awareness:
    """Remembers what each account's decisions were made from.

    Each replica counts its own: of several that serve one account, each finds a piece of feedback
    used for the first time, and so does one that has forgotten the account.
    """

    def __init__(self) -> None:
        self._seen: OrderedDict[AccountKey, _Seen] = OrderedDict()

    def decided(self, key: AccountKey, head: Head, aware: bool) -> int | None:
        """Takes note of a decision committed at the account's `head`, made from the memory there if
        `aware`. When it is the first to use what came last: how many were made in between."""
        before = self._seen.pop(key, _Seen(None, 0))
        waits = head.position > 0 and before.used != head
        if aware:
            self._seen[key] = _Seen(head, 0)
        else:
            self._seen[key] = before._replace(unaware=before.unaware + waits)
        if len(self._seen) > MOST_ACCOUNTS:
            self._seen.popitem(last=False)
        return before.unaware if aware and waits else None
