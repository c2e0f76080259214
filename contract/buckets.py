"""The buckets of a context: which of the few groups that a workflow declares a decision is in."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from contract.spec import WorkflowSpec


def buckets_of(spec: WorkflowSpec, context: Mapping[str, Any]) -> list[str]:
    """One bucket for each declared feature that the context has: `plan=basic`,
    `tenure_months=3..12` for a number from 3 up to 12, the second not included."""
    found = []
    for name, cuts in spec.buckets.items():
        value = context.get(name)
        if value is not None:
            found.append(f"{name}={_label(value, cuts)}")
    return found


def _label(value: Any, cuts: str | Sequence[float]) -> str:
    if isinstance(cuts, str):
        return str(value).lower() if isinstance(value, bool) else str(value)
    place = bisect_right(cuts, value)
    low = f"{cuts[place - 1]:g}" if place else ""
    high = f"{cuts[place]:g}" if place < len(cuts) else ""
    return f"{low}..{high}"
