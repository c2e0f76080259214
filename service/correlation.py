"""Which request the code that runs now works for: for logs and traces, and for nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, Protocol

MOST_NAMED = 10
"""Requests that one line of the log names, of those that are worked for together."""


class Asking:
    """One request on its way. What is learned of it is noted here: ids and reasons, never a value
    of a context."""

    __slots__ = ("decision_id", "reason", "request_id", "span", "workflow")

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.decision_id: str | None = None
        self.workflow: str | None = None
        self.reason: str | None = None
        self.span: Any = None
        """An OpenTelemetry span, while this request is traced."""


class Item(Protocol):
    """One of those that are worked for together."""

    @property
    def decision_id(self) -> str:
        """The decision it is about."""

    @property
    def asking(self) -> Asking | None:
        """The request it came with."""


ASKING: ContextVar[Asking | None] = ContextVar("asking", default=None)
TOGETHER: ContextVar[Sequence[Item]] = ContextVar("together", default=())
"""Where one call serves many requests, in a task that belongs to none of them."""


def ids() -> dict[str, Any]:
    """What a line of the log has to say of whom it is about."""
    asking = ASKING.get()
    if asking is not None:
        named = {"request_id": asking.request_id, "decision_id": asking.decision_id}
        if asking.span is not None:
            named["trace_id"] = trace_id(asking)
        return {name: value for name, value in named.items() if value is not None}
    together = TOGETHER.get()[:MOST_NAMED]
    if not together:
        return {}
    requests = {one.asking.request_id: None for one in together if one.asking is not None}
    return {"request_ids": list(requests), "decision_ids": [one.decision_id for one in together]}


def trace_id(asking: Asking) -> str:
    """The id, hex, of the trace that a traced request is part of."""
    return f"{asking.span.get_span_context().trace_id:032x}"


def exemplar(asking: Asking | None) -> dict[str, str] | None:
    """What a histogram keeps of a request beside its time: where it was traced."""
    if asking is None or asking.span is None:
        return None
    return {"trace_id": trace_id(asking)}
