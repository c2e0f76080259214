"""Hard limits as an action mask: what is masked is never served, by policy or fallback."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from contract.spec import WorkflowSpec
from guardrails.conditions import Condition, ConditionTable

REMEMBERED = 1_000
"""Combinations of verdicts and of actions asked for whose outcome is remembered."""


class Allowed(NamedTuple):
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
        limits = spec.guardrails.limits
        self._names = [limit.name for limit in limits]
        conditions = [
            Condition(spec, f"guardrails.limits.{i}.forbid", limit.forbid, of_action=True)
            for i, limit in enumerate(limits)
        ]
        self._none = (False,) * len(limits)
        self._all = _fixed(np.ones(len(spec.actions), np.bool_))
        self._left = lru_cache(maxsize=REMEMBERED)(self._leave)
        self._forbidden = ConditionTable(spec, conditions, [limit.forbid for limit in limits])

    def allow(self, context: Mapping[str, Any], asked_for: Collection[str] | None) -> Allowed:
        """The mask for a checked context and the actions asked for (None: all of them).

        When nothing asked for is lawful: the safe action, if that is lawful; else the first action
        that is; and only when the limits forbid every action there is, the safe action all the
        same, for that is what it is declared for. A limit that cannot be evaluated forbids: a hard
        limit fails closed.
        """
        return self.allow_each([context], [asked_for])[0]

    def allow_each(
        self,
        contexts: Sequence[Mapping[str, Any]],
        asked_for: Sequence[Collection[str] | None],
    ) -> list[Allowed]:
        """`allow` for each of B contexts with the actions asked for there."""
        if not self._names:
            return [Allowed(self._asked(one), ()) for one in asked_for]
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
            return Allowed(self._asked(asked_for), ())
        asked = [asked_for is None or one in asked_for for one in self._ids]
        of_asked = list(itertools.compress(verdicts, asked))
        applied = tuple(
            name
            for i, name in enumerate(self._names)
            if any(verdict[i] is not False for verdict in of_asked)
        )
        mask = np.logical_and(asked, lawful)
        if mask.any():
            return Allowed(_fixed(mask), applied)
        safe = np.array([one == self._safe for one in self._ids])
        is_safe_lawful = bool((safe & lawful).any())
        instead = int(np.argmax(safe if is_safe_lawful or not any(lawful) else lawful))
        return Allowed(_fixed(np.arange(len(asked)) == instead), applied, exhausted=True)

    def _asked(self, asked_for: Collection[str] | None) -> NDArray[np.bool_]:
        if asked_for is None:
            return self._all
        return _fixed(np.array([one in asked_for for one in self._ids]))


def _fixed(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask, for many to read."""
    mask.setflags(write=False)
    return mask
