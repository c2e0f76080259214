"""Named points between the writes of decide and of feedback, at which tests have the process die.

A process dies at one only where ACCLIMATE_FAULT_POINT names it, which nothing but a test does. What
is between two points is one write: a process killed anywhere leaves what one of these leaves.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from typing import Final, NoReturn

FAULT_POINTS: Final = (
    "decide.drawn",  # an action is drawn, nothing is written
    "decide.in_transaction",  # all rows are written and none is committed; so for the others
    "decide.committed",  # durable, and nobody was told
    "learn.in_transaction",
    "learn.committed",  # has its position; the memory is behind
    "learn.folded",  # the memory is computed and not stored
    "learn.stored",  # the memory is at the head, and nobody was told
    "revise.committed",  # a generation was opened; every memory is of an older one
    "rebuild.folded",  # a replay is done and not stored
    "rebuild.stored",
    "default.in_transaction",
    "default.committed",
    "snapshot.in_transaction",
    "snapshot.committed",
    "ledger.between_statements",  # accounts are written, decisions and feedback are not
)

JOB_FAULT_POINTS: Final = (
    "retention.in_transaction",  # an account's old events are deleted, and not for good
    "retention.committed",  # of one account; others are to come
    "alarms.in_transaction",  # a page of accounts is looked at, and nothing of it is committed
    "alarms.committed",  # alarms are raised, and nothing has followed yet
    "alarms.reset",  # a memory was reset; its alarm does not know
    "migrate.brought",  # one account is brought over; the walk has not noted it
    "rollouts.in_transaction",  # a page of evidence is counted, and nothing of it is committed
    "rollouts.gathered",  # a page is counted for good, and nothing is judged
    "rollouts.judged",  # what follows from the verdict is committed, and nobody was told
)
"""Points of the jobs alone, which those above do not cover."""


@dataclass
class _Armed:
    """Where this process is to die."""

    point: str
    passes: int
    """How often the point is reached before."""


_armed: _Armed | None = None


def parse(setting: str) -> tuple[str, int]:
    """The point, and at which of its visits to die, of `point` or `point:n`. Raises ValueError."""
    point, _, visit = setting.partition(":")
    if point not in (*FAULT_POINTS, *JOB_FAULT_POINTS) or (
        visit and not (visit.isdecimal() and int(visit) > 0)
    ):
        raise ValueError(f"expected one of {', '.join(FAULT_POINTS)}, and :n for its n-th visit")
    return point, int(visit or 1)


def arm(setting: str | None) -> None:
    """Has this process die at the point that `setting` names; None: at none."""
    global _armed
    if setting is None:
        _armed = None
        return
    point, visit = parse(setting)
    _armed = _Armed(point, visit - 1)


def reach(point: str) -> None:
    """The process is at `point`, in whatever thread."""
    if _armed is not None and _armed.point == point:
        if _armed.passes == 0:
            _die(point)
        _armed.passes -= 1


def _die(point: str) -> NoReturn:
    """As a power cut would: nothing is flushed, closed or told, but this line."""
    os.write(sys.stderr.fileno(), f"killed at fault point {point}\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")
