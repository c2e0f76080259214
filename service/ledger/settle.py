"""What a write means: pure functions of the rows it touches. No SQL, no clock.

A `View` holds the rows that a group of writes needs, as they are in the database under the
accounts' locks. Each write is settled on it in turn, and either changes it or raises before it
changed anything; what changed is then stored at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from contract.adaptation import observe
from contract.spec import WorkflowSpec
from service.ledger.records import (
    Account,
    AccountKey,
    BodyConflictError,
    Decision,
    DecisionUnknownError,
    Feedback,
    Head,
)

DecisionKey = tuple[str, str]
"""(tenant, decision_id)."""
FeedbackKey = tuple[str, str]
"""(kind, feedback_id), within a decision."""


@dataclass
class View:
    """The rows of one group of writes, and what the group changes."""

    accounts: dict[AccountKey, Account] = field(default_factory=dict)
    decisions: dict[DecisionKey, Decision] = field(default_factory=dict)
    feedback: dict[DecisionKey, dict[FeedbackKey, Feedback]] = field(default_factory=dict)
    """By decision, so that settling one looks at its own alone."""
    fresh: set[AccountKey] = field(default_factory=set)
    """Accounts that are not in the database yet; they get there only when they have moved."""
    moved: set[AccountKey] = field(default_factory=set)
    made: set[DecisionKey] = field(default_factory=set)
    folded: set[DecisionKey] = field(default_factory=set)
    given: list[Feedback] = field(default_factory=list)


@dataclass(frozen=True)
class Behind:
    """The memory a decision was made from is not at the account's head; nothing was written."""

    head: Head


@dataclass(frozen=True)
class Committed:
    """A decision is in the ledger; `new` when this write put it there."""

    decision: Decision
    new: bool


@dataclass(frozen=True)
class Recorded:
    """A piece of feedback is in the ledger."""

    feedback: Feedback
    decision: Decision
    duplicate: bool
    head: Head
    """The account's head now; a memory below it has something to fold."""
    newly_adapted_at: int | None = None
    """The interaction at which the account first adapted, when this write did it."""
    default: Feedback | None = None
    """The default that was due before this feedback came, and was folded with it."""


@dataclass(frozen=True)
class DecisionWrite:
    """Records a decision. `must_be_current`: only if it was made from the account's head."""

    decision: Decision
    must_be_current: bool

    @property
    def decision_key(self) -> DecisionKey:
        """The decision it touches."""
        return self.decision.key.tenant, self.decision.decision_id

    @property
    def account_key(self) -> AccountKey | None:
        """The account it touches, where that is known beforehand."""
        return self.decision.key

    @property
    def at_us(self) -> int:
        """When it happened."""
        return self.decision.created_at_us

    def settle(self, view: View) -> Committed | Behind:
        """The decision as committed; for an id seen before, the one it already has.

        Raises BodyConflictError when the id has another body.
        """
        stored = view.decisions.get(self.decision_key)
        if stored is not None:
            if stored.request_sha256 != self.decision.request_sha256:
                raise BodyConflictError("decision_id", self.decision.decision_id)
            return Committed(stored, new=False)
        account = view.accounts[self.decision.key]
        if self.must_be_current and self.decision.head != account.head:
            return Behind(account.head)
        committed = replace(self.decision, head=self.decision.head or account.head)
        view.decisions[self.decision_key] = committed
        view.made.add(self.decision_key)
        view.accounts[account.key] = replace(
            account,
            decisions=account.decisions + 1,
            updated_at_us=max(account.updated_at_us, committed.created_at_us),
        )
        view.moved.add(account.key)
        return Committed(committed, new=True)


@dataclass(frozen=True)
class FeedbackWrite:
    """Records feedback, and gives it a position where its workflow folds it."""

    tenant: str
    decision_id: str
    feedback_id: str
    request_sha256: str
    received_at_us: int
    interpret: Callable[[Decision], tuple[Feedback, WorkflowSpec]]
    """What the feedback is under the spec its decision was made under; may raise to refuse it."""

    @property
    def decision_key(self) -> DecisionKey:
        """The decision it touches."""
        return self.tenant, self.decision_id

    @property
    def account_key(self) -> AccountKey | None:
        """Known only once the decision is."""
        return None

    @property
    def at_us(self) -> int:
        """When it happened."""
        return self.received_at_us

    def settle(self, view: View) -> Recorded:
        """The feedback as recorded. Raises DecisionUnknownError, BodyConflictError, and whatever
        `interpret` raises."""
        decision = view.decisions.get(self.decision_key)
        if decision is None:
            raise DecisionUnknownError(self.decision_id)
        account = view.accounts[decision.key]
        others = view.feedback.get(self.decision_key, {})
        twin = others.get(("received", self.feedback_id))
        if twin is not None:
            if twin.request_sha256 != self.request_sha256:
                raise BodyConflictError("feedback_id", self.feedback_id or self.decision_id)
            return Recorded(twin, decision, True, account.head)
        given, spec = self.interpret(decision)
        before = account.adaptation.adapted_at
        had_default = any(one.kind == "default" for one in others.values())
        had_its_turn = any(
            one.kind == "received" and one.head is not None for one in others.values()
        )
        expired = self.received_at_us > decision.expires_at_us
        default = None
        if expired and decision.default_due_at_us is not None:
            # The window closed first: what is due at expiry is folded before what came after it.
            default = _fold(view, default_feedback(decision, spec, self.received_at_us), spec)
        late = expired or had_default
        given = replace(given, late=late)
        folds = not had_its_turn and (not late or spec.feedback.late == "apply")
        given = _fold(view, given, spec) if folds else _keep(view, given)
        return _recorded(view, given, before, default)


@dataclass(frozen=True)
class DefaultWrite:
    """Folds the default reward of a decision whose window has closed."""

    decision: Decision
    spec: WorkflowSpec
    now_us: int

    @property
    def decision_key(self) -> DecisionKey:
        """The decision it touches."""
        return self.decision.key.tenant, self.decision.decision_id

    @property
    def account_key(self) -> AccountKey | None:
        """The account it touches."""
        return self.decision.key

    @property
    def at_us(self) -> int:
        """When it happened."""
        return self.now_us

    def settle(self, view: View) -> Recorded | None:
        """The default as folded; None when it is not due, or not any more."""
        decision = view.decisions.get(self.decision_key)
        if decision is None or decision.default_due_at_us is None:
            return None
        if decision.default_due_at_us >= self.now_us:
            return None
        before = view.accounts[decision.key].adaptation.adapted_at
        given = _fold(view, default_feedback(decision, self.spec, self.now_us), self.spec)
        return _recorded(view, given, before)


Write = DecisionWrite | FeedbackWrite | DefaultWrite


def default_feedback(decision: Decision, spec: WorkflowSpec, now_us: int) -> Feedback:
    """What is folded when the window of `decision` closes without feedback."""
    reward = spec.feedback.default_reward
    if reward is None:
        raise ValueError(f"{spec.workflow} declares no default reward")
    return Feedback(
        key=decision.key,
        decision_id=decision.decision_id,
        feedback_id="",
        kind="default",
        reward=reward,
        outcome=None,
        episode_end=False,
        occurred_at_us=None,
        received_at_us=now_us,
        request_sha256=decision.request_sha256,
    )


def _fold(view: View, given: Feedback, spec: WorkflowSpec) -> Feedback:
    """Keeps `given` as the account's next interaction and moves its head."""
    account = view.accounts[given.key]
    head = Head(account.head.generation, account.head.position + 1)
    view.accounts[given.key] = replace(
        account,
        head=head,
        adaptation=observe(account.adaptation, given.reward, spec.adaptation, spec.reward),
        updated_at_us=max(account.updated_at_us, given.received_at_us),
    )
    view.moved.add(given.key)
    key = (given.key.tenant, given.decision_id)
    view.decisions[key] = replace(view.decisions[key], folded=True, default_due_at_us=None)
    view.folded.add(key)
    return _keep(view, replace(given, head=head))


def _keep(view: View, given: Feedback) -> Feedback:
    """Keeps `given`."""
    of_decision = view.feedback.setdefault((given.key.tenant, given.decision_id), {})
    of_decision[given.kind, given.feedback_id] = given
    view.given.append(given)
    return given


def _recorded(
    view: View, given: Feedback, adapted_before: int | None, default: Feedback | None = None
) -> Recorded:
    account = view.accounts[given.key]
    newly = account.adaptation.adapted_at if adapted_before is None else None
    decision = view.decisions[given.key.tenant, given.decision_id]
    return Recorded(given, decision, False, account.head, newly, default)
