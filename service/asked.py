"""A decision as it was asked for: what a valid request holds, and what makes two of them the same.

Nothing is decided here, and nothing is read: a request is held to its workflow alone.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

from contract.encode import check_context
from service.catalog import Workflow
from service.correlation import ASKING, Asking
from service.ledger.records import AccountKey, Mode
from service.memory.store import StoredMemory


class ActionsError(ValueError):
    """The actions asked for are not the workflow's. The message says what was expected."""


class DecisionRequest(NamedTuple):
    """One decision as asked for."""

    tenant: str
    account_id: str
    context: Mapping[str, Any]
    decision_id: str | None = None
    episode_id: str | None = None
    actions: list[str] | None = None
    mode: Mode = "serve"


class Asked(NamedTuple):
    """A request that has been found valid."""

    workflow: Workflow
    request: DecisionRequest
    key: AccountKey
    decision_id: str
    context: Mapping[str, Any]
    clipped: tuple[str, ...]
    started: float
    """When it was asked, by the clock of `time.perf_counter`."""
    catch_ups: int = 0
    """How often it has been made from a memory that was behind."""
    memory: StoredMemory | None = None
    """The memory to decide from, when it is at hand; else the stored one."""
    unreadable: str | None = None
    """Why there is no memory to decide from: the fallback's reason."""
    asking: Asking | None = None
    """The request it came with."""


def check(workflow: Workflow, request: DecisionRequest, started: float) -> Asked:
    """The request as a valid one. Raises ContextError and ActionsError."""
    context, clipped = check_context(workflow.spec, request.context)
    if request.actions is not None:
        _refuse_unknown_actions(workflow, request.actions)
    return Asked(
        workflow,
        request,
        AccountKey(request.tenant, workflow.name, request.account_id),
        request.decision_id or secrets.token_hex(16),
        context,
        clipped,
        started,
        asking=ASKING.get(),
    )


def digest(workflow: Workflow, request: DecisionRequest) -> str:
    """What makes two requests of one decision id the same."""
    body = [
        workflow.name,
        request.account_id,
        request.episode_id,
        request.actions,
        sorted(request.context.items()),
        *(("defer",) if request.mode == "defer" else ()),
    ]
    return hashlib.sha256(json.dumps(body).encode()).hexdigest()


def _refuse_unknown_actions(workflow: Workflow, actions: list[str]) -> None:
    ids = workflow.spec.action_ids
    unknown = [action for action in actions if action not in ids]
    if unknown:
        raise ActionsError(f"expected some of {list(ids)}, got {unknown[0]!r}")
    if not actions or len(set(actions)) != len(actions):
        raise ActionsError(f"expected at least one of {list(ids)}, each once")
