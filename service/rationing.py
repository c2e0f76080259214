"""What of a decision waits for its account's lock: the account as its guardrails see it there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from contract.encode import check_context
from contract.spec import WorkflowSpec
from guardrails.conditions import Facts
from guardrails.fallback import Fallback
from guardrails.guard import Guard, Offer
from guardrails.limits import Limits
from guardrails.tally import Needs, Tally, together
from service.catalog import Catalog
from service.ledger.records import Account, Decision

DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Rationed:
    """One decision about to be made; a `service.ledger.settle.Ration`."""

    guard: Guard
    spec: WorkflowSpec
    offer: Offer

    @property
    def needs(self) -> Needs:
        """See Counted."""
        return self.guard.needs

    def choose(self, decision: Decision, account: Account, tally: Tally) -> Decision:
        """See Ration."""
        now_us = decision.created_at_us
        facts = facts_of(account, self.spec, now_us)
        choice = self.guard.choose(self.offer, facts, tally, now_us)
        return decision._replace(
            action=choice.action,
            probability=choice.probability,
            reason=choice.reason,
            limits=list(choice.limits),
            actions_left=None if choice.actions_left is None else list(choice.actions_left),
        )

    def count(self, decision: Decision, tally: Tally, at_us: int) -> Tally:
        """See Counted."""
        return self.guard.count(decision.action, tally, at_us)


@dataclass(frozen=True)
class Waiting:
    """One deferred decision about to be activated; a `service.ledger.settle.Permit`.

    It has to be lawful under the rules that it was made under, and within the caps that hold now.
    """

    own: Guard
    spec: WorkflowSpec
    """Of `own`."""
    now: Guard

    @property
    def needs(self) -> Needs:
        """See Counted."""
        return together(self.own.needs, self.now.needs)

    def refuse(
        self, decision: Decision, account: Account, tally: Tally, at_us: int
    ) -> tuple[str, ...]:
        """See Permit."""
        facts = facts_of(account, self.spec, at_us)
        context, _ = check_context(self.spec, decision.context)
        against = self.own.refuse(decision.action, context, facts, tally, at_us)
        return tuple(dict.fromkeys((*against, *self.now.over(decision.action, tally, at_us))))

    def count(self, decision: Decision, tally: Tally, at_us: int) -> Tally:
        """See Counted."""
        return self.now.count(decision.action, tally, at_us)


def waiting(catalog: Catalog, decision: Decision) -> Waiting | None:
    """What has to let a deferred decision be served now; None: nothing. Blocks where another
    replica made its spec version."""
    spec = catalog.spec(decision.key.workflow, decision.spec_version)
    own = _guard(spec.canonical)
    served = catalog.workflows.get(decision.key.workflow)
    now = own if served is None else served.guard
    return Waiting(own, spec, now) if own.declared or now.declared else None


def facts_of(account: Account, spec: WorkflowSpec, now_us: int) -> Facts:
    """What conditions may ask of an account."""
    recent = account.adaptation.recent
    return Facts(
        interactions=float(account.head.position),
        age_days=max(now_us - account.created_at_us, 0) / DAY_US,
        phase=account.adaptation.phase,
        recent_reward=sum(recent) / len(recent) if recent else spec.reward.min,
    )


@lru_cache(maxsize=32)
def _guard(canonical: str) -> Guard:
    spec = WorkflowSpec.model_validate_json(canonical)
    return Guard(spec, Limits(spec), Fallback(spec))
