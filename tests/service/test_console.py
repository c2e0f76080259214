"""The console: what its pages show, who is let in, and that its forms are its own."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import httpx
import pytest

from service.access.roles import EVERY_TENANT, Role
from service.api.console_session import KEY_COOKIE, TENANT_COOKIE
from service.console.pages import POLICY
from service.curves import Curves
from service.ledger.records import LedgerUnavailableError
from tests.service.conftest import CONTEXT, Client, Open, Time
from tests.service.test_keys import add, bearer, key_row
from tests.service.test_server import ROLLOUT

PAGE = {"Accept": "text/html"}


async def get(client: Client, path: str, **headers: str) -> httpx.Response:
    """A page, as a browser asks for it."""
    return await client.http.get(f"/console{path}", headers=PAGE | headers)


def text_of(page: httpx.Response) -> str:
    """What a page says, without its markup."""
    body = re.sub(r"<(script|style).*?</\1>", "", page.text, flags=re.DOTALL)
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body)))


async def press(client: Client, page: str, address: str, **fields: str) -> httpx.Response:
    """A form sent as a browser sends it: with the token that `page` carries."""
    found = re.search(r'name="token" value="(\w+)"', (await get(client, page)).text)
    assert found is not None, page
    return await client.http.post(
        f"/console{address}",
        data={"token": found[1], **fields},
        headers=PAGE | {"Sec-Fetch-Site": "same-origin"},
    )


async def begun(client: Client) -> str:
    """A rollout on its way."""
    answer = await client.http.post("/v1/rollouts", json=ROLLOUT)
    return str(answer.json()["rollout_id"])


async def test_the_first_page_shows_how_far_the_accounts_of_each_workflow_are(
    client: Client,
) -> None:
    assert "No account has had a decision yet" in text_of(await get(client, ""))
    for account in ("a", "b", "c"):
        for _ in range(4):
            await client.interact(account, 3.0)
    await client.interact("d", -1.0)
    await Curves(client.service.ledger, client.service.clock).count({})
    page = await get(client, "")
    said = text_of(page)
    assert "1 adapting" in said
    assert "3 adapted" in said
    assert "Half adapted by 3" in said
    assert "Interactions 13" in said
    assert 'aria-label="Mean reward by interaction number. counting/1: 2 at interaction 1' in (
        page.text
    )


async def test_a_workflows_page_has_the_numbers_of_its_curve_and_its_rules(
    client: Client,
) -> None:
    for reward in (-1.0, 1.0, 3.0):
        for account in ("a", "b", "c"):
            await client.interact(account, reward)
    await Curves(client.service.ledger, client.service.clock).count({})
    said = text_of(await get(client, "/workflows/help"))
    assert "counting/1 1 -1.0000 0.0000 3" in said
    assert "counting/1 3 3.0000 0.0000 3" in said
    assert 'cheap_only limit never where action.cost > 2 && context.plan == "basic"' in said
    assert 'context.note == "angry" → call else mail' in said
    assert (await get(client, "/workflows/none")).status_code == 404


async def test_accounts_are_listed_newest_first_by_phase_and_in_pages(
    client: Client, time: Time
) -> None:
    for n in range(60):
        time.pass_seconds(1)
        await client.interact(f"a{n:02}", 3.0)
    for _ in range(3):
        await client.interact("a30", 3.0)
    first = await get(client, "/workflows/help/accounts")
    named = re.findall(r'accounts/(a\d\d)"', first.text)
    assert set(named[:2]) == {"a30", "a59"}
    assert len(named) == 50
    older = re.search(r'href="([^"]+)" rel="next"', first.text)
    assert older is not None
    second = await client.http.get(unescape(older[1]), headers=PAGE)
    rest = re.findall(r'accounts/(a\d\d)"', second.text)
    assert sorted([*named, *rest]) == [f"a{n:02}" for n in range(60)]
    assert 'rel="next"' not in second.text
    adapted = await get(client, "/workflows/help/accounts?phase=adapted")
    assert re.findall(r'accounts/(a\d\d)"', adapted.text) == ["a30"]
    found = await get(client, "/workflows/help/accounts?find=a07")
    assert found.headers["location"] == "/console/workflows/help/accounts/a07"
    missing = await get(client, "/workflows/help/accounts?find=zz")
    assert "No account zz of tenant default" in text_of(missing)


async def test_an_accounts_page_shows_decisions_probabilities_limits_and_its_memory(
    client: Client,
) -> None:
    await client.interact("a", 3.0, context=CONTEXT | {"plan": "basic"})
    await client.interact("a", -1.0, context=CONTEXT | {"age": 9})
    await client.decide("a", decision_id="open-one")
    said = text_of(await get(client, "/workflows/help/accounts/a"))
    made = (await client.http.get("/v1/decisions/open-one")).json()
    assert f"{made['probability']:.3f}" in said
    assert "cheap_only" in said
    assert "safe action" in said
    assert "nothing yet" in said
    assert "at its head 2 0" in said
    await client.http.post("/v1/workflows/help/accounts/a/reset")
    assert "1 reset" in text_of(await get(client, "/workflows/help/accounts/a"))
    assert (await get(client, "/workflows/help/accounts/nobody")).status_code == 404


async def test_what_customers_send_is_text_on_a_page_and_nothing_else(client: Client) -> None:
    sent = "<script>alert(1)</script>"
    thrown = {"on": True, "workflow": "help", "why": sent}
    await client.http.put("/v1/kill-switch", json=thrown)
    page = await get(client, "/kill-switch")
    assert sent not in page.text
    assert sent in unescape(page.text)


async def test_a_page_loads_its_own_files_and_runs_nothing_that_is_written_into_it(
    client: Client,
) -> None:
    await client.interact("a", 3.0)
    rollout = await begun(client)
    paths = [
        "",
        "/workflows/help",
        "/workflows/help/accounts",
        "/workflows/help/accounts/a",
        "/alarms",
        "/rollouts",
        f"/rollouts/{rollout}",
        "/kill-switch",
    ]
    for path in paths:
        page = await get(client, path)
        assert page.status_code == 200, path
        assert page.headers.get_list("content-security-policy") == [POLICY]
        assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=", page.text), path
        loaded = re.findall(r'(?:src|href)="([^"#?]+)', page.text)
        assert not [one for one in loaded if not one.startswith(("/", "data:,"))], path
    for name in ("console.css", "console.js"):
        answer = await client.http.get(f"/console/assets/{name}")
        assert answer.status_code == 200
        assert "http:" not in answer.text
        assert "https:" not in answer.text


async def test_the_buttons_of_a_rollout_do_what_the_api_does_and_say_who_and_why(
    client: Client,
) -> None:
    rollout = await begun(client)
    page = f"/rollouts/{rollout}"
    done = await press(client, page, f"{page}/pause", why="odd offers", by="Ada")
    assert (done.status_code, done.headers["location"]) == (303, f"/console{page}?done=pause")
    record = (await client.http.get(f"/v1/rollouts/{rollout}")).json()
    assert (record["status"], record["reason"]) == ("paused", "odd offers")
    assert record["transitions"][-1]["actor"] == "Ada"
    assert "Paused." in text_of(await get(client, f"{page}?done=pause"))
    refused = await press(client, page, f"{page}/pause", why="again")
    assert refused.status_code == 409
    assert "one that is running" in text_of(refused)
    resumed = await press(client, page, f"{page}/resume", why="found it")
    assert resumed.status_code == 303
    taken_back = await press(client, page, f"{page}/roll-back", why="worse")
    assert taken_back.status_code == 303
    shown = text_of(await get(client, page))
    assert "rolled back" in shown
    assert "Pause" not in shown


async def test_approval_is_offered_when_nothing_else_is_missing(client: Client) -> None:
    rollout = await begun(client)
    page = f"/rollouts/{rollout}"
    assert "Approve" not in text_of(await get(client, page))
    await client.service.rollouts.evaluate(client.service.recall, client.service.clock())
    assert "Approve" in text_of(await get(client, page))
    assert (await press(client, page, f"{page}/approve", why="good")).status_code == 303
    assert (await client.http.get(f"/v1/rollouts/{rollout}")).json()["approved"] is True


@pytest.mark.parametrize("why", ["", "  ", "x" * 1_001])
async def test_nothing_is_done_that_nobody_gives_a_reason_for(client: Client, why: str) -> None:
    refused = await press(client, "/kill-switch", "/kill-switch", scope="help", to="on", why=why)
    assert refused.status_code == 422
    assert "why: expected a reason of 1 to 1000 characters" in text_of(refused)
    assert client.service.kill_switch.switches == {}


async def test_the_kill_switch_is_thrown_and_taken_back_also_with_the_ledger_away(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = "/kill-switch"
    assert (await press(client, page, page, scope="*", to="on", why="odd")).status_code == 303
    assert (await client.decide("a")).json()["reason"] == "kill_switch"
    assert "Kill switch thrown for every workflow" in text_of(await get(client, ""))

    async def fail(_: object) -> None:
        raise LedgerUnavailableError("no")

    with monkeypatch.context() as away:
        away.setattr(client.service.ledger, "read", fail)
        assert "The ledger is not available" in text_of(await get(client, page))
        assert (await press(client, page, page, scope="*", to="off", why="fine")).status_code == 303
    assert (await client.decide("b")).json()["reason"] == "policy"
    await client.service.jobs.follow()  # writes down what the ledger does not know of
    assert "odd" in text_of(await get(client, page))


FORGED: list[tuple[dict[str, str], dict[str, Any], int]] = [
    ({}, {"data": {"why": "x", "scope": "help", "to": "on"}}, 422),  # no token
    ({}, {"data": {"why": "x", "scope": "help", "to": "on", "token": "0" * 64}}, 422),
    ({}, {"json": {"why": "x", "scope": "help", "to": "on"}}, 422),
    ({"Sec-Fetch-Site": "cross-site"}, {"data": {"why": "x"}}, 403),
    ({"Sec-Fetch-Site": "same-site"}, {"data": {"why": "x"}}, 403),
]


@pytest.mark.parametrize(("headers", "sent", "status"), FORGED)
async def test_a_form_that_no_page_of_the_session_sent_changes_nothing(
    client: Client, headers: dict[str, str], sent: dict[str, Any], status: int
) -> None:
    answer = await client.http.post("/console/kill-switch", headers=headers, **sent)
    assert answer.status_code == status
    assert client.service.kill_switch.switches == {}


async def signed_in(client: Client, role: Role, tenant: str) -> httpx.Response:
    """The answer to signing in with a new key; from now on its cookie is sent."""
    row, key = key_row("k", role, tenant)
    await add(client.service, row)
    data = {"key": key, "next": "/console/alarms"}
    return await client.http.post("/console/sign-in", data=data, headers=PAGE)


async def test_with_keys_one_signs_in_and_the_key_stays_where_no_script_reads_it(
    open_client: Open,
) -> None:
    async with open_client(access="keys") as client:
        asked = await get(client, "/alarms?state=all")
        assert asked.status_code == 303
        assert asked.headers["location"] == (
            "/console/sign-in?next=%2Fconsole%2Falarms%3Fstate%3Dall"
        )
        assert 'type="password"' in (await get(client, "/sign-in")).text
        wrong = await client.http.post("/console/sign-in", data={"key": "acclimate_0_no"})
        assert wrong.status_code == 422
        assert "not valid" in text_of(wrong)
        assert "set-cookie" not in wrong.headers
        entered = await signed_in(client, Role.operator, EVERY_TENANT)
        assert (entered.status_code, entered.headers["location"]) == (303, "/console/alarms")
        kept = entered.headers.get_list("set-cookie")[0]
        assert kept.startswith(f"{KEY_COOKIE}=acclimate_")
        assert all(one in kept for one in ("HttpOnly", "SameSite=strict", "Path=/console"))
        assert (await get(client, "/kill-switch")).status_code == 200
        assert (await client.http.get("/v1/workflows")).status_code == 401  # the console's alone
        left = await press(client, "", "/sign-out")
        assert left.status_code == 303
        assert KEY_COOKIE not in client.http.cookies
        assert (await get(client, "")).status_code == 303


@pytest.mark.parametrize("place", ["//elsewhere", "https://elsewhere", "/v1/keys", "/console\\x"])
async def test_signing_in_leads_nowhere_but_to_the_console(open_client: Open, place: str) -> None:
    async with open_client(access="keys") as client:
        row, key = key_row("k", Role.caller, "acme")
        await add(client.service, row)
        answer = await client.http.post("/console/sign-in", data={"key": key, "next": place})
        assert answer.headers["location"] == "/console"


async def test_over_https_the_cookie_goes_over_nothing_else(open_client: Open) -> None:
    async with open_client(access="keys") as client:
        row, key = key_row("k", Role.caller, "acme")
        await add(client.service, row)
        address = "https://localhost/console/sign-in"
        answer = await client.http.post(address, data={"key": key})
        assert "Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize(
    ("forwarded", "secure"),
    [
        (None, False),
        ("http", False),
        ("https", True),
        ("HTTPS", True),
        ("https, http", True),  # a proxy before the proxy
        ("http, https", False),  # a browser that came without would not send it again
    ],
)
async def test_behind_a_proxy_the_cookie_goes_as_the_browser_came(
    open_client: Open, forwarded: str | None, secure: bool
) -> None:
    async with open_client(access="keys") as client:
        row, key = key_row("k", Role.caller, EVERY_TENANT)
        await add(client.service, row)
        sent = {} if forwarded is None else {"X-Forwarded-Proto": forwarded}
        answer = await client.http.post("/console/sign-in", data={"key": key}, headers=sent)
        kept = [one for one in answer.headers.get_list("set-cookie") if one.startswith(KEY_COOKIE)]
        assert ["Secure" in one for one in kept] == [secure]


async def test_a_token_of_one_session_is_worth_nothing_in_another(open_client: Open) -> None:
    async with open_client(access="keys") as client:
        await signed_in(client, Role.operator, EVERY_TENANT)
        found = re.search(r'name="token" value="(\w+)"', (await get(client, "")).text)
        assert found is not None
        await signed_in(client, Role.admin, EVERY_TENANT)
        sent = {"token": found[1], "scope": "help", "to": "on", "why": "x"}
        answer = await client.http.post("/console/kill-switch", data=sent)
        assert answer.status_code == 422
        assert "that of a page of this session" in answer.text


async def test_a_caller_sees_its_own_tenants_curves_and_no_buttons(open_client: Open) -> None:
    async with open_client(access="keys") as client:
        for tenant, account in (("acme", "ours"), ("other", "theirs")):
            row, key = key_row("k", Role.caller, tenant)
            await add(client.service, row)
            client.http.headers.update(bearer(key))
            await client.decide(account, tenant=tenant)
        del client.http.headers["Authorization"]
        await signed_in(client, Role.caller, "acme")
        page = await get(client, "")
        assert "Accounts 1 " in text_of(page)
        assert "Kill switch" not in text_of(page)
        for path in ("/workflows/help/accounts", "/alarms", "/rollouts", "/kill-switch"):
            refused = await get(client, path)
            assert refused.status_code == 403, path
            assert refused.headers["content-type"].startswith("text/html")
        await signed_in(client, Role.operator, "acme")
        assert (await get(client, "/workflows/help/accounts/ours")).status_code == 200
        assert (await get(client, "/workflows/help/accounts/theirs")).status_code == 404
        assert (await get(client, "/rollouts")).status_code == 403
        listed = await get(client, "/workflows/help/accounts")
        assert "theirs" not in listed.text
        assert "/console/rollouts" not in listed.text
        chosen = await press(client, "", "/tenant", tenant="other")
        assert chosen.status_code == 403
        assert TENANT_COOKIE not in client.http.cookies


@pytest.mark.parametrize(
    ("role", "tenant", "told"),
    [
        (Role.caller, "acme", False),
        (Role.caller, EVERY_TENANT, False),
        (Role.operator, "acme", False),
        (Role.admin, "acme", False),
        (Role.operator, EVERY_TENANT, True),
        (Role.admin, EVERY_TENANT, True),
    ],
)
async def test_the_console_tells_of_a_rollout_whom_the_api_tells(
    open_client: Open, role: Role, tenant: str, told: bool
) -> None:
    async with open_client(access="keys") as client:
        row, key = key_row("release", Role.operator, EVERY_TENANT)
        await add(client.service, row)
        client.http.headers.update(bearer(key))
        rollout = await begun(client)
        for one in ("acme", "default"):  # a workflow of accounts has a place on the first page
            assert (await client.decide("a", tenant=one)).status_code == 200
        del client.http.headers["Authorization"]
        asking, key = key_row("asking", role, tenant)
        await add(client.service, asking)
        listed = await client.http.get("/v1/rollouts", headers=bearer(key))
        assert listed.status_code == (200 if told else 403)
        await signed_in(client, role, tenant)
        for path in ("", "/workflows/help"):
            page = await get(client, path)
            assert page.status_code == 200
            assert ("is running at 50 %" in text_of(page)) is told, path
            assert (rollout in page.text) is told, path
        assert (await get(client, f"/rollouts/{rollout}")).status_code == (200 if told else 403)


async def test_a_key_of_every_tenant_chooses_whose_accounts_it_looks_at(client: Client) -> None:
    await client.decide("theirs", tenant="other")
    assert (await get(client, "/workflows/help/accounts/theirs")).status_code == 404
    chosen = await press(client, "", "/tenant", tenant="other")
    assert chosen.status_code == 303
    assert (await get(client, "/workflows/help/accounts/theirs")).status_code == 200
    refused = await press(client, "", "/tenant", tenant="No/pe")
    assert refused.status_code == 422


async def test_whoever_asks_for_no_page_gets_the_problem_as_the_api_gives_it(
    open_client: Open,
) -> None:
    async with open_client(access="keys") as client:
        answer = await client.http.get("/console")
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
