"""What every answer tells browsers, and the one page that loads anything."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from tests.service.conftest import CONTEXT, Client

DECISIONS = "/v1/workflows/help/decisions"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", DECISIONS, {"account_id": "a", "context": CONTEXT}, 200),
        ("POST", DECISIONS, {}, 422),
        ("POST", DECISIONS, {"context": "x" * 1_100_000}, 413),
        ("GET", "/v1/nowhere", None, 404),
        ("DELETE", "/livez", None, 405),
        ("GET", "/livez", None, 200),
        ("GET", "/metrics", None, 200),
    ],
)
async def test_every_answer_says_what_browsers_may_do_with_it(
    client: Client, method: str, path: str, body: object, status: int
) -> None:
    answer = await client.http.request(method, path, json=body)
    assert answer.status_code == status
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-security-policy"] == (
        "default-src 'none'; frame-ancestors 'none'"
    )
    assert "server" not in answer.headers


async def test_the_page_of_the_api_loads_nothing_from_elsewhere(client: Client) -> None:
    page = await client.http.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert {"/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css"} <= set(loaded)
    for address in loaded:
        if not address.startswith("data:"):
            assert address.startswith("/")
            assert (await client.http.get(address)).status_code == 200
    assert "http://" not in page.text
    assert "https://" not in page.text


async def test_the_page_runs_its_own_script_alone(client: Client) -> None:
    page = await client.http.get("/docs")
    policy = page.headers["content-security-policy"]
    [script] = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'self' 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy
    assert page.headers.get_list("content-security-policy") == [policy]
