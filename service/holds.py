"""Where open alarms have the fallback decide, as this process last saw it. It decides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from contract.buckets import buckets_of
from contract.spec import WorkflowSpec
from service.ledger.alarms import Alarm
from service.ledger.records import AccountKey


class _Held(NamedTuple):
    accounts: frozenset[AccountKey]
    workflows: frozenset[tuple[str, str, str]]
    """With the policy that it is about: another one is not held."""
    buckets: frozenset[tuple[str, str, str, str]]


class Holds:
    """What is held back from its policy. With the ledger down, what was seen last stays."""

    def __init__(self) -> None:
        self._held: _Held | None = None

    def see(self, alarms: Iterable[Alarm]) -> None:
        """Told of every open alarm whose consequence is to fall back."""
        found = list(alarms)
        held = _Held(
            frozenset(
                AccountKey(one.tenant, one.workflow, one.account_id)
                for one in found
                if one.scope == "account"
            ),
            frozenset(
                (one.tenant, one.workflow, one.policy) for one in found if one.scope == "workflow"
            ),
            frozenset(
                (one.tenant, one.workflow, one.policy, one.bucket)
                for one in found
                if one.scope == "bucket"
            ),
        )
        self._held = held if found else None

    def __bool__(self) -> bool:
        return self._held is not None

    def hold(
        self, spec: WorkflowSpec, policy: str, key: AccountKey, context: Mapping[str, Any]
    ) -> bool:
        """Whether the fallback is to decide in this policy's place for this account in this
        context."""
        held = self._held
        if held is None:
            return False
        crowd = (*key[:2], policy)
        if key in held.accounts or crowd in held.workflows:
            return True
        if not held.buckets:
            return False
        return any((*crowd, one) in held.buckets for one in buckets_of(spec, context))
