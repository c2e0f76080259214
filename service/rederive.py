"""Re-derive a decision: replay what it was made from, and decide again as it did then.

Nothing is written. What cannot be re-derived any more is said in words, never an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.bundle import BundleError
from contract.draw import draw, sample
from contract.encode import ContextError, check_context
from contract.policy import PARITY_TOLERANCE
from contract.spec import SpecError, WorkflowSpec
from guardrails.distribution import are_sound, point_mass
from guardrails.fallback import Fallback
from guardrails.guard import SAFE_ACTION, SPENT, renormalised
from guardrails.limits import Allowed, Limits
from service.bundles import Policy
from service.catalog import Catalog, Workflow, expected_of
from service.ledger.records import Decision, Head
from service.recall import Recall, UnreadablePastError


@dataclass(frozen=True)
class Rederived:
    """What a decision comes to when it is made again."""

    from_head: Head
    """The memory it says it was made from."""
    action_probabilities: Mapping[str, float] | None = None
    """The whole distribution it was drawn from; None: it cannot be re-derived, see `reason`."""
    action: str | None = None
    """What the draw, made again from the installation key, picks from it."""
    probability: float | None = None
    """Of the action that was served."""
    difference: float | None = None
    """Between that and the logged probability."""
    equal: bool | None = None
    """Whether action, draw and limits are the logged ones, and the probability is within what two
    machines may differ by."""
    complete: bool = True
    """Whether nothing of the past it was made from is missing."""
    reason: str | None = None
    """What a reader must know of this."""


class Rederiver:
    """Makes decisions of the past again."""

    def __init__(self, recall: Recall, catalog: Catalog, draw_key: bytes) -> None:
        self._recall = recall
        self._catalog = catalog
        self._draw_key = draw_key

    async def rederive(self, decision: Decision) -> Rederived:
        """What the decision comes to now. Raises LedgerUnavailableError."""
        name, version = decision.key.workflow, decision.spec_version
        assert decision.head is not None
        found = Rederived(decision.head)
        try:
            spec = await asyncio.to_thread(self._catalog.spec, name, version)
            context, _ = check_context(spec, decision.context)
            allowed = _limits(spec).allow(context, decision.asked_for)
            shown = allowed.mask
            if decision.actions_left is not None:  # the account's own past took something away
                mask = np.isin(spec.action_ids, decision.actions_left)
                exhausted = decision.reason == SAFE_ACTION
                allowed = Allowed(mask, _of_actions(decision), exhausted)
            if allowed.exhausted:
                mass = point_mass(int(np.argmax(allowed.mask)), allowed.mask.size)
                return self._compared(decision, spec, allowed, mass, found)
            if decision.reason != "policy":
                fallback = self._fallback(decision, spec)
                if fallback is None:
                    lost = f"baseline {spec.fallback.model} is not loaded any more"
                    return replace(found, reason=lost)
                row = fallback.choose(context, allowed.mask)
                why = f"for something of then ({decision.reason}) that no replay repeats;"
                if decision.reason == SPENT:
                    why = "as the exploration budget was spent;"
                said = f"the fallback chose, {why} its choice is re-derived"
                mass = point_mass(row, allowed.mask.size)
                return self._compared(decision, spec, allowed, mass, replace(found, reason=said))
            return await self._by_policy(decision, spec, allowed, shown, context, found)
        except (ContextError, SpecError, BundleError, UnreadablePastError) as error:
            return replace(found, reason=f"it cannot be made again here: {error}")

    async def _by_policy(
        self,
        decision: Decision,
        spec: WorkflowSpec,
        allowed: Allowed,
        shown: NDArray[np.bool_],
        context: Mapping[str, Any],
        found: Rederived,
    ) -> Rederived:
        """The network's distribution over the actions it was shown `[K]`, on those that were left,
        from the memory as it was."""
        policy = self._policy(decision.policy)
        if policy is None:
            return replace(found, reason=f"policy {decision.policy} is not loaded any more")
        workflow = Workflow(spec, decision.spec_version, policy)
        fold = await self._recall.fresh(workflow, decision.key, decision.head, from_snapshots=True)
        if not fold.complete:
            found = replace(
                found,
                complete=False,
                reason="events below what retention has left are missing, so that the memory is "
                "not the one it was made from",
            )
        masks = shown[None]
        probabilities = workflow.probabilities([fold.memory], [context], masks).astype(np.float64)
        if not are_sound(probabilities, masks).all():
            return replace(found, reason=f"policy {decision.policy} gives no distribution now")
        row = renormalised(probabilities[0], allowed.mask)
        if row is None:
            return replace(found, reason=f"policy {decision.policy} gives nothing to what was left")
        return self._compared(decision, spec, allowed, row, found)

    def _compared(
        self,
        decision: Decision,
        spec: WorkflowSpec,
        allowed: Allowed,
        probabilities: NDArray[Any],
        found: Rederived,
    ) -> Rederived:
        """`found` with the distribution `[K]`, what is drawn from it, and how that compares."""
        ids = spec.action_ids
        drawn = draw(self._draw_key, *decision.key, decision.decision_id)
        action = ids[int(sample(probabilities, drawn))]
        probability = float(probabilities[ids.index(decision.action)])
        difference = abs(probability - decision.probability)
        logged = decision.action, decision.draw, _of_actions(decision)
        return replace(
            found,
            action_probabilities=dict(zip(ids, map(float, probabilities), strict=True)),
            action=action,
            probability=probability,
            difference=difference,
            equal=(action, drawn, allowed.limits) == logged and difference <= PARITY_TOLERANCE,
        )

    def _fallback(self, decision: Decision, spec: WorkflowSpec) -> Fallback | None:
        """The fallback of then; None where its model is not at hand."""
        if spec.fallback.model is None:
            return _fallback(spec)
        served = self._catalog.workflows.get(decision.key.workflow)
        if served is None or served.spec.fallback.model != spec.fallback.model:
            return None
        assert served.baseline is not None
        return Fallback(spec, expected_of(served.baseline, spec))

    def _policy(self, name: str) -> Policy | None:
        """The bundle of that name and version, if one is loaded."""
        names = self._catalog.workflows
        served = (one.policy for name in names for one in self._catalog.known(name))
        return next((one for one in served if one.identity.policy == name), None)


def _of_actions(decision: Decision) -> tuple[str, ...]:
    """The names of what took actions away: a spent budget takes the choice among them."""
    return tuple(name for name in decision.limits if not name.startswith("exploration."))


@lru_cache(maxsize=32)
def _compiled(canonical: str) -> tuple[Limits, Fallback]:
    spec = WorkflowSpec.model_validate_json(canonical)
    return Limits(spec), Fallback(spec)


def _limits(spec: WorkflowSpec) -> Limits:
    return _compiled(spec.canonical)[0]


def _fallback(spec: WorkflowSpec) -> Fallback:
    return _compiled(spec.canonical)[1]
