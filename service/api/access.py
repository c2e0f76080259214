"""Which route needs which role. Every route says so, or the application does not start.

    who: AsCaller              decides, learns, reads its own tenant
    who: AsOperator            looks after its own tenant's accounts
    who: AsOperatorOfAll       acts on what is one for all tenants: rollouts, the kill switch
    who: AsAdmin               gives out keys
    dependencies=[OPEN]        asks for no key at all

`who.tenant` is whose accounts it is about, `who.name` who did it, for records. The key itself is
read before anything else of a request, in `service.api.gate`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.routing import BaseRoute
from starlette.types import Scope

from service.access.roles import ANYONE, Holder, Needs, Role, Who
from service.api.schemas import TENANT, TENANT_HEADER

HOLDER = "acclimate.holder"
"""Where the gate leaves, in a request's scope, whose key it came with."""

TenantHeader = Annotated[
    str | None,
    Header(
        alias=TENANT_HEADER,
        pattern=TENANT,
        description="Whose accounts these are, for a key of every tenant; `default` when it names "
        "none. Any other key's tenant is its own. Tenants see nothing of one another.",
    ),
]
_BEARER = HTTPBearer(
    scheme_name="key",
    description="A key from `acclimate keys create`. A service without keys needs none.",
    auto_error=False,
)


class _Admission:
    """FastAPI's dependency for one need."""

    def __init__(self, needs: Needs) -> None:
        self.needs = needs

    async def __call__(
        self, request: Request, key: Annotated[Any, Depends(_BEARER)], tenant: TenantHeader = None
    ) -> Who:
        return self.needs.admit(holder_of(request.scope), tenant)


async def _open() -> None:
    """Asks for nothing."""


AsCaller = Annotated[Who, Depends(_Admission(Needs(Role.caller)))]
AsOperator = Annotated[Who, Depends(_Admission(Needs(Role.operator)))]
AsOperatorOfAll = Annotated[Who, Depends(_Admission(Needs(Role.operator, every_tenant=True)))]
AsAdmin = Annotated[Who, Depends(_Admission(Needs(Role.admin)))]
OPEN = Depends(_open)


class UndeclaredError(Exception):
    """A route does not say who may use it."""


def holder_of(scope: Scope) -> Holder:
    """Whose key a request came with."""
    holder: Holder = scope.get(HOLDER, ANYONE)
    return holder


def needs_of(route: BaseRoute) -> Needs | None:
    """What a route needs; None: no key. Raises UndeclaredError."""
    calls = list(_calls(route.dependant)) if isinstance(route, APIRoute) else []
    if _open in calls:
        return None
    for call in calls:
        if isinstance(call, _Admission):
            return call.needs
    raise UndeclaredError(f"{getattr(route, 'path', route)}: expected a role, see {__name__}")


def _calls(dependant: Dependant) -> Iterator[Any]:
    for one in dependant.dependencies:
        yield one.call
        yield from _calls(one)


def describe(
    schema: dict[str, Any],
    needs_of_each: Iterable[tuple[BaseRoute, Needs | None]],
    refusals: Mapping[str, Any],
) -> None:
    """Writes into OpenAPI's `schema` which role each route needs, and how it refuses the others."""
    for route, needs in needs_of_each:
        if needs is None or not isinstance(route, APIRoute) or not route.include_in_schema:
            continue
        for method in route.methods or ():
            operation = schema["paths"][route.path_format][method.lower()]
            operation["x-role"] = needs.role.name
            operation["x-every-tenant"] = needs.every_tenant
            takes_body = method in ("POST", "PUT", "PATCH")
            for status, response in refusals.items():
                if takes_body or status != "413":
                    operation["responses"].setdefault(status, response)
