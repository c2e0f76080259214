"""Nothing that a service prints holds a secret, or anything of what customers sent."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from service.access.keys import new_key
from service.settings import Settings
from tests.service.conftest import CONTEXT
from tests.service_process import ServiceProcess

Start = Callable[..., ServiceProcess]

ADMIN = new_key().text
INSTALLATION = "an-installation-key-nobody-may-see"
PASSWORD = "pass-word-of-an-address"
ACCOUNT = "account-of-somebody-real"
NOTE = "a-note-that-is-private"
DECISIONS = "/v1/workflows/help/decisions"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def shop(settings: Settings) -> dict[str, Any]:
    """Settings of a process with secrets."""
    return {
        "workflows": settings.workflows,
        "policies": settings.policies,
        "admin_key": ADMIN,
        "installation_key": INSTALLATION,
    }


def hidden(log: str, *secrets: str) -> None:
    """Fails where the log holds one of them, whole or in recognisable part."""
    for secret in (*secrets, INSTALLATION, PASSWORD):
        assert secret not in log
    for key in (ADMIN, *secrets):
        assert key.split("_", 2)[2][:20] not in log  # the secret itself may have a _ in it


def test_no_secret_is_logged_whatever_is_asked(
    service_process: Start, shop: dict[str, Any]
) -> None:
    service = service_process(**shop)
    body = {"account_id": ACCOUNT, "context": CONTEXT}
    wrong = new_key().text
    with httpx.Client(base_url=service.base_url, headers=bearer(ADMIN), timeout=30) as http:
        given = http.post("/v1/keys", json={"name": "checkout"}).json()
        assert http.post(DECISIONS, json=body, headers=bearer(given["key"])).status_code == 200
        assert http.post(DECISIONS, json=body, headers=bearer(wrong)).status_code == 401
        for sent in ({"context": {"note": NOTE}}, {"account_id": ACCOUNT, "context": NOTE}):
            assert http.post(DECISIONS, json=body | sent).status_code == 422
        assert http.get(f"/v1/decisions/{ADMIN}").status_code == 404
        assert http.get(f"/v1/{ADMIN}?key={given['key']}").status_code == 404
        assert http.get("/v1/workflows", headers={"X-Acclimate-Tenant": ADMIN}).status_code == 422
        path = f"/v1/keys/{given['key_id']}/revoke"
        assert http.post(path).status_code == 200
        assert http.post(path, headers=bearer(given["key"])).status_code == 401
    (service.data_dir / "ledger.sqlite").write_bytes(b"no database any more")
    for suffix in ("-wal", "-shm"):
        (service.data_dir / f"ledger.sqlite{suffix}").unlink(missing_ok=True)
    with httpx.Client(base_url=service.base_url, headers=bearer(ADMIN), timeout=30) as http:
        assert http.post(DECISIONS, json=body).status_code in (200, 503)
    assert service.terminate() is not None
    log = service.log.read_text()
    assert "Uvicorn running" in log or "Application startup complete" in log
    hidden(log, given["key"], wrong)
    assert ACCOUNT not in log
    assert NOTE not in log


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ledger_url": f"postgresql+psycopg://me:{PASSWORD}@127.0.0.1:9/db"}, "cannot be opened"),
        ({"ledger_url": f"mysql://me:{PASSWORD}@127.0.0.1:9/db"}, "ACCLIMATE_LEDGER_URL"),
        ({"redis_url": f"redis+clusters://:{PASSWORD}@127.0.0.1:9"}, "ACCLIMATE_REDIS_URL"),
        ({"installation_key": INSTALLATION[:15]}, "ACCLIMATE_INSTALLATION_KEY"),
        ({"admin_key": ADMIN[:31]}, "ACCLIMATE_ADMIN_KEY"),
    ],
)
def test_a_start_that_is_refused_names_the_setting_and_not_what_is_in_it(
    service_process: Start, shop: dict[str, Any], changes: dict[str, Any], said: str
) -> None:
    service = service_process(start=False, **(shop | changes))
    ended = service.run()
    assert ended.returncode == 2, ended.stdout
    assert said in ended.stdout
    hidden(ended.stdout)
    assert not re.search(rf"{INSTALLATION[:15]}|{ADMIN[:31]}", ended.stdout)


def test_an_unreachable_redis_is_reported_without_its_password(
    service_process: Start, shop: dict[str, Any]
) -> None:
    service = service_process(**shop, redis_url=f"redis://:{PASSWORD}@127.0.0.1:9/0")
    with httpx.Client(base_url=service.base_url, headers=bearer(ADMIN), timeout=30) as http:
        answer = http.post(DECISIONS, json={"account_id": ACCOUNT, "context": CONTEXT})
        assert (answer.status_code, answer.json()["reason"]) == (200, "memory_unavailable")
        assert PASSWORD not in http.get("/readyz").text
    service.terminate()
    log = service.log.read_text()
    hidden(log)
    assert ACCOUNT not in log
