"""The runbook of docs/operations.md, step by step on real servers: the ledger restored from a dump
while Redis still holds what came after it, and Redis lost altogether."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy.engine import make_url

from tests.e2e.load import Load
from tests.postgres_server import create_database, drop_database, postgres_folders
from tests.redis_server import empty_database
from tests.servers import Server, unavailable
from tests.service_process import AUTHORIZATION, ROOT, ServiceProcess, environment

Start = Callable[..., ServiceProcess]
ACCOUNTS = 12


def postgres_program(name: str) -> str:
    """One of PostgreSQL's own clients, beside a server's programs."""
    found = next((str(one / name) for one in postgres_folders() if (one / name).exists()), None)
    return found or unavailable(f"no {name} beside any PostgreSQL here")


def run(*command: str, **settings: object) -> subprocess.CompletedProcess[str]:
    """A command with these settings, which ends well."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment({name: str(value) for name, value in settings.items()}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def libpq(url: str) -> str:
    """The address as PostgreSQL's own clients read it."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def verify(service: ServiceProcess) -> dict[str, Any]:
    """What `acclimate ledger verify` says."""
    stores = {name: service.settings[name] for name in ("ledger_url", "redis_url")}
    told = run(sys.executable, "acclimate.py", "ledger", "verify", "--json", **stores)
    found: dict[str, Any] = json.loads(told.stdout)
    return found


def test_a_ledger_restored_from_a_dump_serves_what_it_holds_whatever_redis_remembers(
    service_process: Start,
    redis_url: str,
    postgres_url: str,
    postgres_server: Server,
    tmp_path: Path,
) -> None:
    dump = tmp_path / "acclimate.dump"
    service = service_process(redis_url=redis_url, ledger_url=postgres_url)
    with Load(service.base_url, ACCOUNTS) as load:
        load.go_on(4)
        # While it serves: a dump is of one moment.
        run(postgres_program("pg_dump"), "--format=custom", f"--file={dump}", libpq(postgres_url))
        load.go_on(4)
    load.check()
    service.terminate()
    drop_database(postgres_server.url, postgres_url)

    restored = create_database(postgres_server.url)
    try:
        run(
            postgres_program("pg_restore"),
            *("--no-owner", "--exit-on-error", f"--dbname={libpq(restored)}", str(dump)),
        )
        service.settings["ledger_url"] = restored
        service.start()
        # Redis still has memories of what the dump has not: nobody decides from them.
        http = httpx.Client(base_url=service.base_url, headers=AUTHORIZATION, timeout=15)
        with http:
            for account in load.accounts:
                record = http.get(f"/v1/workflows/{load.workflow}/accounts/{account}").json()
                assert 4 <= record["interactions"] < len(load.steps[account])
                body = {"account_id": account, "decision_id": f"after-{account}"}
                decided = http.post(f"/v1/workflows/{load.workflow}/decisions", json=body).json()
                assert decided["reason"] == "policy"
                assert decided["memory_position"] == record["interactions"]
                told = http.post(f"/v1/decisions/after-{account}/feedback", json={"reward": 1.0})
                assert told.json()["memory_position"] == record["interactions"] + 1
        found = verify(service)
        assert found["differing"] == [], found["differing"]
        service.terminate()
    finally:
        drop_database(postgres_server.url, restored)


def test_redis_lost_for_good_costs_nothing_that_was_learned(
    service_process: Start, redis_url: str, postgres_url: str
) -> None:
    service = service_process(redis_url=redis_url, ledger_url=postgres_url)
    with Load(service.base_url, ACCOUNTS) as load:
        load.go_on(4)
    service.terminate()
    digest = verify(service)["digest"]
    empty_database(redis_url)
    service.start()
    found = verify(service)
    assert (found["differing"], found["digest"]) == ([], digest)
