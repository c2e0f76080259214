"""The console in a real Chromium, over a live service: it is reached by keyboard, read by whoever
reads with other means, and its buttons do what they say.

Pictures of what a test saw stay in its temporary folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from benchmarks.chromium import NoChromiumError, chromium
from tests.servers import unavailable
from tests.service.test_server import ROLLOUT
from tests.service_process import ServiceProcess

Start = Callable[..., ServiceProcess]

ACCOUNT = "/console/workflows/retention-offer/accounts/customer-1"
CONTEXT = {
    "tenure_months": 30,
    "plan": "premium",
    "trigger": "price",
    "usage": 0.4,
    "offers_lately": 0,
    "cancelled": False,
    "season_sin": 0,
    "season_cos": 1,
    "region": "north",
    "in_dispute": False,
}
KEY = "a-key-that-this-test-alone-knows-of"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium."""
    try:
        with chromium() as one:
            yield one
    except NoChromiumError as error:
        unavailable(str(error))


@pytest.fixture
def service(service_process: Start) -> ServiceProcess:
    """A service with two accounts that learned, a rollout on its way and its curves counted."""
    one = service_process(job_interval_seconds=0.2)
    with httpx.Client(base_url=one.base_url, trust_env=False) as http:
        for n in range(24):
            body = {"account_id": f"customer-{n % 2}", "context": CONTEXT, "decision_id": f"d{n}"}
            answer = http.post("/v1/workflows/retention-offer/decisions", json=body)
            assert answer.status_code == 200, answer.text
            assert http.post(f"/v1/decisions/d{n}/feedback", json={"reward": 1}).status_code == 200
        body = ROLLOUT | {"workflow": "retention-offer", "policy": "retention-offer/1"}
        assert http.post("/v1/rollouts", json=body | {"against": "current"}).status_code == 201
    return one


@pytest.fixture
def page(browser: Browser, service: ServiceProcess, tmp_path: Path) -> Iterator[Page]:
    """A page that fails its test where it tells of an error, a file that is refused included."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 800}, base_url=service.base_url
    )
    one = context.new_page()
    errors: list[str] = []
    one.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    one.on("pageerror", lambda error: errors.append(str(error)))
    elsewhere: list[str] = []
    one.on("request", lambda asked: elsewhere.append(asked.url))
    yield one
    one.screenshot(path=str(tmp_path / "last.png"), full_page=True)
    context.close()
    assert errors == []
    assert [url for url in elsewhere if not url.startswith((service.base_url, "data:"))] == []


def rollout_of(service: ServiceProcess) -> str:
    found = httpx.get(f"{service.base_url}/v1/rollouts", trust_env=False).json()
    return str(found["rollouts"][0]["rollout_id"])


def paths(service: ServiceProcess) -> list[str]:
    return [
        "/console",
        "/console/workflows/retention-offer",
        "/console/workflows/retention-offer/accounts",
        ACCOUNT,
        "/console/alarms",
        "/console/rollouts",
        f"/console/rollouts/{rollout_of(service)}",
        "/console/kill-switch",
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_breaks_a_rule_of_accessibility(
    page: Page, service: ServiceProcess, scheme: Any
) -> None:
    page.emulate_media(color_scheme=scheme)
    axe, found = Axe(), {}
    for path in paths(service):
        page.goto(path)
        for closed in page.locator("main details").all():
            closed.evaluate("one => { one.open = true }")
        response = axe.run(page).response
        if response["violations"]:
            found[path] = [
                (one["id"], [node["html"][:200] for node in one["nodes"][:3]])
                for one in response["violations"]
            ]
        ran = {one["id"] for one in response["passes"]}
        assert {"color-contrast", "document-title", "landmark-one-main", "region"} <= ran
    assert not found, json.dumps(found, indent=1)


def test_on_a_phone_no_page_is_wider_than_its_screen(page: Page, service: ServiceProcess) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    for path in paths(service):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
        assert axe_free_of(page, "target-size") == [], path


def axe_free_of(page: Page, rule: str) -> list[str]:
    """What breaks one rule."""
    response = Axe().run(page, options={"runOnly": [rule]}).response
    return [node["html"] for one in response["violations"] for node in one["nodes"]]


def test_by_keyboard_alone_a_rollout_is_paused_with_a_reason(
    page: Page, service: ServiceProcess
) -> None:
    page.goto(f"/console/rollouts/{rollout_of(service)}")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    for _ in range(30):
        page.keyboard.press("Tab")
        at = page.evaluate("document.activeElement.innerText")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", at
        if at == "Pause":
            break
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.type("two customers complained")
    page.keyboard.press("Tab")
    page.keyboard.type("Ada")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("Paused.")
    row = page.get_by_role("row").filter(has_text="two customers complained")
    expect(row).to_contain_text("Ada")
    expect(page.get_by_text("Resume", exact=True).first).to_be_visible()


def test_the_kill_switch_is_thrown_from_its_page(page: Page, service: ServiceProcess) -> None:
    page.goto("/console/kill-switch")
    row = page.get_by_role("row").filter(has_text="retention-offer")
    row.get_by_text("Throw", exact=True).first.click()
    row.get_by_role("button", name="Throw").click()
    assert page.url.endswith("/console/kill-switch")  # a reason is asked for
    row.get_by_label("Why").fill("odd offers")
    row.get_by_role("button", name="Throw").click()
    expect(page.get_by_role("status")).to_have_text("The fallback decides from now on.")
    expect(page.get_by_role("complementary")).to_contain_text("retention-offer")
    body = {"account_id": "customer-9", "context": CONTEXT}
    made = httpx.post(
        f"{service.base_url}/v1/workflows/retention-offer/decisions", json=body, trust_env=False
    )
    assert made.json()["reason"] == "kill_switch"


def test_a_curve_is_drawn_once_it_is_counted_and_the_page_refreshes_itself(
    page: Page, service: ServiceProcess
) -> None:
    page.goto(ACCOUNT)
    page.get_by_role("button", name="Refresh every 5 s").click()
    facts = page.locator(".strip")
    expect(facts).to_contain_text("Decisions12")
    body = {"account_id": "customer-1", "context": CONTEXT}
    address = f"{service.base_url}/v1/workflows/retention-offer/decisions"
    assert httpx.post(address, json=body, trust_env=False).status_code == 200
    expect(facts).to_contain_text("Decisions13", timeout=15_000)
    expect(page.locator("svg.chart:visible .dot")).to_have_count(12)


def test_with_keys_a_browser_signs_in_and_out(
    browser: Browser, service_process: Start, tmp_path: Path
) -> None:
    one = service_process(access="keys", admin_key=KEY)
    context = browser.new_context(base_url=one.base_url)
    page = context.new_page()
    page.goto("/console/kill-switch")
    expect(page.get_by_label("Key")).to_be_focused()
    assert Axe().run(page).response["violations"] == []
    page.keyboard.type("acclimate_0_wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("This key is not valid.")
    page.keyboard.type(KEY)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Kill switch")
    [cookie] = context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/console")
    assert KEY not in str(page.evaluate("document.cookie"))
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Key")).to_be_visible()
    page.goto("/console")
    expect(page.get_by_label("Key")).to_be_visible()
    context.close()
