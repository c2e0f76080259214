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
    """Names of the limits that forbade an action that was asked for, in declared order."""
    exhausted: bool = False
    """Nothing that was asked for was left, and the mask holds one action in its place."""


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

        When nothing asked for is lawful: the safe action, if that is lawful; else the first action
        that is; and only when the limits forbid every action there is, the safe action all the
        same, for that is what it is declared for. A limit that cannot be evaluated forbids: a hard
        limit fails closed.
        """
        asked = np.array([asked_for is None or one in asked_for for one in self._ids])
        if not self._conditions:
            return Allowed(asked, ())
        lawful = np.ones_like(asked)
        applied = []
        variables = context_variables(context)
        for name, condition in self._conditions:
            for k, action in enumerate(self._actions):
                if condition.holds(variables | action) is not False:
                    lawful[k] = False
                    if asked[k] and name not in applied:
                        applied.append(name)
        mask = asked & lawful
        if mask.any():
            return Allowed(mask, tuple(applied))
        safe = np.array([one == self._safe for one in self._ids])
        instead = int(np.argmax(safe if (safe & lawful).any() or not lawful.any() else lawful))
        return Allowed(np.arange(asked.size) == instead, tuple(applied), exhausted=True)
