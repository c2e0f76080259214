"""Hard limits as an action mask: what is masked is never served, by policy or fallback.

These are the limits that context and action decide alone; those that ask something of the account
are `guardrails.rations`'s.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from contract.spec import WorkflowSpec
from guardrails.conditions import Condition, ConditionTable, names_account

REMEMBERED = 1_000
"""Combinations of verdicts and of actions asked for whose outcome is remembered."""


class Stated(NamedTuple):
    """A limit, or what is required put as one: the actions that it forbids."""

    name: str
    field: str
    """Of the expression as the file has it."""
    expression: str
    """The file's."""
    forbid: str
    """True of the actions that are forbidden."""
    of_action: bool
    """Whether the file's expression may name the action."""
    of_account: bool
    """Whether it asks something of the account."""

    def condition(self, spec: WorkflowSpec) -> Condition:
        """What forbids, compiled."""
        return Condition(spec, self.field, self.forbid, of_action=True, of_account=True)


def stated_limits(spec: WorkflowSpec) -> list[Stated]:
    """The limits, and what is required whenever a condition holds, in the file's order. Raises
    SpecError for one that does not compile."""
    found = []
    for i, limit in enumerate(spec.guardrails.limits):
        field = f"guardrails.limits.{i}.forbid"
        Condition(spec, field, limit.forbid, of_action=True, of_account=True)
        asks = names_account(spec, limit.forbid, of_action=True)
        found.append(Stated(limit.name, field, limit.forbid, limit.forbid, True, asks))
    for i, rule in enumerate(spec.guardrails.required):
        if rule.when is None or rule.every_seconds is not None:
            continue
        field = f"guardrails.required.{i}.when"
        Condition(spec, field, rule.when, of_action=False, of_account=True)
        asks = names_account(spec, rule.when, of_action=False)
        forbid = f"(\n{rule.when}\n) && !(action.id in {json.dumps(rule.actions)})"
        found.append(Stated(rule.name, field, rule.when, forbid, False, asks))
    return found


class Allowed(NamedTuple):
    """What the limits leave of the actions that were asked for."""

    mask: NDArray[np.bool_]
    """`[K]`, True where the action may be served."""
    limits: tuple[str, ...]
    """Names of the limits that forbade an action that was asked for, in declared order."""
    exhausted: bool = False
    """Nothing that was asked for was left, and the mask holds one action in its place."""
    lawful: NDArray[np.bool_] | None = None
    """`[K]`, what no limit forbids, asked for or not; None: all there is."""


def leave(
    asked: NDArray[np.bool_],
    lawful: NDArray[np.bool_],
    applied: tuple[str, ...],
    safe: NDArray[np.bool_],
) -> Allowed:
    """What is left of what was `asked` `[K]` and is `lawful` `[K]`; `safe` `[K]` marks the safe
    action.

    When nothing asked for is lawful: the safe action, if that is; else the first action that is;
    and only when nothing there is is lawful, the safe action all the same, for that is what it is
    declared for.
    """
    mask = asked & lawful
    if mask.any():
        return Allowed(_fixed(mask), applied, lawful=lawful)
    take_safe = bool((safe & lawful).any()) or not lawful.any()
    instead = int(np.argmax(safe if take_safe else lawful))
    return Allowed(_fixed(np.arange(len(asked)) == instead), applied, True, lawful)


class Limits:
    """The limits of one workflow, compiled. Raises SpecError for one that does not compile."""

    def __init__(self, spec: WorkflowSpec) -> None:
        self._ids = spec.action_ids
        self._safe = np.array([one == spec.guardrails.safe_action for one in self._ids])
        limits = [limit for limit in stated_limits(spec) if not limit.of_account]
        self._names = [limit.name for limit in limits]
        conditions = [limit.condition(spec) for limit in limits]
        self._none = (False,) * len(limits)
        self._all = _fixed(np.ones(len(spec.actions), np.bool_))
        self._left = lru_cache(maxsize=REMEMBERED)(self._leave)
        self._forbidden = ConditionTable(spec, conditions, [limit.forbid for limit in limits])

    def allow(self, context: Mapping[str, Any], asked_for: Collection[str] | None) -> Allowed:
        """The mask for a checked context and the actions asked for (None: all of them).

        A limit that cannot be evaluated forbids: a hard limit fails closed. Where nothing is left,
        `leave` says what is served.
        """
        return self.allow_each([context], [asked_for])[0]

    def allow_each(
        self,
        contexts: Sequence[Mapping[str, Any]],
        asked_for: Sequence[Collection[str] | None],
    ) -> list[Allowed]:
        """`allow` for each of B contexts with the actions asked for there."""
        if not self._names:
            return [Allowed(self.asked(one), ()) for one in asked_for]
        return [
            self._left(tuple(map(tuple, verdicts)), None if one is None else frozenset(one))
            for verdicts, one in zip(self._forbidden.holds(contexts), asked_for, strict=True)
        ]

    def _leave(
        self, verdicts: tuple[tuple[bool | None, ...], ...], asked_for: frozenset[str] | None
    ) -> Allowed:
        """What these verdicts `[K][limits]` leave of what was asked for."""
        lawful = [limits == self._none for limits in verdicts]
        if all(lawful):
            return Allowed(self.asked(asked_for), ())
        asked = [asked_for is None or one in asked_for for one in self._ids]
        of_asked = list(itertools.compress(verdicts, asked))
        applied = tuple(
            name
            for i, name in enumerate(self._names)
            if any(verdict[i] is not False for verdict in of_asked)
        )
        return leave(np.array(asked), _fixed(np.array(lawful)), applied, self._safe)

    def asked(self, asked_for: Collection[str] | None) -> NDArray[np.bool_]:
        """`[K]`, True for what was asked for (None: everything)."""
        if asked_for is None:
            return self._all
        return _fixed(np.array([one in asked_for for one in self._ids]))


def _fixed(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask, for many to read."""
    mask.setflags(write=False)
    return mask
