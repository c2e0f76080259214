"""What decisions count in tallies as they are settled: pure functions of the rows they touch."""

from __future__ import annotations

from typing import Protocol

from contract.safety import Scope
from contract.spec import WorkflowSpec
from guardrails.exploration import Exploration, Tallies
from guardrails.tally import Needs
from service.ledger.records import Account, Decision, Feedback
from service.ledger.view import View, tally_key


class Counted(Protocol):
    """What serving a decision counts in its account's tally. It is pure, and so are those below."""

    @property
    def needs(self) -> Needs:
        """What the tally must know."""

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """What is counted besides the account, all accounts together."""

    def count(self, decision: Decision, account: Account, tallies: Tallies, at_us: int) -> Tallies:
        """The tallies once the decision is served."""


class Ration(Counted, Protocol):
    """What of a decision is made only where it commits: its account's own past is known there."""

    def choose(self, decision: Decision, account: Account, tallies: Tallies) -> Decision:
        """The decision with the action that is served."""


class Permit(Counted, Protocol):
    """What has to let a decision be served that was made before."""

    def refuse(
        self, decision: Decision, account: Account, tallies: Tallies, at_us: int
    ) -> tuple[str, ...]:
        """Names of all that is against it."""


def count_served(view: View, counted: Counted, decision: Decision, at_us: int) -> None:
    """Counts a decision as served."""
    before = view.tallies_of(decision.key, counted.scopes)
    after = counted.count(decision, view.accounts[decision.key], before, at_us)
    for scope, tally in after.items():
        view.tally(tally_key(scope, decision.key), tally)


def count_earned(
    view: View, given: Feedback, spec: WorkflowSpec, reward: float, before: float | None
) -> None:
    """Tells the account's tally what a decision that deviated from the fallback has earned;
    `before` is what it had been taken to have earned."""
    decision = view.decisions[given.key.tenant, given.decision_id]
    if decision.deviates and given.key in view.tallies:
        earned = Exploration(spec).earned
        view.tally(given.key, earned(view.tallies[given.key], reward, before))
