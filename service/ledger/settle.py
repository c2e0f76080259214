"""What a write means: pure functions of the rows it touches. No SQL, no clock.

Each write is settled on a `View` and either changes it or raises before it changed anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from contract.adaptation import AccountAdaptation, observe, revise
from contract.spec import WorkflowSpec
from service.ledger.aggregate import aggregated, counted
from service.ledger.rations import Permit, Ration, count_earned, count_served
from service.ledger.records import (
    Account,
    AccountKey,
    AccountUnknownError,
    BodyConflictError,
    Decision,
    DecisionUnknownError,
    ErasedError,
    Feedback,
    Generation,
    Head,
    LimitReachedError,
    NotActiveError,
    Snapshot,
)
from service.ledger.view import DecisionKey, FeedbackKey, View


class Behind(NamedTuple):
    """The memory a decision was made from is not at the account's head; nothing was written."""

    head: Head


class Committed(NamedTuple):
    """A decision is in the ledger; `new` when this write put it there."""

    decision: Decision
    new: bool
    account_head: Head = Head()
    """The account's head as this was committed."""
    aware: bool = False
    """Whether it was made from the memory at that head."""


class Recorded(NamedTuple):
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
    revised: bool = False
    """Whether this changed an interaction that the account's past already had."""
    adapted_at: int | None = None
    """The interaction at which the account first adapted; None: not yet."""


class DecisionWrite(NamedTuple):
    """Records a decision. `must_be_current`: only if it was made from the account's head."""

    decision: Decision
    must_be_current: bool
    has_default: bool
    """Whether its workflow folds a default reward when its window closes."""
    ration: Ration | None = None
    """Chooses the action under the account's lock; None: it is chosen."""

    @property
    def decision_key(self) -> DecisionKey:
        """The decision it touches."""
        return self.decision.key.tenant, self.decision.decision_id

    @property
    def account_key(self) -> AccountKey:
        """The account it touches."""
        return self.decision.key

    @property
    def at_us(self) -> int:
        """When it happened."""
        return self.decision.created_at_us

    def settle(self, view: View) -> Committed | Behind:
        """The decision as committed; for an id seen before, the one it already has.

        Raises BodyConflictError when the id has another body, ErasedError when it was erased.
        """
        decision = self.decision
        key = decision.key.tenant, decision.decision_id
        stored = view.decisions.get(key)
        if stored is not None:
            if stored.request_sha256 != decision.request_sha256:
                raise BodyConflictError("decision_id", decision.decision_id)
            return Committed(stored, new=False)
        if key in view.erased:
            raise ErasedError("decision_id")
        account = view.accounts[decision.key]
        unborn = decision.key in view.fresh and account.head.position == 0
        if decision.head is None or (unborn and decision.head == Head()):
            # Of an account that is not there yet, the blank memory is at its head, even where an
            # erased namesake makes it start in a later generation.
            decision = decision._replace(head=account.head)
        if self.must_be_current and decision.head != account.head:
            return Behind(account.head)
        if self.ration is not None:
            tallies = view.tallies_of(decision.key, self.ration.scopes)
            decision = self.ration.choose(decision, account, tallies)
            if decision.active:
                count_served(view, self.ration, decision, decision.created_at_us)
        view.decisions[key] = decision
        view.made.add(key)
        view.decided.add(decision.key)
        if self.has_default and decision.active:
            view.due.add(key)
        aware = self.decision.head is not None and decision.head == account.head
        return Committed(decision, True, account.head, aware)


@dataclass(frozen=True, slots=True)
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
        """The feedback as recorded. Raises DecisionUnknownError, ErasedError, NotActiveError,
        BodyConflictError, and whatever `interpret` raises."""
        decision = _known(view, self.decision_key)
        account = view.accounts[decision.key]
        others = view.feedback.get(self.decision_key, {})
        twin = others.get(("received", self.feedback_id))
        if twin is not None:
            if twin.request_sha256 != self.request_sha256:
                raise BodyConflictError("feedback_id", self.feedback_id or self.decision_id)
            return Recorded(twin, decision, True, account.head)
        given, spec = self.interpret(decision)
        if not decision.active:
            raise NotActiveError
        before = account.adaptation.adapted_at
        had_default = ("default", "") in others
        expired = self.received_at_us > decision.expires_at_us
        default = None
        if expired and spec.feedback.default_reward is not None and not _is_folded(others):
            # The window closed first: what is due at expiry is folded before what came after it.
            default = _fold(view, default_feedback(decision, spec, self.received_at_us), spec)
        given = given._replace(late=expired or had_default)
        given, revised = _place(view, given, spec)
        return _recorded(view, given, before, default, revised)


@dataclass(frozen=True, slots=True)
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
        if decision is None or not decision.active or decision.expires_at_us >= self.now_us:
            return None
        if _is_folded(view.feedback.get(self.decision_key, {})):
            return None
        before = view.accounts[decision.key].adaptation.adapted_at
        given = _fold(view, default_feedback(decision, self.spec, self.now_us), self.spec)
        return _recorded(view, given, before)


@dataclass(frozen=True, slots=True)
class ActivateWrite:
    """Lets a deferred decision count: its window opens now."""

    tenant: str
    decision_id: str
    at_us: int
    spec_of: Callable[[Decision], WorkflowSpec]
    permit_of: Callable[[Decision], Permit | None] = lambda _: None
    """What has to let it be served now; None: nothing."""

    @property
    def decision_key(self) -> DecisionKey:
        """The decision it touches."""
        return self.tenant, self.decision_id

    @property
    def account_key(self) -> AccountKey | None:
        """Known only once the decision is."""
        return None

    def settle(self, view: View) -> Decision:
        """The active decision; one that was active already is left as it is. Raises
        DecisionUnknownError, ErasedError and LimitReachedError."""
        decision = _known(view, self.decision_key)
        if decision.active:
            return decision
        permit = self.permit_of(decision)
        if permit is not None:
            account = view.accounts[decision.key]
            tallies = view.tallies_of(decision.key, permit.scopes)
            if against := permit.refuse(decision, account, tallies, self.at_us):
                raise LimitReachedError(against)
            count_served(view, permit, decision, self.at_us)
        rules = self.spec_of(decision).feedback
        expires = self.at_us + round(rules.window_seconds * 1e6)
        active = decision._replace(
            activated_at_us=self.at_us,
            expires_at_us=expires,
        )
        view.decisions[self.decision_key] = active
        if rules.default_reward is not None:
            view.due.add(self.decision_key)
        view.activated.add(self.decision_key)
        return active


@dataclass(frozen=True, slots=True)
class ResetWrite:
    """Starts an account anew: its past stays in the ledger and is not folded any more."""

    key: AccountKey
    at_us: int

    @property
    def decision_key(self) -> DecisionKey | None:
        """None."""
        return None

    @property
    def account_key(self) -> AccountKey | None:
        """The account it touches."""
        return self.key

    def settle(self, view: View) -> Account:
        """The account as it starts anew. Raises AccountUnknownError."""
        if self.key in view.fresh and self.key not in view.decided | view.moved:
            raise AccountUnknownError
        account = view.accounts[self.key]
        generation = account.head.generation + 1
        _open(view, account, Generation(
            self.key, generation, "reset", 0, account.head.position, None, self.at_us
        ))  # fmt: skip
        anew = account._replace(
            head=Head(generation, 0),
            base_generation=generation,
            adaptation=AccountAdaptation(),
            kept_above=0,
            updated_at_us=max(account.updated_at_us, self.at_us),
        )
        view.accounts[self.key] = anew
        return anew


@dataclass(frozen=True, slots=True)
class SnapshotWrite:
    """Keeps a memory beside the past that it is the fold of."""

    snapshot: Snapshot

    @property
    def decision_key(self) -> DecisionKey | None:
        """None."""
        return None

    @property
    def account_key(self) -> AccountKey | None:
        """The account it touches."""
        return self.snapshot.key

    @property
    def at_us(self) -> int:
        """When it happened."""
        return self.snapshot.created_at_us

    def settle(self, view: View) -> bool:
        """Whether it is a prefix of the past as it is now, and was kept."""
        head, now = self.snapshot.head, view.accounts[self.snapshot.key].head
        kept = head.generation == now.generation and 0 < head.position <= now.position
        if kept:
            view.snapshots.append(self.snapshot)
        return kept


Write = DecisionWrite | FeedbackWrite | DefaultWrite | ActivateWrite | ResetWrite | SnapshotWrite


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


def _known(view: View, key: DecisionKey) -> Decision:
    decision = view.decisions.get(key)
    if decision is None:
        raise ErasedError("decision_id") if key in view.erased else DecisionUnknownError(key[1])
    return decision


def _is_folded(came: Mapping[FeedbackKey, Feedback]) -> bool:
    """Whether something that came of a decision is an interaction."""
    return any(one.head is not None for one in came.values())


def _place(view: View, given: Feedback, spec: WorkflowSpec) -> tuple[Feedback, bool]:
    """Folds `given` as the next interaction, revises the one it belongs to, or only keeps it, as
    the workflow says; and whether it revised one."""
    rules = spec.feedback
    others = view.feedback.get((given.key.tenant, given.decision_id), {})
    turns = [one for one in others.values() if one.head is not None]
    received = [one for one in turns if one.kind == "received"]
    if given.late and rules.late == "ignore":
        return _keep(view, given), False
    if not received and not (given.late and rules.late == "rebuild" and turns):
        return _fold(view, given, spec), False
    if given.late and rules.late == "apply":
        return _keep(view, given), False
    if rules.aggregation == "earliest" and (
        received or any(counted(one, rules) for one in others.values())
    ):
        return _keep(view, given), False
    return _revise(view, given, received or turns, spec)


def _revise(
    view: View, given: Feedback, turns: list[Feedback], spec: WorkflowSpec
) -> tuple[Feedback, bool]:
    """Makes `given` count at the place of the interaction that `turns` stand for, in a new
    generation where that changes it."""
    account = view.accounts[given.key]
    stands = max(turns, key=lambda one: one.head or Head())
    assert stands.head is not None
    if stands.head.generation < account.base_generation:  # reset since: it is not folded any more
        return _keep(view, given), False
    if stands.head.position <= account.kept_above:  # only a snapshot holds what it came to
        return _keep(view, given), False
    others = view.feedback.get((given.key.tenant, given.decision_id), {})
    pieces = [*(one for one in others.values() if counted(one, spec.feedback)), given]
    reward, end = aggregated(pieces, spec)
    if (reward, end) == (stands.folded_reward, stands.folded_end):
        return _keep(view, given), False
    head = Head(account.head.generation + 1, account.head.position)
    place = stands.head.position
    _open(view, account, Generation(
        given.key, head.generation, "revision", place, head.position, given.decision_id,
        given.received_at_us,
    ))  # fmt: skip
    view.accounts[given.key] = account._replace(
        head=head,
        adaptation=revise(
            account.adaptation, head.position - place, reward, spec.adaptation, spec.reward
        ),
        updated_at_us=max(account.updated_at_us, given.received_at_us),
    )
    count_earned(view, given, spec, reward, stands.folded_reward)
    folded = given._replace(head=Head(head.generation, place), folded_reward=reward, folded_end=end)
    return _keep(view, folded), True


def _open(view: View, account: Account, generation: Generation) -> None:
    """A new generation; memories kept beside the old past that it changes are so no more."""
    view.opened.append(generation)
    view.snapshots = [
        one
        for one in view.snapshots
        if one.key != account.key or one.head.position < generation.position
    ]
    view.moved.add(account.key)


def _fold(view: View, given: Feedback, spec: WorkflowSpec) -> Feedback:
    """Keeps `given` as the account's next interaction and moves its head."""
    account = view.accounts[given.key]
    head = Head(account.head.generation, account.head.position + 1)
    view.accounts[given.key] = account._replace(
        head=head,
        adaptation=observe(account.adaptation, given.reward, spec.adaptation, spec.reward),
        updated_at_us=max(account.updated_at_us, given.received_at_us),
    )
    view.moved.add(given.key)
    turns = view.feedback.get((given.key.tenant, given.decision_id), {}).values()
    count_earned(view, given, spec, given.reward, next(
        (one.folded_reward for one in turns if one.head is not None), None
    ))  # fmt: skip
    if spec.feedback.default_reward is not None:
        view.settled.add((given.key.tenant, given.decision_id))
    return _keep(
        view,
        given._replace(head=head, folded_reward=given.reward, folded_end=given.episode_end),
    )


def _keep(view: View, given: Feedback) -> Feedback:
    """Keeps `given`."""
    of_decision = view.feedback.setdefault((given.key.tenant, given.decision_id), {})
    of_decision[given.kind, given.feedback_id] = given
    view.given.append(given)
    return given


def _recorded(
    view: View,
    given: Feedback,
    adapted_before: int | None,
    default: Feedback | None = None,
    revised: bool = False,
) -> Recorded:
    account = view.accounts[given.key]
    adapted_at = account.adaptation.adapted_at
    newly = adapted_at if adapted_before is None else None
    decision = view.decisions[given.key.tenant, given.decision_id]
    return Recorded(given, decision, False, account.head, newly, default, revised, adapted_at)
