"""Every route by every kind of key: who is let in, who is not, and that a refusal changes nothing.

The routes are the application's: one that is not in the table here fails.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

import httpx
import pytest
from fastapi.routing import APIRoute
from sqlalchemy import Connection, select

from service.access.roles import EVERY_TENANT, Role
from service.api.access import needs_of
from service.api.console_session import form_token
from service.app import OPENAPI, ROUTERS
from service.ledger import tables
from service.ledger.keys import KeyRow, add_key
from tests.service.conftest import Client, Open
from tests.service.test_keys import add, bearer, key_row
from tests.service.test_server import ANSWERS, KEY_ID, PICTURE, add_alarm

ACCOUNT = "/v1/workflows/{workflow}/accounts/{account_id}"
ANYBODY, CALLER, OPERATOR = "anybody", "caller", "operator"
OPERATOR_OF_ALL, ADMIN = "of-all", "admin"

WHO_MAY = {
    "POST /v1/workflows/{workflow}/decisions": CALLER,
    "POST /v1/workflows/{workflow}/decisions/batch": CALLER,
    "POST /v1/workflows/{workflow}/decisions/picture": CALLER,
    "POST /v1/decisions/{decision_id}/feedback": CALLER,
    "POST /v1/feedback/batch": CALLER,
    "POST /v1/decisions/{decision_id}/activate": CALLER,
    "GET /v1/decisions/{decision_id}": CALLER,
    f"GET {ACCOUNT}": CALLER,
    "GET /v1/workflows": CALLER,
    "GET /v1/workflows/{workflow}": CALLER,
    f"POST {ACCOUNT}/reset": OPERATOR,
    f"POST {ACCOUNT}/rebuild": OPERATOR,
    f"GET {ACCOUNT}/export": OPERATOR,
    f"DELETE {ACCOUNT}": OPERATOR,
    "GET /v1/workflows/{workflow}/verification": OPERATOR,
    "POST /v1/workflows/{workflow}/rebuild": OPERATOR,
    "GET /v1/alarms": OPERATOR,
    "GET /v1/alarms/{alarm_id}": OPERATOR,
    "POST /v1/alarms/{alarm_id}/acknowledge": OPERATOR,
    "POST /v1/alarms/{alarm_id}/clear": OPERATOR,
    "POST /v1/keys": ADMIN,
    "GET /v1/keys": ADMIN,
    "POST /v1/keys/{key_id}/rotate": ADMIN,
    "POST /v1/keys/{key_id}/revoke": ADMIN,
    "POST /v1/rollouts": OPERATOR_OF_ALL,
    "GET /v1/rollouts": OPERATOR_OF_ALL,
    "GET /v1/rollouts/{rollout_id}": OPERATOR_OF_ALL,
    "POST /v1/rollouts/{rollout_id}/advance": OPERATOR_OF_ALL,
    "POST /v1/rollouts/{rollout_id}/approve": OPERATOR_OF_ALL,
    "POST /v1/rollouts/{rollout_id}/pause": OPERATOR_OF_ALL,
    "POST /v1/rollouts/{rollout_id}/resume": OPERATOR_OF_ALL,
    "POST /v1/rollouts/{rollout_id}/roll-back": OPERATOR_OF_ALL,
    "GET /v1/kill-switch": OPERATOR_OF_ALL,
    "PUT /v1/kill-switch": OPERATOR_OF_ALL,
    "GET /v1/audit": OPERATOR_OF_ALL,
    "GET /livez": ANYBODY,
    "GET /startupz": ANYBODY,
    "HEAD /livez": ANYBODY,
    "HEAD /startupz": ANYBODY,
    "GET /readyz": ANYBODY,
    "HEAD /readyz": ANYBODY,
    "GET /metrics": ANYBODY,
    "GET /docs": ANYBODY,
    "GET /docs/{asset}": ANYBODY,
    "GET /console": CALLER,
    "GET /console/workflows/{workflow}": CALLER,
    "GET /console/workflows/{workflow}/accounts": OPERATOR,
    "GET /console/workflows/{workflow}/accounts/{account_id}": OPERATOR,
    "GET /console/alarms": OPERATOR,
    "POST /console/alarms/{alarm_id}/{button}": OPERATOR,
    "GET /console/rollouts": OPERATOR_OF_ALL,
    "GET /console/rollouts/{rollout_id}": OPERATOR_OF_ALL,
    "POST /console/rollouts/{rollout_id}/{button}": OPERATOR_OF_ALL,
    "GET /console/kill-switch": OPERATOR_OF_ALL,
    "POST /console/kill-switch": OPERATOR_OF_ALL,
    "POST /console/tenant": CALLER,
    "GET /console/sign-in": ANYBODY,
    "POST /console/sign-in": ANYBODY,
    "POST /console/sign-out": ANYBODY,
    "GET /console/assets/{name}": ANYBODY,
}

MAY = {
    None: {ANYBODY},
    Role.caller: {ANYBODY, CALLER},
    Role.operator: {ANYBODY, CALLER, OPERATOR},
    Role.admin: {ANYBODY, CALLER, OPERATOR, ADMIN},
}
"""What a key of one tenant may; of every tenant, an operator and an admin may `of-all` too."""


OF_A_TENANT = ("{decision_id}", "{account_id}", "{key_id}", "{alarm_id}")
"""What a path names that is one tenant's alone."""


class Asked(NamedTuple):
    """One request to one route."""

    route: str
    method: str
    address: str
    body: Any
    form: Mapping[str, str] | None = None
    """In place of a body: what a form of the console's says."""


def app_routes() -> list[tuple[str, APIRoute]]:
    """Every route that the application serves, by method and path."""
    return [
        (f"{method} {route.path}", route)
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in sorted(route.methods or ())
    ]


def requests() -> list[Asked]:
    """One of each, for what the fixture made; those that end something come last."""
    asked = []
    for name, _ in app_routes():
        method, path = name.split(" ", 1)
        lower = "get" if method == "HEAD" else method.lower()
        address, body = path.replace("{asset}", "swagger-ui.css"), None
        if (lower, path) == PICTURE:
            address = "/v1/workflows/help/decisions/picture?account_id=a"
        elif (lower, path) in ANSWERS:
            address, body, _ = ANSWERS[lower, path]
        elif path.startswith("/console"):
            address = console_address(path)
        asked.append(Asked(name, method, address, body, FORMS.get(name)))
    return sorted(asked, key=lambda one: one.method == "DELETE" or "revoke" in one.address)


FORMS = {
    "POST /console/alarms/{alarm_id}/{button}": {},
    "POST /console/rollouts/{rollout_id}/{button}": {"why": "to see"},
    "POST /console/kill-switch": {"why": "to see", "scope": "help", "to": "on"},
    "POST /console/tenant": {"tenant": "acme"},
    "POST /console/sign-in": {"key": "acclimate_0_nobody"},
    "POST /console/sign-out": {},
}


def console_address(path: str) -> str:
    """One of the console's addresses, of what the fixture made."""
    names = {"workflow": "help", "account_id": "a", "name": "console.css", "button": "clear"}
    if "{rollout_id}" in path:
        names["button"] = "pause"
    return path.format_map(names | {"rollout_id": "0" * 16, "alarm_id": "0" * 32})


async def ask(client: Client, one: Asked) -> httpx.Response:
    """The answer to it; a form carries the token that its session's pages have."""
    if one.form is None:
        return await client.http.request(one.method, one.address, json=one.body)
    secret = client.service.settings.draw_key()
    token = form_token(secret, client.http.headers.get("Authorization", ""))
    return await client.http.request(one.method, one.address, data={**one.form, "token": token})


@pytest.fixture
async def acme(open_client: Open) -> AsyncIterator[Client]:
    """A service that wants keys, with a decision, an account and a key of the tenant `acme`."""
    async with open_client(access="keys") as client:
        row, key = key_row("acme's", Role.caller, "acme")
        await add(client.service, row)
        client.http.headers.update(bearer(key))
        made = await client.http.post(
            "/v1/workflows/help/decisions",
            json=ANSWERS["post", "/v1/workflows/{workflow}/decisions"][1] | {"decision_id": "d"},
        )
        assert made.status_code == 200, made.text
        del client.http.headers["Authorization"]
        known = KeyRow(KEY_ID, "known", "caller", "acme", "0" * 64, 1, "test")
        await client.service.ledger.change(add_key(known))
        await client.service.ledger.change(add_alarm("acme"))
        yield client


async def holding(client: Client, role: Role | None, tenant: str) -> None:
    """From now on the client holds such a key, and names the tenant `acme` where it has to."""
    client.http.headers.pop("Authorization", None)
    client.http.headers.pop("X-Acclimate-Tenant", None)
    if role is not None:
        row, key = key_row("k", role, tenant)
        await add(client.service, row)
        client.http.headers.update(bearer(key))
        if tenant == EVERY_TENANT:
            client.http.headers["X-Acclimate-Tenant"] = "acme"


def contents(connection: Connection) -> dict[str, Any]:
    """Everything in the ledger."""
    return {
        table.name: connection.execute(select(table)).all()
        for table in tables.metadata.sorted_tables
    }


def test_every_route_is_in_the_table_and_declares_what_it_says() -> None:
    declared = {}
    for name, route in app_routes():
        needs = needs_of(route)
        if needs is None:
            declared[name] = ANYBODY
        else:
            declared[name] = OPERATOR_OF_ALL if needs.every_tenant else needs.role.name
    assert declared == WHO_MAY


KINDS = [
    (None, ""),
    *((role, tenant) for tenant in ("acme", EVERY_TENANT) for role in Role),
]


@pytest.mark.parametrize(("role", "tenant"), KINDS)
async def test_each_kind_of_key_may_what_the_table_says_and_no_more(
    acme: Client, role: Role | None, tenant: str
) -> None:
    await holding(acme, role, tenant)
    may = set(MAY[role])
    if tenant == EVERY_TENANT and role is not Role.caller:
        may.add(OPERATOR_OF_ALL)
    before = await acme.service.ledger.read(contents)
    refused = [one for one in requests() if WHO_MAY[one.route] not in may]
    for one in refused:
        answer = await ask(acme, one)
        assert answer.status_code == (401 if role is None else 403), one
        assert answer.headers["content-type"] == "application/problem+json", one
    assert await acme.service.ledger.read(contents) == before
    for one in requests():
        if one not in refused:
            answer = await ask(acme, one)
            assert answer.status_code not in (401, 403), (one, answer.text)
            assert answer.status_code < 500, (one, answer.text)


@pytest.mark.parametrize("role", Role)
async def test_to_another_tenants_key_what_is_acmes_is_not_there(acme: Client, role: Role) -> None:
    await holding(acme, role, "other")
    before = await acme.service.ledger.read(contents)
    asked = [
        one
        for one in requests()
        if WHO_MAY[one.route] in MAY[role] and any(name in one.route for name in OF_A_TENANT)
    ]
    assert len(asked) >= 4
    for one in asked:
        answer = await ask(acme, one)
        assert answer.status_code == 404, one
    for path in ("/v1/workflows/help/verification", "/v1/keys", "/v1/alarms"):
        answer = await acme.http.get(path)
        if answer.status_code == 200:
            assert "acme" not in answer.text
            assert answer.json().get("accounts", 0) == 0
    assert await acme.service.ledger.read(contents) == before


async def test_nothing_is_served_that_is_not_in_the_table(acme: Client) -> None:
    described = (await acme.http.get(OPENAPI)).json()["paths"]
    assert {
        f"{method.upper()} {path}" for path, methods in described.items() for method in methods
    } <= set(WHO_MAY)
    for path in ("/redoc", "/docs/oauth2-redirect", "/docs/core.py", "/openapi.yaml", "/static"):
        assert (await acme.http.get(path)).status_code == 401, path
