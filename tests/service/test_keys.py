"""Keys: shown once, kept as hashes, valid until revoked or expired, and told apart by role and
tenant; what a service does that has none."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.access.keys import Keyring, digest, new_key
from service.access.roles import EVERY_TENANT, Role
from service.app import create_app
from service.ledger.keys import KeyRow
from service.ledger.records import LedgerUnavailableError
from service.runtime import Service, open_service
from service.settings import SettingError, Settings
from tests.service.conftest import CONTEXT, Client, Open, Time

ADMIN = "an-admin-key-for-these-tests-alone"
DECISIONS = "/v1/workflows/help/decisions"
DAY = 86_400


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
async def locked(open_client: Open, settings: Settings) -> AsyncIterator[Client]:
    """A service that wants keys, asked by its admin."""
    locked = Settings.model_validate(settings.model_dump() | {"admin_key": ADMIN, "access": None})
    async with open_client(admin_key=locked.admin_key, access=None) as client:
        client.http.headers.update(bearer(ADMIN))
        yield client


async def give(client: Client, **body: Any) -> dict[str, Any]:
    answer = await client.http.post("/v1/keys", json={"name": "test"} | body)
    assert answer.status_code == 201, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def decide(client: Client, key: str | None, **headers: str) -> httpx.Response:
    given = {} if key is None else bearer(key)
    client.http.headers.pop("Authorization", None)
    try:
        body = {"account_id": "a", "context": CONTEXT}
        return await client.http.post(DECISIONS, json=body, headers=given | headers)
    finally:
        client.http.headers.update(bearer(ADMIN))


async def test_a_key_is_shown_once_and_only_its_hash_is_kept(
    locked: Client, settings: Settings
) -> None:
    given = await give(locked, name="checkout", tenant="acme")
    key = given["key"]
    assert (given["role"], given["tenant"], given["valid"]) == ("caller", "acme", True)
    assert (await decide(locked, key)).status_code == 200
    listed = (await locked.http.get("/v1/keys")).text
    assert given["key_id"] in listed
    assert key not in listed
    secret = key.split("_", 2)[2]
    held = b"".join(path.read_bytes() for path in settings.data_dir.iterdir())
    assert secret.encode() not in held
    with sqlite3.connect(settings.data_dir / "ledger.sqlite") as ledger:
        [(kept,)] = ledger.execute("SELECT sha256 FROM api_keys").fetchall()
    assert kept == digest(key.encode()).hex()


def test_keys_are_random_and_long() -> None:
    keys = {new_key().text for _ in range(1_000)}
    assert len(keys) == 1_000
    assert {len(key.rpartition("_")[2]) >= 43 or "_" in key[27:] for key in keys} == {True}


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer nonsense",
        "Bearer acclimate_0123456789abcdef_secret",
        "Basic {key}",
        "{key}",
        "Bearer {key}x",
        "Bearer {key} {key}",
        "Bearer {changed}",
        "Bearer " + "x" * 100_000,
    ],
)
async def test_without_a_valid_key_nothing_is_answered_but_401(
    locked: Client, header: str | None
) -> None:
    key = (await give(locked))["key"]
    changed = key[:-1] + ("a" if key[-1] != "a" else "b")
    headers = {"Authorization": header.format(key=key, changed=changed)} if header else {}
    for path in (DECISIONS, "/v1/nowhere", "/v1/workflows", "/"):
        answer = await decide(locked, None, **headers)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"] == "urn:acclimate:problem:unauthenticated"
        assert key not in answer.text
    assert (await decide(locked, None, Authorization=f"bearer  {key}")).status_code == 200


async def test_two_keys_at_once_are_none(locked: Client) -> None:
    key = (await give(locked))["key"]
    two = [(b"Authorization", f"Bearer {key}".encode())] * 2
    del locked.http.headers["Authorization"]
    assert (await locked.http.get("/v1/workflows", headers=two)).status_code == 401
    assert (await locked.http.get("/v1/workflows", headers=two[:1])).status_code == 200


async def test_health_asks_for_no_key(locked: Client) -> None:
    del locked.http.headers["Authorization"]
    for path in ("/livez", "/readyz", "/metrics", "/openapi.json"):
        assert (await locked.http.get(path)).status_code == 200, path


async def test_metrics_ask_for_a_key_where_that_is_set(open_client: Open) -> None:
    async with open_client(access="keys", metrics_need_key=True) as client:
        row, key = key_row("prometheus", Role.caller)
        await add(client.service, row)
        assert (await client.http.get("/metrics")).status_code == 401
        assert (await client.http.get("/metrics", headers=bearer(key))).status_code == 200


async def test_a_revoked_key_is_refused_at_once_and_revoking_again_changes_nothing(
    locked: Client, time: Time
) -> None:
    given = await give(locked)
    path = f"/v1/keys/{given['key_id']}/revoke"
    assert (await decide(locked, given["key"])).status_code == 200
    revoked = (await locked.http.post(path)).json()
    assert (revoked["valid"], revoked["revoked_by"]) == (False, "ACCLIMATE_ADMIN_KEY")
    assert (await decide(locked, given["key"])).status_code == 401
    time.pass_seconds(5)
    assert (await locked.http.post(path)).json() == revoked
    unknown = await locked.http.post("/v1/keys/0123456789abcdef/revoke")
    assert (unknown.status_code, unknown.json()["errors"][0]["field"]) == (404, "key_id")


async def test_an_expired_key_is_refused_from_that_moment(locked: Client, time: Time) -> None:
    given = await give(locked, expires_in_days=1.0)
    time.pass_seconds(DAY - 1)
    assert (await decide(locked, given["key"])).status_code == 200
    time.pass_seconds(1)
    assert (await decide(locked, given["key"])).status_code == 401
    [listed] = (await locked.http.get("/v1/keys")).json()["keys"]
    assert (listed["valid"], listed["revoked_at"]) == (False, None)


async def test_rotation_keeps_both_keys_valid_for_the_overlap(locked: Client, time: Time) -> None:
    old = await give(locked, name="checkout", role="operator", tenant="acme")
    path = f"/v1/keys/{old['key_id']}/rotate"
    answer = (await locked.http.post(path, json={"overlap_days": 2.0})).json()
    new = answer["new"]
    assert [new[name] for name in ("name", "role", "tenant", "rotated_from")] == [
        "checkout",
        "operator",
        "acme",
        old["key_id"],
    ]
    for key in (old["key"], new["key"]):
        assert (await decide(locked, key)).status_code == 200
    time.pass_seconds(2 * DAY)
    assert (await decide(locked, old["key"])).status_code == 401
    assert (await decide(locked, new["key"])).status_code == 200
    assert (await locked.http.post(path, json={})).status_code == 404  # it is over


async def test_rotation_prolongs_no_key_and_gives_the_new_one_as_long_as_the_old_one_had(
    locked: Client, time: Time
) -> None:
    old = await give(locked, expires_in_days=10.0)
    time.pass_seconds(9 * DAY)
    path = f"/v1/keys/{old['key_id']}/rotate"
    answer = (await locked.http.post(path, json={"overlap_days": 30.0})).json()
    assert answer["old"]["expires_at"] == old["expires_at"]
    time.pass_seconds(9 * DAY)
    assert (await decide(locked, old["key"])).status_code == 401
    assert (await decide(locked, answer["new"]["key"])).status_code == 200
    time.pass_seconds(DAY)
    assert (await decide(locked, answer["new"]["key"])).status_code == 401


async def test_what_one_replica_revokes_the_others_refuse_within_their_refresh(
    open_client: Open, database: str, time: Time
) -> None:
    shared = {"ledger_url": database, "access": "keys"}
    async with open_client(**shared) as one, open_client(**shared) as other:
        row, key = key_row("k", Role.admin)
        await add(one.service, row)
        assert (await other.http.get("/v1/workflows", headers=bearer(key))).status_code == 200
        answer = await one.http.post(f"/v1/keys/{row.key_id}/revoke", headers=bearer(key))
        assert answer.status_code == 200, answer.text
        assert (await one.http.get("/v1/workflows", headers=bearer(key))).status_code == 401
        await other.service.keyring.refresh()  # what its task does every few seconds
        assert (await other.http.get("/v1/workflows", headers=bearer(key))).status_code == 401


async def test_keys_are_refreshed_as_often_as_is_said(open_client: Open) -> None:
    async with open_client(schedule=True, access="keys", key_refresh_seconds=0.05) as client:
        row, key = key_row("k", Role.caller)
        await add(client.service, row)
        assert (await client.http.get("/v1/workflows", headers=bearer(key))).status_code == 200
        await client.service.ledger.change(
            lambda connection: connection.exec_driver_sql("UPDATE api_keys SET revoked_at_us = 1")
        )
        for _ in range(100):
            answer = await client.http.get("/v1/workflows", headers=bearer(key))
            if answer.status_code == 401:
                break
            await asyncio.sleep(0.05)
        assert answer.status_code == 401


def key_row(name: str, role: Role, tenant: str = EVERY_TENANT) -> tuple[KeyRow, str]:
    key = new_key()
    row = KeyRow(key.key_id, name, role.name, tenant, key.sha256, Time().now, "test")
    return row, key.text


async def add(service: Service, row: KeyRow) -> None:
    from service.ledger.keys import add_key

    await service.ledger.change(add_key(row))


async def test_while_the_ledger_cannot_be_read_known_keys_stay_and_others_get_503(
    locked: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = (await give(locked))["key"]
    unknown = new_key().text

    async def fail(_: object) -> None:
        raise LedgerUnavailableError("no")

    monkeypatch.setattr(locked.service.ledger, "read", fail)
    ring = locked.service.keyring
    for _ in range(2):
        with pytest.raises(LedgerUnavailableError):
            await ring.refresh()
        assert ring.holder(key.encode()) is not None
        answer = await locked.http.get("/v1/workflows", headers=bearer(unknown))
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"


async def test_unknown_keys_do_not_make_it_read_the_ledger_again_and_again(
    locked: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = 0
    read = locked.service.ledger.read

    async def count(query: Any) -> Any:
        nonlocal reads
        reads += 1
        return await read(query)

    monkeypatch.setattr(locked.service.ledger, "read", count)
    asked = [locked.http.get("/v1/workflows", headers=bearer(new_key().text)) for _ in range(200)]
    assert {answer.status_code for answer in await asyncio.gather(*asked)} == {401}
    assert reads == 1


async def test_a_key_reaches_its_own_tenant_alone(locked: Client) -> None:
    acme, other = [(await give(locked, tenant=name))["key"] for name in ("acme", "other")]
    every = (await give(locked, tenant="*"))["key"]
    decision = (await decide(locked, acme)).json()["decision_id"]
    paths = (f"/v1/decisions/{decision}", "/v1/workflows/help/accounts/a")
    for path in paths:
        for key, tenant, status in (
            (acme, None, 200),
            (acme, "acme", 200),
            (acme, "other", 403),
            (other, None, 404),
            (other, "acme", 403),
            (every, None, 404),
            (every, "acme", 200),
        ):
            named = {"X-Acclimate-Tenant": tenant} if tenant else {}
            answer = await locked.http.get(path, headers=bearer(key) | named)
            assert answer.status_code == status, (path, tenant)
    fed = await locked.http.post(
        f"/v1/decisions/{decision}/feedback", json={"reward": 1}, headers=bearer(other)
    )
    assert fed.status_code == 404


async def test_an_admin_of_one_tenant_sees_and_gives_that_tenants_keys_alone(
    locked: Client,
) -> None:
    mine = await give(locked, role="admin", tenant="acme")
    theirs = await give(locked, tenant="other")
    as_acme = bearer(mine["key"])
    listed = (await locked.http.get("/v1/keys", headers=as_acme)).json()["keys"]
    assert [one["key_id"] for one in listed] == [mine["key_id"]]
    for what in ("revoke", "rotate"):
        path = f"/v1/keys/{theirs['key_id']}/{what}"
        answer = await locked.http.post(path, json={}, headers=as_acme)
        assert answer.status_code == 404
    for tenant in ("other", "*"):
        answer = await locked.http.post(
            "/v1/keys", json={"name": "k", "tenant": tenant}, headers=as_acme
        )
        assert answer.status_code == 403
    given = await locked.http.post("/v1/keys", json={"name": "k"}, headers=as_acme)
    assert given.json()["tenant"] == "acme"
    assert given.json()["created_by"] == f"test ({mine['key_id']})"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "k", "role": "root"}, "role"),
        ({"name": "k", "tenant": "UPPER"}, "tenant"),
        ({"name": "k", "expires_in_days": 0}, "expires_in_days"),
        ({"name": "k", "key": "mine"}, "key"),
    ],
)
async def test_a_key_that_cannot_be_given_out_is_refused_by_field(
    locked: Client, body: dict[str, Any], field: str
) -> None:
    answer = await locked.http.post("/v1/keys", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)
    assert (await locked.http.get("/v1/keys")).json() == {"keys": []}


async def test_both_ways_in_ask_for_the_same_keys(locked: Client) -> None:
    acme = (await give(locked, tenant="acme"))["key"]
    body = json.dumps({"account_id": "a", "context": CONTEXT, "decision_id": "d"}).encode()
    for key, tenant in ((acme, None), (acme, "acme"), (acme, "other"), ("none", None)):
        answers = []
        for kind in ("application/json", "Application/JSON"):
            named = {"X-Acclimate-Tenant": tenant} if tenant else {}
            headers = bearer(key) | named | {"Content-Type": kind}
            answers.append(await locked.http.post(DECISIONS, content=body, headers=headers))
        assert answers[0].status_code == answers[1].status_code
        assert answers[0].content == answers[1].content


async def test_an_embedded_service_is_open_until_the_first_key_is_made(open_client: Open) -> None:
    async with open_client(access=None) as client:
        assert (await client.decide()).status_code == 200
        key = (await give(client, role="admin"))["key"]
        assert (await client.decide()).status_code == 401
        client.http.headers.update(bearer(key))
        assert (await client.decide()).status_code == 200
        [mine] = (await client.http.get("/v1/keys")).json()["keys"]
        await client.http.post(f"/v1/keys/{mine['key_id']}/revoke")
        assert (await client.decide()).status_code == 401  # it does not open again


async def test_an_open_service_is_open_to_no_web_page(open_client: Open) -> None:
    async with open_client(access=None) as client:
        for headers, status in (
            ({}, 200),
            ({"Host": "127.0.0.1:8000"}, 200),
            ({"Host": "[::1]:8000"}, 200),
            ({"Host": "rebound.example"}, 403),
            ({"Host": "localhost.rebound.example"}, 403),
            ({"Host": "localhost@rebound.example:80"}, 403),
            ({"Host": "[" * 3}, 403),
            ({"Sec-Fetch-Site": "same-origin"}, 200),
            ({"Sec-Fetch-Site": "none"}, 200),
            ({"Sec-Fetch-Site": "cross-site"}, 403),
            ({"Sec-Fetch-Site": "same-site"}, 403),
        ):
            answer = await client.http.get("/v1/workflows", headers=headers)
            assert answer.status_code == status, headers


PRODUCTION = {"ledger_url": "postgresql+psycopg://a@localhost/a"}


@pytest.mark.parametrize(
    ("given", "keys", "refusal"),
    [
        ({}, False, None),
        ({"host": "::1"}, False, None),
        ({"host": "0.0.0.0"}, False, "others reach 0.0.0.0, and no key is valid"),
        ({"host": "0.0.0.0"}, True, None),
        ({"access": "keys"}, False, "keys are needed, and no key is valid"),
        ({"access": "keys"}, True, None),
        ({"access": "open"}, True, None),
        ({"access": "open", "host": "0.0.0.0"}, True, "open is for this machine alone"),
        (PRODUCTION, False, "keys are needed, and no key is valid"),
        (PRODUCTION, True, None),
        (PRODUCTION | {"access": "open"}, True, "open is for this machine alone"),
        ({"redis_url": "redis://localhost"}, False, "keys are needed"),
    ],
)
def test_a_service_that_others_reach_does_not_start_without_keys(
    given: dict[str, Any], keys: bool, refusal: str | None
) -> None:
    settings = Settings(**given)
    ring = Keyring(
        None,  # type: ignore[arg-type]
        Time(),
        lambda: 0.0,
        None,
        settings.may_be_open,
        settings.access == "open",
    )
    ring.take([key_row("k", Role.admin)[0]] if keys else [])
    with contextlib.ExitStack() as stack:
        if refusal is not None:
            stack.enter_context(pytest.raises(SettingError, match=refusal))
        settings.refuse_exposure(is_open=ring.is_open, is_empty=ring.is_empty)


def test_an_admin_key_that_could_be_guessed_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at least 32 characters, got 5") as refused:
        Settings(admin_key="short")
    assert "short" not in str(refused.value).replace("admin_key", "")


async def test_the_environments_admin_key_is_in_no_settings_shown(
    settings: Settings, tmp_path: Path
) -> None:
    settings = Settings.model_validate(settings.model_dump() | {"admin_key": ADMIN})
    async with open_service(settings, schedule=False) as service:
        assert ADMIN not in repr(service.settings)
        assert ADMIN not in repr(vars(service.keyring))
        assert create_app(service) is not None
