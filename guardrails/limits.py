"""Hard limits as an action mask: what is masked is never served, by policy or fallback."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.spec import WorkflowSpec
from guardrails.conditions import Condition, context_variables


@dataclass(frozen=True)
class Allowed:
    """What the limits leave of the actions that were asked for."""

    mask: NDArray[np.bool_]
    """`[K]`, True where the action may be served."""
    limits: tuple[str, ...]
    """Names of the limits that removed an action that was asked for, in declared order."""
    exhausted: bool = False
    """Nothing was left, and the mask holds the declared safe action alone."""


class Limits:
    """The limits of one workflow, compiled. Raises SpecError for one that does not compile."""

    def __init__(self, spec: WorkflowSpec) -> None:
        self._ids = spec.action_ids
        self._safe = spec.guardrails.safe_action
        self._conditions = [
            (
                limit.name,
                Condition(spec, f"guardrails.limits.{i}.forbid", limit.forbid, of_action=True),
            )
            for i, limit in enumerate(spec.guardrails.limits)
        ]
        self._actions = [
            {"action.id": action.id}
            | {f"action.{name}": value for name, value in action.features.items()}
            for action in spec.actions
        ]

    def allow(self, context: Mapping[str, Any], asked_for: Collection[str] | None) -> Allowed:
        """The mask for a checked context and the actions asked for (None: all of them).

        A limit that cannot be evaluated forbids: a hard limit fails closed.
        """
        mask = np.array([asked_for is None or one in asked_for for one in self._ids])
        applied = []
        if self._conditions:
            variables = context_variables(context)
            for name, condition in self._conditions:
                removed = False
                for k, action in enumerate(self._actions):
                    if mask[k] and condition.holds(variables | action) is not False:
                        mask[k] = False
                        removed = True
                if removed:
                    applied.append(name)
        if mask.any():
            return Allowed(mask, tuple(applied))
        safe = np.array([one == self._safe for one in self._ids])
        return Allowed(safe, tuple(applied), exhausted=True)
