"""`acclimate bench console`: how long each page of the console takes over a large ledger, in a real
Chromium, on SQLite and on PostgreSQL.

The time is the browser's own: from the beginning of the navigation to the end of the page's load
event, its files included, which are fetched anew each time. The first load is of a service that has
just started.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import httpx
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.chromium import NoChromiumError, chromium
from benchmarks.console_ledger import WORKFLOW, Filled, fill
from benchmarks.interruption import ended_like_ctrl_c
from benchmarks.progress import Bars
from benchmarks.service_process import ServiceError, ServiceProcess

if TYPE_CHECKING:
    from playwright.sync_api import Page

ADMIN_KEY = "a-key-for-the-benchmark-of-the-console"
TARGET_MS = 1_000.0
COUNT_SECONDS = 900.0
"""How long the job may take that counts all curves from nothing."""
FAILED = 1
INTERRUPTED = 130
LOADED = """() => {
  const one = performance.getEntriesByType("navigation")[0];
  return [one.responseEnd - one.startTime, one.loadEventEnd - one.startTime];
}"""


@dataclass
class PageLoad:
    """One page's times, in milliseconds."""

    page: str
    first_ms: float
    median_ms: float
    slowest_ms: float
    """Of all loads, the first included."""
    answer_ms: float
    """Median time until the page itself had come, without its files and its layout."""


@dataclass
class Result:
    """One database's pages."""

    database: str
    accounts: int
    rows: int
    counted_s: float
    """How long the curves took to be counted from nothing, while nothing else was asked."""
    pages: list[PageLoad]


def console(
    accounts: Annotated[int, typer.Option(min=100, help="Accounts in the ledger.")] = 100_000,
    rows: Annotated[
        int, typer.Option(min=200, help="Decisions and feedback in the ledger.")
    ] = 1_000_000,
    loads: Annotated[int, typer.Option(min=2, help="Loads of each page.")] = 8,
    databases: Annotated[str, typer.Option(help="With commas between.")] = "sqlite,postgresql",
    seed: Annotated[int, typer.Option(min=0, help="Fixes the histories.")] = 1,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Keep the figures in this file.")
    ] = None,
    check: Annotated[bool, typer.Option(help="Exit with 1 when a page takes over 1 s.")] = False,
    workflows: Annotated[Path, typer.Option(help="Folder of workflow files.")] = Path("workflows"),
    policies: Annotated[Path, typer.Option(help="Folder of bundles.")] = Path("policies"),
) -> None:
    """The console's pages over a large ledger, loaded in a real Chromium.

    PostgreSQL is that of ACCLIMATE_TEST_POSTGRES_URL, or found on this machine and run for the
    benchmark alone. Exits with 1 when there is no Chromium, or a page does not come.
    """
    notes, out = Console(stderr=True), Console()
    results = []
    try:
        with ended_like_ctrl_c():
            for database in databases.split(","):
                result = _measure(database, accounts, rows // 2, loads, seed, workflows, policies)
                results.append(result)
                out.print(_table(result))
    except (NoChromiumError, ServiceError) as error:
        notes.print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(FAILED) from error
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        body = json.dumps([asdict(one) for one in results], indent=2)
        json_file.write_text(body + "\n", encoding="utf-8")
    slow = [p.page for one in results for p in one.pages if p.slowest_ms > TARGET_MS]
    out.print(
        f"over {TARGET_MS:g} ms: {', '.join(slow)}" if slow else f"all within {TARGET_MS:g} ms"
    )
    if check and slow:
        raise typer.Exit(FAILED)


def _measure(
    database: str,
    accounts: int,
    interactions: int,
    loads: int,
    seed: int,
    workflows: Path,
    policies: Path,
) -> Result:
    notes = Console(stderr=True)
    with (
        tempfile.TemporaryDirectory(prefix="acclimate-console-") as folder,
        _ledger(database, Path(folder)) as url,
    ):
        settings = {
            "ACCLIMATE_LEDGER_URL": url,
            "ACCLIMATE_ADMIN_KEY": ADMIN_KEY,
            "ACCLIMATE_ALARM_INTERVAL_SECONDS": "3600",
        }
        service = ServiceProcess(
            Path(folder), workflows=workflows, policies=policies, settings=settings
        )
        service.start()  # makes the tables
        service.stop()
        with Bars(notes) as bars:
            bars.status(f"{database}: writing the ledger")
            bars.expect("accounts", accounts)
            filled = fill(
                url, accounts, interactions, seed, lambda some: bars.advance("accounts", some)
            )
        try:
            service.start()
            notes.print(f"{database}: counting the curves", highlight=False)
            counted = _count(service, accounts)
            rollout = _begin_rollout(service)
            service.stop()
            service.start()
            pages = _load(service, filled, rollout, loads)
        finally:
            service.stop()
    return Result(database, accounts, filled.rows, counted, pages)


def _count(service: ServiceProcess, accounts: int) -> float:
    """Seconds until every account's first interaction is in a curve. Raises ServiceError."""
    started = time.monotonic()
    with _asking(service) as http:
        while time.monotonic() - started < COUNT_SECONDS:
            page = http.get(f"/console/workflows/{WORKFLOW}").text
            row = r"</th><td[^>]*>1</td><td[^>]*>[^<]*</td><td[^>]*>[^<]*</td><td[^>]*>([\d,]+)"
            counted = sum(int(one.replace(",", "")) for one in re.findall(row, page))
            if counted == accounts:
                return time.monotonic() - started
            time.sleep(1)
    raise ServiceError(f"{counted} of {accounts} accounts counted after {COUNT_SECONDS:g} s")


def _begin_rollout(service: ServiceProcess) -> str:
    with _asking(service) as http:
        body = {"workflow": WORKFLOW, "policy": "retention-offer/1", "why": "to look at it"}
        answer = http.post("/v1/rollouts", json=body)
        answer.raise_for_status()
        return str(answer.json()["rollout_id"])


def _asking(service: ServiceProcess) -> httpx.Client:
    return httpx.Client(
        base_url=service.base_url,
        headers={"Authorization": f"Bearer {ADMIN_KEY}"},
        trust_env=False,
        timeout=30,
    )


def _load(service: ServiceProcess, filled: Filled, rollout: str, loads: int) -> list[PageLoad]:
    home = f"/console/workflows/{WORKFLOW}"
    paths = {
        "workflows": "/console",
        "a workflow": home,
        "its accounts": f"{home}/accounts",
        "its adapted accounts": f"{home}/accounts?phase=adapted",
        f"an account of {filled.longest_history:,}": f"{home}/accounts/{filled.longest}",
        "alarms": "/console/alarms",
        "rollouts": "/console/rollouts",
        "a rollout": f"/console/rollouts/{rollout}",
        "kill switch": "/console/kill-switch",
    }
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(f"{service.base_url}/console")
        page.fill("#key", ADMIN_KEY)
        page.click("main button")
        return [_page(page, name, service.base_url + path, loads) for name, path in paths.items()]


def _page(page: Page, name: str, address: str, loads: int) -> PageLoad:
    answers, whole = [], []
    for _ in range(loads):
        page.goto("about:blank")
        answer = page.goto(address, wait_until="load")
        if answer is None or answer.status != 200:
            raise ServiceError(f"{address}: {answer and answer.status}")
        page.wait_for_function('performance.getEntriesByType("navigation")[0].loadEventEnd > 0')
        came, loaded = page.evaluate(LOADED)
        answers.append(came)
        whole.append(loaded)
    return PageLoad(name, whole[0], median(whole), max(whole), median(answers))


@contextmanager
def _ledger(database: str, folder: Path) -> Iterator[str]:
    """An empty ledger's address."""
    if database == "sqlite":
        yield f"sqlite:///{folder / 'ledger.sqlite'}"
        return
    from tests.postgres_server import create_database, drop_database, start_postgres

    server = start_postgres()
    try:
        url = create_database(server.url)
        yield url
        drop_database(server.url, url)
    finally:
        server.close()


def _table(result: Result) -> Table:
    table = Table(
        title=f"{result.database}: {result.accounts:,} accounts, {result.rows:,} rows; "
        f"curves counted from nothing in {result.counted_s:.0f} s",
        title_justify="left",
    )
    table.add_column("page")
    for name in ("first", "median", "slowest", "answer alone"):
        table.add_column(f"{name}, ms", justify="right")
    for one in result.pages:
        times = (one.first_ms, one.median_ms, one.slowest_ms, one.answer_ms)
        table.add_row(one.page, *(f"{ms:.0f}" for ms in times))
    return table
