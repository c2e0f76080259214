"""The draw behind a decision: one uniform number per decision id, and the action it picks.

The same number comes back under retry; without the installation key nobody who chooses ids can
steer it.
"""

from __future__ import annotations

import hashlib
import hmac

import numpy as np
from numpy.typing import ArrayLike, NDArray


def draw(key: bytes, tenant: str, workflow: str, account_id: str, decision_id: str) -> float:
    """u in [0, 1) for one decision: the top 53 bits of HMAC-SHA256 under the installation key."""
    parts = [part.encode() for part in (tenant, workflow, account_id, decision_id)]
    message = b"".join([len(part).to_bytes(4, "big") + part for part in parts])
    digest = hmac.digest(key, message, hashlib.sha256)
    return (int.from_bytes(digest[:8], "big") >> 11) / 2.0**53


def sample(probabilities: ArrayLike, u: ArrayLike) -> NDArray[np.int64]:
    """The action that u picks by inverse CDF, never one of probability 0.

    probabilities `[..., K]` need not sum to exactly 1; u `[...]` in [0, 1). Returns `[...]`.
    """
    weights = np.asarray(probabilities, np.float64)
    cumulative = np.cumsum(weights, axis=-1)
    threshold = np.asarray(u, np.float64)[..., None] * cumulative[..., -1:]
    picked = np.sum(cumulative <= threshold, axis=-1)
    last = weights.shape[-1] - 1 - np.argmax(weights[..., ::-1] > 0, axis=-1)
    picked_or_last: NDArray[np.int64] = np.minimum(picked, last).astype(np.int64)
    return picked_or_last
