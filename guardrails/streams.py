"""What the interactions of many accounts come to, in batches: small enough to be kept as JSON.

Accounts differ with age, and a crowd of new ones must not look like a fall: rewards are those of
settled accounts, and exploration is that of young ones.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from guardrails.reward_shift import STREAM, Shift, find_shift

BATCH = 50
"""Interactions in a batch."""
MOST_BATCHES = 400
"""Batches that are kept; of more, the older half goes."""
SETTLED = 20
"""An account is young up to this position, and settled above."""
FIRST = 8
"""Batches of young decisions that say how a policy explores in a workflow."""
LAST = 4
"""Batches of young decisions that say how it explores now."""
COLLAPSED = 0.25
"""Exploration has collapsed below this share of what it was."""
CERTAIN = 0.005
"""A mean surprise per young decision, as a share of the most there can be, that is no exploration
at all."""


class Seen(NamedTuple):
    """One interaction as a stream takes it."""

    position: int
    reward: float
    """In [0, 1]."""
    surprise: float
    """−log of the logged probability over the log of the number of actions: its mean is the
    entropy of what decisions were drawn from, 1 where that was uniform."""
    by_policy: bool
    limited: bool
    """Whether a limit removed an action."""


class Stream(NamedTuple):
    """Batch means, oldest first, and what the batch under way has so far."""

    rewards: list[float]
    """Of settled accounts."""
    surprises: list[float]
    """Of young accounts' decisions by the policy."""
    fell_back: list[float]
    """Share of all decisions that the fallback made, beside `rewards`."""
    limited: list[float]
    """Share of young decisions from which a limit removed an action, beside `surprises`."""
    pending: dict[str, list[float]]
    """Sums and count under way, by what they are of."""
    first: float | None = None
    """The mean of the first surprises."""


class Collapse(NamedTuple):
    """Exploration that is gone."""

    before: float
    after: float
    limited: float
    """Share of the young decisions that limits touched lately."""


def blank() -> Stream:
    """A stream of nothing."""
    return Stream([], [], [], [], {})


def surprise_of(probability: float, actions: int) -> float:
    """The surprise of one decision."""
    return -math.log(max(probability, 1e-12)) / math.log(actions)


def take(stream: Stream, seen: Seen) -> Stream:
    """The stream with one interaction more."""
    if seen.position > SETTLED:
        done = _add(stream.pending, "settled", seen.reward, float(not seen.by_policy))
        if done:
            stream.rewards.append(done[0])
            stream.fell_back.append(done[1])
    elif seen.by_policy:
        done = _add(stream.pending, "young", seen.surprise, float(seen.limited))
        if done:
            stream.surprises.append(done[0])
            stream.limited.append(done[1])
            if stream.first is None and len(stream.surprises) >= FIRST:
                stream = stream._replace(first=sum(stream.surprises[:FIRST]) / FIRST)
    for kept in (stream.rewards, stream.surprises, stream.fell_back, stream.limited):
        if len(kept) > MOST_BATCHES:
            del kept[: MOST_BATCHES // 2]
    return stream


def shift_of(stream: Stream) -> Shift | None:
    """A fall of the settled accounts' rewards."""
    return find_shift(stream.rewards, STREAM)


def collapse_of(stream: Stream) -> Collapse | None:
    """Young accounts that are no longer explored."""
    if stream.first is None or len(stream.surprises) < FIRST + LAST:
        return None
    now = sum(stream.surprises[-LAST:]) / LAST
    if now > max(COLLAPSED * stream.first, CERTAIN):
        return None
    return Collapse(stream.first, now, sum(stream.limited[-LAST:]) / LAST)


def without_rewards(stream: Stream) -> Stream:
    """The stream with what came before a fall put away."""
    return stream._replace(rewards=[], fell_back=[])


def without_surprises(stream: Stream) -> Stream:
    """The stream with what it explored lately put away, but not what it explored at first."""
    return stream._replace(surprises=[], limited=[])


def to_json(stream: Stream) -> dict[str, Any]:
    """As it is kept."""
    return stream._asdict()


def from_json(body: dict[str, Any]) -> Stream:
    """As it was kept."""
    return Stream(**body)


def _add(pending: dict[str, list[float]], what: str, *values: float) -> list[float] | None:
    """The means of a batch, where it is full with these."""
    sums = pending.setdefault(what, [0.0] * (len(values) + 1))
    for i, value in enumerate((*values, 1.0)):
        sums[i] += value
    if sums[-1] < BATCH:
        return None
    del pending[what]
    return [round(one / sums[-1], 6) for one in sums[:-1]]
