"""What caps and cool-downs left of what was asked for, where the service's answers name them.

A simulator's situation knows what context and action forbid; what an account was served lately, and
when, only the service counts. It is believed what it names, and held to what that leaves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from acclimate_client import Decision
from contract.safety import Cap, Cooldown
from contract.spec import WorkflowSpec
from guardrails.limits import leave
from training.tasks.workflows.accounts import Situation

Mask = NDArray[np.bool_]


class Rationed:
    """The caps and cool-downs of one workflow: the actions that each takes away."""

    def __init__(self, spec: WorkflowSpec) -> None:
        rules, ids = spec.guardrails, spec.action_ids
        declared: list[Cap | Cooldown] = [*rules.caps, *rules.cooldowns]
        self._safe = np.array([one == rules.safe_action for one in ids])
        self._taken: Mapping[str, Mask] = {
            rule.name: np.array([one in rule.actions for one in ids]) for rule in declared
        }

    def left(
        self, situation: Situation, lawful: Sequence[Mask | None], made: Sequence[Decision]
    ) -> Mask:
        """`[B, K]`: what was left to each decision, after the rations that it names. `lawful` has
        for each what the limits leave of all actions, `[K]`; None: everything."""
        left = situation.mask.copy()
        for row, decision in enumerate(made):
            taken = [self._taken[name] for name in decision.limits if name in self._taken]
            if not taken:
                continue
            forced, size = int(situation.forced[row]), left.shape[1]
            asked = left[row] if forced < 0 else np.arange(size) == forced
            by_limits = lawful[row]
            rest = np.ones(size, np.bool_) if by_limits is None else by_limits
            left[row] = leave(asked, rest & ~np.any(taken, axis=0), (), self._safe).mask
        return left
