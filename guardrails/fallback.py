"""The fallback: the safe policy under a workflow. It respects the mask as the policy does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.spec import WorkflowSpec
from guardrails.conditions import Condition, context_variables


class Fallback:
    """The fallback of one workflow, compiled. Raises SpecError for a rule that does not compile."""

    def __init__(self, spec: WorkflowSpec) -> None:
        self._row = {action: row for row, action in enumerate(spec.action_ids)}
        self._rules = [
            (Condition(spec, f"fallback.rules.{i}.when", rule.when, of_action=False), rule.action)
            for i, rule in enumerate(spec.fallback.rules)
        ]
        self._last_resorts = [spec.fallback.action]
        if spec.guardrails.safe_action is not None:
            self._last_resorts.append(spec.guardrails.safe_action)

    def choose(self, context: Mapping[str, Any], mask: NDArray[np.bool_]) -> int:
        """The action's row: the first rule that holds and is allowed, else the fixed action, else
        the safe action, else the first action that `mask` `[K]` allows."""
        if self._rules:
            variables = context_variables(context)
            for condition, action in self._rules:
                if mask[self._row[action]] and condition.holds(variables):
                    return self._row[action]
        for action in self._last_resorts:
            if mask[self._row[action]]:
                return self._row[action]
        return int(np.argmax(mask))
