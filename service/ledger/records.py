"""What the ledger keeps, as the rest of the service sees it: plain frozen records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from contract.adaptation import AccountAdaptation


class AccountKey(NamedTuple):
    """Whom we adapt to. Sorted, it is the order in which account locks are taken."""

    tenant: str
    workflow: str
    account_id: str


class Head(NamedTuple):
    """How far an account's past goes: a memory at its head may decide."""

    generation: int = 0
    position: int = 0


@dataclass(frozen=True)
class Decision:
    """One action chosen for one account in one context, with its probability."""

    key: AccountKey
    decision_id: str
    episode_id: str | None
    spec_version: int
    policy: str
    context: dict[str, Any]
    asked_for: list[str] | None
    action: str
    probability: float
    draw: float
    reason: str
    limits: list[str]
    head: Head | None
    """The memory it was made from; a fallback that saw none is given the head as it commits."""
    request_sha256: str
    created_at_us: int
    expires_at_us: int
    default_due_at_us: int | None
    folded: bool = False


@dataclass(frozen=True)
class Feedback:
    """What came of a decision."""

    key: AccountKey
    decision_id: str
    feedback_id: str
    kind: str
    reward: float
    outcome: str | None
    episode_end: bool
    occurred_at_us: int | None
    received_at_us: int
    request_sha256: str
    late: bool = False
    head: Head | None = None
    """The memory's generation and position after the fold; None when recorded only."""


@dataclass(frozen=True)
class Interaction:
    """One RL² time step, raw, as replay folds it."""

    position: int
    spec_version: int
    context: dict[str, Any]
    action: str
    reward: float
    episode_end: bool


@dataclass(frozen=True)
class Account:
    """An account as of its head."""

    key: AccountKey
    head: Head
    decisions: int
    adaptation: AccountAdaptation
    created_at_us: int
    updated_at_us: int


class LedgerUnavailableError(Exception):
    """The ledger did not commit: nothing was written, nothing may be acknowledged."""


class DecisionUnknownError(Exception):
    """No such decision of this tenant."""


class BodyConflictError(Exception):
    """The same id came with another body. `field` names the id."""

    def __init__(self, field: str, value: str) -> None:
        super().__init__(f"{field} {value} came with another body")
        self.field = field
