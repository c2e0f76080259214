"""What the ledger keeps, as the rest of the service sees it: plain immutable records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

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


Mode = Literal["serve", "defer"]
"""`defer`: the decision waits for `activate` before anything may come of it."""


class Decision(NamedTuple):
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
    """When its window closes; of a deferred decision that is not activated it means nothing yet."""
    mode: Mode = "serve"
    activated_at_us: int | None = None
    actions_left: list[str] | None = None
    """What was left after every guardrail, where the account's past took something away."""
    deviates: bool | None = None
    """Whether the fallback would have chosen another action; None: nobody counts."""

    @property
    def active(self) -> bool:
        """Whether something can have come of it."""
        return self.mode == "serve" or self.activated_at_us is not None


class Feedback(NamedTuple):
    """What came of a decision."""

    key: AccountKey
    decision_id: str
    feedback_id: str
    kind: str
    """`received`, or the workflow's `default`."""
    reward: float
    outcome: str | None
    episode_end: bool
    occurred_at_us: int | None
    received_at_us: int
    request_sha256: str
    late: bool = False
    head: Head | None = None
    """The interaction that this made or revised: its position, in this generation; None when it
    is recorded only."""
    folded_reward: float | None = None
    """The reward of that interaction: this one's, or what the workflow's aggregation makes of all
    that came."""
    folded_end: bool | None = None
    """Whether that interaction ends its episode."""


class Interaction(NamedTuple):
    """One RL² time step, raw, as replay folds it."""

    position: int
    spec_version: int
    context: dict[str, Any]
    action: str
    reward: float
    episode_end: bool


class Account(NamedTuple):
    """An account as of its head."""

    key: AccountKey
    head: Head
    adaptation: AccountAdaptation
    created_at_us: int
    updated_at_us: int
    """When its head last moved."""
    base_generation: int = 0
    """The generation of its last reset: what is older is not folded any more."""
    kept_above: int = 0
    """Interactions up to this position are deleted; a snapshot holds what they came to."""


class Generation(NamedTuple):
    """One change of an account's past."""

    key: AccountKey
    generation: int
    reason: Literal["revision", "reset"]
    position: int
    """The interaction that was revised; 0: all."""
    head_position: int
    """How far the past went when it was changed."""
    decision_id: str | None
    opened_at_us: int


class Snapshot(NamedTuple):
    """One policy's memory of one account at `head`, as bytes that its store can read."""

    key: AccountKey
    policy: str
    digest: str
    """Hex; what must be equal for the bytes to be this policy's own."""
    head: Head
    memory: bytes
    created_at_us: int


@dataclass(frozen=True)
class Past:
    """A page of an account's past above a memory or a snapshot."""

    head: Head
    """How far the whole past goes."""
    start: Head
    """Where this page begins: the memory that was given, a snapshot, or nothing."""
    end: Head
    """Where this page ends."""
    snapshot: bytes | None
    """The memory at `start`, where a snapshot is the nearest to the head."""
    interactions: list[Interaction]
    complete: bool = True
    """Whether nothing below is missing; retention may have deleted what no snapshot holds."""


class LedgerUnavailableError(Exception):
    """The ledger did not commit: nothing was written, nothing may be acknowledged."""


class DecisionUnknownError(Exception):
    """No such decision of this tenant."""


class AccountUnknownError(Exception):
    """No such account of this tenant and workflow."""


class ErasedError(Exception):
    """What the id names was erased with its account. `field` names the id."""

    def __init__(self, field: str) -> None:
        super().__init__(field)
        self.field = field


class NotActiveError(Exception):
    """The decision is deferred: nothing can have come of it yet."""


class LimitReachedError(Exception):
    """What was decided before may not be served any more. `limits` names what is against it."""

    def __init__(self, limits: Sequence[str]) -> None:
        super().__init__(", ".join(limits))
        self.limits = tuple(limits)


class BodyConflictError(Exception):
    """The same id came with another body. `field` names the id."""

    def __init__(self, field: str, value: str) -> None:
        super().__init__(f"{field} {value} came with another body")
        self.field = field
