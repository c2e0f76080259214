"""The fallback: the safe policy under a workflow. It respects the mask as the policy does.

Rules, a supervised model, a fixed action, in this order. What the model expects is asked of whoever
runs it: nothing is loaded here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.spec import WorkflowSpec
from guardrails.conditions import Condition, context_variables

Expected = Callable[[Mapping[str, Any]], NDArray[np.float64] | None]
"""The reward that a model expects of each action `[K]` in a checked context; None: it has none."""


class Fallback:
    """The fallback of one workflow, compiled. Raises SpecError for a rule that does not compile."""

    def __init__(self, spec: WorkflowSpec, expected: Expected | None = None) -> None:
        """`expected` is what `fallback.model` says, where that is declared and at hand."""
        self._expected = expected
        self._row = {action: row for row, action in enumerate(spec.action_ids)}
        self._rules = [
            (Condition(spec, f"fallback.rules.{i}.when", rule.when, of_action=False), rule.action)
            for i, rule in enumerate(spec.fallback.rules)
        ]
        self._last_resorts = [spec.fallback.action]
        if spec.guardrails.safe_action is not None:
            self._last_resorts.append(spec.guardrails.safe_action)

    def choose(self, context: Mapping[str, Any], mask: NDArray[np.bool_]) -> int:
        """The action's row: the first rule that holds and is allowed, else what the model expects
        most of among what is allowed, else the fixed action, else the safe action, else the first
        action that `mask` `[K]` allows."""
        if self._rules:
            variables = context_variables(context)
            for condition, action in self._rules:
                if mask[self._row[action]] and condition.holds(variables):
                    return self._row[action]
        rewards = None if self._expected is None else self._expected(context)
        if rewards is not None:
            of_allowed = np.where(mask & ~np.isnan(rewards), rewards, -np.inf)
            if np.isfinite(of_allowed).any():
                return int(np.argmax(of_allowed))
        for action in self._last_resorts:
            if mask[self._row[action]]:
                return self._row[action]
        return int(np.argmax(mask))
