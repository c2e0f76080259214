"""What the console's pages read from the ledger: a bounded number of rows each, or one scan of a
tenant's accounts. Each function makes a query for `Ledger.read`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from sqlalchemy import Connection, func, select, tuple_

from contract.adaptation import Phase
from service.ledger.records import Account, AccountKey, Decision, Feedback, Generation
from service.ledger.rows import find_feedback, to_account, to_decision, to_generation
from service.ledger.tables import accounts, decisions, feedback, generations, of_account

PAGE = 50
"""Rows of a table on a page."""
CHARTED = 200
"""Interactions of an account that its chart shows: the newest."""

Place = tuple[int, str]
"""Where a page begins: below this time, and at it below this id."""


@dataclass
class Standing:
    """Where a tenant's accounts of one workflow stand."""

    phases: Counter[str] = field(default_factory=Counter)
    adapted_at: Counter[int] = field(default_factory=Counter)
    """Accounts by the interaction at which they first adapted."""
    interactions: int = 0
    changed_us: int = 0
    """When one of them last learned something."""

    @property
    def accounts(self) -> int:
        """How many there are."""
        return self.phases.total()

    def quantile(self, share: float) -> int | None:
        """The interaction by which this share of those that ever adapted had; None: none did."""
        wanted = share * self.adapted_at.total()
        reached = 0
        for interaction, count in sorted(self.adapted_at.items()):
            reached += count
            if reached >= wanted:
                return interaction
        return None


def read_standings(
    tenant: str, workflow: str | None = None
) -> Callable[[Connection], dict[str, Standing]]:
    """Where all the tenant's accounts stand, by workflow: a scan of their rows."""
    columns = accounts.c
    by = columns.workflow, columns.phase, columns.adapted_at
    query = (
        select(*by, func.count(), func.sum(columns.position), func.max(columns.updated_at_us))
        .where(columns.tenant == tenant)
        .group_by(*by)
    )
    if workflow is not None:
        query = query.where(columns.workflow == workflow)

    def read(connection: Connection) -> dict[str, Standing]:
        found: dict[str, Standing] = {}
        for name, phase, adapted_at, count, interactions, changed in connection.execute(query):
            standing = found.setdefault(name, Standing())
            standing.phases[phase] += count
            if adapted_at is not None:
                standing.adapted_at[adapted_at] += count
            standing.interactions += int(interactions)
            standing.changed_us = max(standing.changed_us, changed)
        return found

    return read


def read_accounts(
    tenant: str, workflow: str, phase: Phase | None, before: Place | None
) -> Callable[[Connection], list[Account]]:
    """A page of a workflow's accounts, those that changed last first; one more row says that there
    are more."""
    columns = accounts.c
    place = columns.updated_at_us, columns.account_id
    query = (
        select(accounts)
        # Its own statistics say nothing of order: SQLite would sort all of a workflow's accounts.
        .with_hint(accounts, "INDEXED BY ix_accounts_updated_at_us", "sqlite")
        .where(columns.tenant == tenant, columns.workflow == workflow)
        .order_by(*(one.desc() for one in place))
        .limit(PAGE + 1)
    )
    if phase is not None:
        query = query.where(columns.phase == phase)
    if before is not None:
        query = query.where(columns.updated_at_us <= before[0], tuple_(*place) < tuple_(*before))
    return lambda connection: [to_account(row) for row in connection.execute(query)]


class Step(NamedTuple):
    """One decision, with what came of it."""

    decision: Decision
    came: list[Feedback]


def read_history(key: AccountKey, before: Place | None) -> Callable[[Connection], list[Step]]:
    """A page of an account's decisions, the newest first; one more row says that there are more."""
    columns = decisions.c
    place = columns.created_at_us, columns.decision_id
    query = (
        select(decisions)
        .where(*of_account(decisions, key))
        .order_by(*(one.desc() for one in place))
        .limit(PAGE + 1)
    )
    if before is not None:
        query = query.where(columns.created_at_us <= before[0], tuple_(*place) < tuple_(*before))

    def read(connection: Connection) -> list[Step]:
        found = [to_decision(row) for row in connection.execute(query)]
        came: dict[str, list[Feedback]] = {one.decision_id: [] for one in found}
        for given in find_feedback(connection, {(key.tenant, name) for name in came}):
            came[given.decision_id].append(given)
        return [Step(one, came[one.decision_id]) for one in found]

    return read


class Reward(NamedTuple):
    """What came of one interaction, and who decided it."""

    position: int
    reward: float
    by_policy: bool


def read_rewards(account: Account) -> Callable[[Connection], list[Reward]]:
    """The rewards of an account's newest interactions, each as it stands now, oldest first."""
    came, made = feedback.c, decisions.c
    head = account.head
    query = (
        select(came.position, came.folded_reward, made.reason)
        .join(decisions, (made.tenant == came.tenant) & (made.decision_id == came.decision_id))
        .where(
            *of_account(feedback, account.key),
            came.position > head.position - CHARTED,
            came.position <= head.position,
            came.generation.between(account.base_generation, head.generation),
        )
        .order_by(came.position, came.generation)
    )

    def read(connection: Connection) -> list[Reward]:
        newest = {row.position: row for row in connection.execute(query)}
        return [
            Reward(row.position, row.folded_reward, row.reason == "policy")
            for row in newest.values()
        ]

    return read


def read_generations(key: AccountKey) -> Callable[[Connection], list[Generation]]:
    """How an account's past was changed lately, the newest first."""
    columns = generations.c
    query = (
        select(generations)
        .where(*of_account(generations, key))
        .order_by(columns.generation.desc())
        .limit(10)
    )
    return lambda connection: [to_generation(key, row) for row in connection.execute(query)]


LONGEST_MOMENT = 18
"""Digits of a time in microseconds: what any database takes for an integer."""


def to_place(text: str) -> Place | None:
    """The place that `from_place` wrote; None where it did not."""
    at, _, name = text.partition("-")
    known = at.isascii() and at.isdigit() and len(at) <= LONGEST_MOMENT and name
    return (int(at), name) if known else None


def from_place(at_us: int, name: str) -> str:
    """A place as a part of an address."""
    return f"{at_us}-{name}"
