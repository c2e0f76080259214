"""What is served once all is known of an account: rations, exploration budget, then the draw.

Pure, and called where a decision commits: the distribution and the draw come with the question,
what the account was served lately is read under its lock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from contract.draw import sample
from contract.spec import WorkflowSpec
from guardrails.conditions import Facts
from guardrails.distribution import point_mass
from guardrails.exploration import Exploration, Tallies
from guardrails.fallback import Fallback
from guardrails.limits import Allowed, Limits
from guardrails.rations import Rations
from guardrails.tally import Needs, used

POLICY = "policy"
SAFE_ACTION = "safe_action"
UNSOUND = "policy_unsound"
SPENT = "exploration_budget"
"""The reasons of decisions that this module gives."""


class Offer(NamedTuple):
    """One decision as far as it is made without its account."""

    context: Mapping[str, Any]
    asked_for: Sequence[str] | None
    allowed: Allowed
    """What context and action alone leave."""
    probabilities: NDArray[np.float64]
    """`[K]`, the policy's over that; nobody's where it is not the policy that decides."""
    reason: str
    """Why these are the ones, or why the fallback is to choose."""
    draw: float


class Past(NamedTuple):
    """What is true of the account as the decision commits."""

    facts: Facts
    free: bool = False
    """Whether the lower bound of its mean reward is above the fallback's: it spends no budget."""


class Choice(NamedTuple):
    """What is served."""

    action: str
    probability: float
    """Of this action, after every guardrail."""
    reason: str
    limits: tuple[str, ...]
    """Names of all that took something of what was asked for."""
    actions_left: tuple[str, ...] | None
    """What was left after every guardrail, where the account's past took something away."""
    deviates: bool | None = None
    """Whether the fallback would have chosen another action; None: nobody counts, or none of what
    was asked for was left."""


class Guard:
    """The guardrails of one workflow that need its accounts, compiled. Raises SpecError."""

    def __init__(self, spec: WorkflowSpec, limits: Limits, fallback: Fallback) -> None:
        self._ids = spec.action_ids
        self._limits = limits
        self._fallback = fallback
        self._rations = Rations(spec)
        self.exploration = Exploration(spec)
        self.declared = self._rations.declared or self.exploration.declared
        """Whether the workflow declares any: otherwise its accounts need no lock."""

    @property
    def needs(self) -> Needs:
        """What an account's tally must know."""
        return self._rations.needs

    def choose(self, offer: Offer, past: Past, tallies: Tallies, now_us: int) -> Choice:
        """What is served to the account of which `past` and `tallies` are true."""
        asked, tally = self._limits.asked(offer.asked_for), tallies["account"]
        allowed = self._rations.leave(
            offer.allowed, asked, offer.context, past.facts, tally, now_us
        )
        left = None
        if allowed is not offer.allowed:
            left = tuple(one for one, kept in zip(self._ids, allowed.mask, strict=True) if kept)
        probabilities, reason = self._distribution(offer, allowed)
        names, usual = allowed.limits, None
        if self.exploration.declared and reason != SAFE_ACTION:
            usual = self._fallback.choose(offer.context, allowed.mask)
            against: tuple[str, ...] = ()
            if reason == POLICY:
                against = self.exploration.spent(tallies, past.free, now_us)
            if against:
                probabilities, reason = point_mass(usual, len(self._ids)), SPENT
                names = (*names, *against)
        row = int(sample(probabilities, offer.draw))
        deviates = None if usual is None else row != usual
        action, probability = self._ids[row], float(probabilities[row])
        return Choice(action, probability, reason, names, left, deviates)

    def count(
        self, action: str, deviates: bool | None, past: Past, tallies: Tallies, at_us: int
    ) -> Tallies:
        """The tallies once `action` was served, which `deviates` from the fallback's or not."""
        after: Tallies = {**tallies, "account": used(tallies["account"], action, at_us)}
        if deviates is None or not self.exploration.declared:
            return after
        return self.exploration.count(deviates, after, past.free, at_us)

    def refuse(
        self, action: str, context: Mapping[str, Any], past: Past, tallies: Tallies, now_us: int
    ) -> tuple[str, ...]:
        """Names of all that is against serving now what was decided before; of its exploration,
        `over` knows."""
        return self._rations.refuse(action, context, past.facts, tallies["account"], now_us)

    def over(
        self, action: str, deviates: bool | None, past: Past, tallies: Tallies, now_us: int
    ) -> tuple[str, ...]:
        """Names of the caps, cool-downs and budgets that serving `action` now would exceed."""
        over = self._rations.over(action, tallies["account"], now_us)
        if not deviates or not self.exploration.declared:
            return over
        return (*over, *self.exploration.spent(tallies, past.free, now_us))

    def _distribution(self, offer: Offer, allowed: Allowed) -> tuple[NDArray[np.float64], str]:
        """What is drawn from `[K]`, and why: the policy's distribution on what is left, where the
        policy decides; the fallback's choice; the one action in the place of none."""
        size = len(self._ids)
        if allowed.exhausted:
            return point_mass(int(np.argmax(allowed.mask)), size), SAFE_ACTION
        reason = offer.reason
        if reason == POLICY:
            probabilities = renormalised(offer.probabilities, allowed.mask)
            if probabilities is not None:
                return probabilities, reason
            reason = UNSOUND
        if reason == SAFE_ACTION:  # the limits had left nothing, and still do
            return point_mass(int(np.argmax(allowed.mask)), size), reason
        return point_mass(self._fallback.choose(offer.context, allowed.mask), size), reason


def renormalised(
    probabilities: NDArray[np.float64], mask: NDArray[np.bool_]
) -> NDArray[np.float64] | None:
    """The distribution `[K]` on what `mask` `[K]` leaves of it; None where that is nothing. It is
    what a softmax gives when the others' logits are masked."""
    kept = np.where(mask, probabilities, 0.0)
    total = kept.sum()
    return kept / total if total > 0 else None
