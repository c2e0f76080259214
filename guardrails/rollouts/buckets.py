"""Who is in: an integer hash of the account under a salt that says what for.

Nothing is stored of it, so a restart changes nobody's place; and a bucket below a percentage is
below every larger one, so raising it moves nobody out.
"""

from __future__ import annotations

import hashlib

BUCKETS = 100_000
"""So that a percentage may have three decimals."""


def bucket(salt: str, tenant: str, account_id: str) -> int:
    """The account's place among `BUCKETS`, even and independent from salt to salt."""
    parts = (salt.encode(), tenant.encode(), account_id.encode())
    framed = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return int.from_bytes(hashlib.blake2b(framed, digest_size=8).digest(), "big") % BUCKETS


def is_below(place: int, percent: float) -> bool:
    """Whether a bucket is among the first `percent` of all."""
    return place < round(percent * BUCKETS / 100)
