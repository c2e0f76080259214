"""Who asks, and for whom: the role and the tenant that a request's key stands for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

EVERY_TENANT: Final = "*"
"""What a key's tenant is when it may name any: for those who run the installation."""
DEFAULT_TENANT: Final = "default"
"""Whose accounts a key of every tenant asks for when it names nobody."""


class Role(IntEnum):
    """What a key may do. Each may do what those before it may."""

    caller = 1
    """Decide, learn, and read what came of it."""
    operator = 2
    """Look after accounts: reset, rebuild, export, erase, verify. With every tenant: rollouts,
    alarms and the kill switch too, which are one for all tenants."""
    admin = 3
    """Give out and revoke keys."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Whoever a key was given to."""

    name: str
    """Who did it, for records: `deploy-bot (3f9a60c2d41b7e85)`."""
    role: Role
    tenant: str
    """Theirs, or EVERY_TENANT."""


@dataclass(frozen=True, slots=True)
class Who:
    """Who asks, and whose accounts they ask for."""

    name: str
    role: Role
    tenant: str
    holder: Holder


ANYONE = Holder("anyone", Role.admin, EVERY_TENANT)
"""Whoever asks a service that needs no keys: it is their own machine."""


class ForbiddenError(Exception):
    """Whoever asks is known and may not. `expected` says who may."""

    def __init__(self, field: str, expected: str) -> None:
        super().__init__(f"{field}: expected {expected}")
        self.field = field
        self.expected = expected


@dataclass(frozen=True, slots=True)
class Needs:
    """What a route needs of a key: a role, and where it touches all tenants, one of them all."""

    role: Role
    every_tenant: bool = False

    def admit(self, holder: Holder, tenant: str | None) -> Who:
        """Who asks, naming a tenant or none. Raises ForbiddenError."""
        if holder.role < self.role:
            raise ForbiddenError("Authorization", f"a key of role {self.role.name}")
        if holder.tenant == EVERY_TENANT:
            return Who(holder.name, holder.role, tenant or DEFAULT_TENANT, holder)
        if self.every_tenant:
            raise ForbiddenError("Authorization", "a key of every tenant: this is one for all")
        if tenant is not None and tenant != holder.tenant:
            raise ForbiddenError("X-Acclimate-Tenant", "the key's own tenant, or no such header")
        return Who(holder.name, holder.role, holder.tenant, holder)
