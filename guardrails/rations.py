"""What an account's own past leaves: limits on its facts, caps, cool-downs, what is due again.

They hold where a decision commits, under its account's lock, so that no two requests at once exceed
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from contract.spec import WorkflowSpec
from guardrails.conditions import Condition, ConditionTable, Facts, context_variables
from guardrails.limits import Allowed, leave, stated_limits
from guardrails.tally import Needs, Tally, together, uses_within


class _Cap(NamedTuple):
    """A cap or a cool-down, which is a cap of one."""

    name: str
    actions: frozenset[str]
    at_most: int
    window_us: int


class _Due(NamedTuple):
    """What has to be served again after a while."""

    name: str
    actions: frozenset[str]
    every_us: int
    when: Condition | None


class Rations:
    """Those of one workflow, compiled. Raises SpecError for a condition that does not compile."""

    def __init__(self, spec: WorkflowSpec) -> None:
        rules = spec.guardrails
        self._ids = spec.action_ids
        self._safe = np.array([one == rules.safe_action for one in self._ids])
        limits = [limit for limit in stated_limits(spec) if limit.of_account]
        self._limits = [limit.name for limit in limits]
        self._forbidden = ConditionTable(
            spec, [limit.condition(spec) for limit in limits], [limit.forbid for limit in limits]
        )
        self._caps = [
            _Cap(cap.name, frozenset(cap.actions), cap.at_most, _us(cap.window_seconds))
            for cap in rules.caps
        ] + [_Cap(one.name, frozenset(one.actions), 1, _us(one.seconds)) for one in rules.cooldowns]
        self._due = [
            _Due(rule.name, frozenset(rule.actions), _us(rule.every_seconds), _when(spec, i))
            for i, rule in enumerate(rules.required)
            if rule.every_seconds is not None
        ]
        self.needs: Needs = together(
            *(dict.fromkeys(cap.actions, (cap.at_most, cap.window_us))
              for cap in self._caps),
            *(dict.fromkeys(due.actions, (1, due.every_us)) for due in self._due),
        )  # fmt: skip
        """What a tally must know."""
        self.declared = bool(self._limits or self._caps or self._due)
        """Whether there is anything here to hold to."""

    def leave(
        self,
        allowed: Allowed,
        asked: NDArray[np.bool_],
        context: Mapping[str, Any],
        facts: Facts,
        tally: Tally,
        now_us: int,
    ) -> Allowed:
        """What is left of `allowed`, which is what the other limits left of what was `asked` `[K]`,
        with the names of all that took something of it."""
        taken = self._taken(context, facts, tally, now_us)
        if not taken:
            return allowed
        everything = np.ones(len(self._ids), np.bool_)
        lawful = everything if allowed.lawful is None else allowed.lawful
        applied = tuple(name for name, some in taken.items() if (some & asked).any())
        for some in taken.values():
            lawful = lawful & ~some
        return leave(asked, lawful, (*allowed.limits, *applied), self._safe)

    def over(self, action: str, tally: Tally, now_us: int) -> tuple[str, ...]:
        """Names of the caps and cool-downs that serving `action` now would exceed."""
        return tuple(
            cap.name
            for cap in self._caps
            if action in cap.actions
            and uses_within(tally, cap.actions, cap.window_us, now_us) >= cap.at_most
        )

    def refuse(
        self, action: str, context: Mapping[str, Any], facts: Facts, tally: Tally, now_us: int
    ) -> tuple[str, ...]:
        """Names of all that is against serving `action` now."""
        row = self._ids.index(action)
        taken = self._taken(context, facts, tally, now_us)
        return tuple(name for name, some in taken.items() if some[row])

    def _taken(
        self, context: Mapping[str, Any], facts: Facts, tally: Tally, now_us: int
    ) -> dict[str, NDArray[np.bool_]]:
        """What each takes away, `[K]`, by name; none that takes nothing."""
        found: dict[str, NDArray[np.bool_]] = {}
        if self._limits:
            # What cannot be evaluated forbids.
            (verdicts,) = self._forbidden.holds([context], facts)
            for i, name in enumerate(self._limits):
                found[name] = np.array([row[i] is not False for row in verdicts])
        for due in self._due:
            if self._is_due(due, context, facts, tally, now_us):
                found[due.name] = ~self._rows(due.actions)
        for cap in self._caps:
            if uses_within(tally, cap.actions, cap.window_us, now_us) >= cap.at_most:
                found[cap.name] = self._rows(cap.actions)
        return {name: taken for name, taken in found.items() if taken.any()}

    def _is_due(
        self, due: _Due, context: Mapping[str, Any], facts: Facts, tally: Tally, now_us: int
    ) -> bool:
        if uses_within(tally, due.actions, due.every_us, now_us):
            return False
        if due.when is None:
            return True
        return due.when.holds(context_variables(context) | facts.variables()) is not False

    def _rows(self, actions: frozenset[str]) -> NDArray[np.bool_]:
        return np.array([one in actions for one in self._ids])


def _when(spec: WorkflowSpec, i: int) -> Condition | None:
    when = spec.guardrails.required[i].when
    if when is None:
        return None
    field = f"guardrails.required.{i}.when"
    return Condition(spec, field, when, of_action=False, of_account=True)


def _us(seconds: float) -> int:
    return round(seconds * 1e6)
