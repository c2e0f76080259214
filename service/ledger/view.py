"""The rows of one group of writes and what it changes; accounts that change are locked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from contract.safety import Scope
from guardrails.exploration import Tallies
from guardrails.tally import Tally
from service.ledger.records import Account, AccountKey, Decision, Feedback, Generation, Snapshot

DecisionKey = tuple[str, str]
"""(tenant, decision_id)."""
FeedbackKey = tuple[str, str]
"""(kind, feedback_id), within a decision."""


@dataclass(slots=True)
class View:
    """Each write of the group is settled on it in turn; what changed is then stored at once."""

    accounts: dict[AccountKey, Account] = field(default_factory=dict)
    decisions: dict[DecisionKey, Decision] = field(default_factory=dict)
    feedback: dict[DecisionKey, dict[FeedbackKey, Feedback]] = field(default_factory=dict)
    """By decision, so that settling one looks at its own alone; in order of arrival."""
    erased: set[DecisionKey] = field(default_factory=set)
    """Decisions that were erased with their account."""
    tombstones: bool = False
    """Whether anything was ever erased."""
    fresh: set[AccountKey] = field(default_factory=set)
    """Accounts that are not in the database yet; they get there only when they have changed."""
    locked: set[AccountKey] = field(default_factory=set)
    """Accounts that may be changed; of the others, only those that are not there yet."""
    decided: set[AccountKey] = field(default_factory=set)
    """Accounts that a decision was made for."""
    moved: set[AccountKey] = field(default_factory=set)
    """Accounts whose head moved."""
    made: set[DecisionKey] = field(default_factory=set)
    due: set[DecisionKey] = field(default_factory=set)
    """Decisions whose default reward is to be folded from now on, at their expiry."""
    settled: set[DecisionKey] = field(default_factory=set)
    """Decisions whose default reward is not to be folded any more."""
    activated: set[DecisionKey] = field(default_factory=set)
    given: list[Feedback] = field(default_factory=list)
    opened: list[Generation] = field(default_factory=list)
    """In order; each deletes the snapshots that it makes untrue."""
    snapshots: list[Snapshot] = field(default_factory=list)
    tallies: dict[AccountKey, Tally] = field(default_factory=dict)
    """Of the accounts whose workflows ration something, and of tenants and workflows
    (`tally_key`); whoever counts has them locked."""
    tallied: set[AccountKey] = field(default_factory=set)
    """Whose tally changed."""

    def tallies_of(self, key: AccountKey, scopes: Iterable[Scope]) -> Tallies:
        """The account's tally, and those of these scopes that it belongs to."""
        return {scope: self.tallies[tally_key(scope, key)] for scope in ("account", *scopes)}

    def tally(self, key: AccountKey, tally: Tally) -> None:
        """Puts a tally in the place of the one there."""
        if tally != self.tallies[key]:
            self.tallies[key] = tally
            self.tallied.add(key)


def tally_key(scope: Scope, key: AccountKey) -> AccountKey:
    """Under which the tally is kept of an account, or of all accounts of its tenant or workflow: an
    empty name is nobody's."""
    if scope == "account":
        return key
    return AccountKey(key.tenant if scope == "tenant" else "", key.workflow, "")
