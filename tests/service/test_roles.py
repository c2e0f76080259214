"""Who a key lets in, and as whom; and that no route forgets to say whom it lets in."""

from __future__ import annotations

import pytest
from fastapi import APIRouter

from service.access.roles import EVERY_TENANT, ForbiddenError, Holder, Needs, Role
from service.api import access, health, routes


def holder(role: Role, tenant: str = "acme") -> Holder:
    return Holder(f"{role.name} (0)", role, tenant)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("needed", Role)
def test_a_role_may_do_what_those_before_it_may(role: Role, needed: Role) -> None:
    needs = Needs(needed)
    if role >= needed:
        assert needs.admit(holder(role), None).name == f"{role.name} (0)"
    else:
        with pytest.raises(ForbiddenError, match=f"a key of role {needed.name}"):
            needs.admit(holder(role), None)


@pytest.mark.parametrize(
    ("of", "named", "whose"),
    [
        ("acme", None, "acme"),
        ("acme", "acme", "acme"),
        (EVERY_TENANT, None, "default"),
        (EVERY_TENANT, "acme", "acme"),
    ],
)
def test_the_tenant_is_the_keys_own_and_a_key_of_every_tenant_names_one(
    of: str, named: str | None, whose: str
) -> None:
    assert Needs(Role.caller).admit(holder(Role.caller, of), named).tenant == whose


def test_a_key_that_names_another_tenant_is_refused() -> None:
    with pytest.raises(ForbiddenError, match="X-Acclimate-Tenant"):
        Needs(Role.caller).admit(holder(Role.admin), "other")


def test_what_is_one_for_all_tenants_needs_a_key_of_every_tenant() -> None:
    needs = Needs(Role.operator, every_tenant=True)
    with pytest.raises(ForbiddenError, match="every tenant"):
        needs.admit(holder(Role.admin), None)
    assert needs.admit(holder(Role.operator, EVERY_TENANT), "acme").tenant == "acme"


def test_a_route_says_what_it_needs() -> None:
    assert access.needs_of(routes.hot.routes[0]) == Needs(Role.caller)
    assert access.needs_of(health.router.routes[0]) is None


def test_a_route_that_does_not_say_what_it_needs_is_refused_at_the_start() -> None:
    router = APIRouter()

    @router.post("/v1/forgotten")
    async def forgotten() -> None: ...

    with pytest.raises(access.UndeclaredError, match="/v1/forgotten: expected a role"):
        access.needs_of(router.routes[0])
