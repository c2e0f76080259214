"""What of a decision waits for its account's lock: the account as its guardrails see it there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from contract.adaptation import mean_bounds
from contract.encode import check_context
from contract.safety import Scope
from contract.spec import WorkflowSpec
from guardrails.conditions import Facts
from guardrails.exploration import Tallies
from guardrails.fallback import Fallback
from guardrails.guard import Guard, Offer, Past
from guardrails.limits import Limits
from guardrails.tally import Needs, together
from service.catalog import Catalog
from service.ledger.records import Account, Decision

DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Rationed:
    """One decision about to be made; a `service.ledger.rations.Ration`."""

    guard: Guard
    spec: WorkflowSpec
    offer: Offer
    took: Callable[[float], None]
    """Told how many seconds choosing took."""

    @property
    def needs(self) -> Needs:
        """See Counted."""
        return self.guard.needs

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """See Counted."""
        return self.guard.exploration.scopes

    def choose(self, decision: Decision, account: Account, tallies: Tallies) -> Decision:
        """See Ration."""
        started, now_us = time.perf_counter(), decision.created_at_us
        past = past_of(account, self.guard, self.spec, now_us)
        choice = self.guard.choose(self.offer, past, tallies, now_us)
        self.took(time.perf_counter() - started)
        return decision._replace(
            action=choice.action,
            probability=choice.probability,
            reason=choice.reason,
            limits=list(choice.limits),
            actions_left=None if choice.actions_left is None else list(choice.actions_left),
            deviates=choice.deviates,
        )

    def count(self, decision: Decision, account: Account, tallies: Tallies, at_us: int) -> Tallies:
        """See Counted."""
        past = past_of(account, self.guard, self.spec, at_us)
        return self.guard.count(decision.action, decision.deviates, past, tallies, at_us)


@dataclass(frozen=True)
class Waiting:
    """One deferred decision about to be activated; a `service.ledger.rations.Permit`.

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

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """See Counted."""
        return tuple(dict.fromkeys((*self.own.exploration.scopes, *self.now.exploration.scopes)))

    def refuse(
        self, decision: Decision, account: Account, tallies: Tallies, at_us: int
    ) -> tuple[str, ...]:
        """See Permit."""
        past = past_of(account, self.now, self.spec, at_us)
        context, _ = check_context(self.spec, decision.context)
        against = self.own.refuse(decision.action, context, past, tallies, at_us)
        over = self.now.over(decision.action, decision.deviates, past, tallies, at_us)
        return tuple(dict.fromkeys((*against, *over)))

    def count(self, decision: Decision, account: Account, tallies: Tallies, at_us: int) -> Tallies:
        """See Counted."""
        past = past_of(account, self.now, self.spec, at_us)
        return self.now.count(decision.action, decision.deviates, past, tallies, at_us)


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


def past_of(account: Account, guard: Guard, spec: WorkflowSpec, now_us: int) -> Past:
    """What is true of an account."""
    free, recent = False, account.adaptation.recent
    if guard.exploration.declared and len(recent) >= spec.adaptation.window:
        low, _ = mean_bounds(recent, spec.adaptation.level, spec.reward)
        free = low > guard.exploration.fallback_reward
    return Past(facts_of(account, spec, now_us), free)


@lru_cache(maxsize=32)
def _guard(canonical: str) -> Guard:
    spec = WorkflowSpec.model_validate_json(canonical)
    return Guard(spec, Limits(spec), Fallback(spec))
