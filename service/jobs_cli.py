"""`acclimate worker`, `acclimate beat`, `acclimate jobs`: the jobs outside the serving process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from contract.bundle import BundleError
from contract.spec import SpecError
from service.cli import read_settings
from service.clock import to_moment, to_moment_or_none
from service.ledger.leases import JobRow, read_jobs
from service.ledger.reading import open_to_read
from service.ledger.records import LedgerUnavailableError
from service.logs import log_discreetly
from service.settings import SettingError

Workflows = Annotated[Path | None, typer.Option(help="Directory of workflow files.")]
Policies = Annotated[Path | None, typer.Option(help="Directory of bundles.")]
DataDir = Annotated[Path | None, typer.Option(help="Where the embedded ledger lives.")]


def worker_command(
    concurrency: Annotated[int, typer.Option(min=1, help="Jobs at once.")] = 4,
    workflows: Workflows = None,
    policies: Policies = None,
) -> None:
    """Run jobs for processes that serve: Celery on Redis, beside `acclimate beat`.

    Settings are those of `acclimate serve`; it needs ACCLIMATE_JOBS=workers, there too,
    ACCLIMATE_LEDGER_URL, ACCLIMATE_REDIS_URL and the extra `worker`. Start as many as you like:
    a job runs once at a time, and a worker may be killed at any moment. Ends with 0 after SIGTERM,
    when what runs has ended, and with 2 when a setting or the ledger is not fit, saying why.
    """
    settings = read_settings(jobs="workers", workflows=workflows, policies=policies)
    log_discreetly(settings)
    _run(lambda: _worker().run_worker(settings, concurrency))


def beat_command(
    data_dir: Annotated[
        Path | None, typer.Option(help="Where it notes when it last asked.")
    ] = None,
) -> None:
    """Ask workers for every job in its time. One is enough; several do no harm.

    Settings are those of `acclimate worker`. Ends with 0 after SIGTERM, and with 2 when a setting
    is not fit, saying why.
    """
    settings = read_settings(jobs="workers", data_dir=data_dir)
    log_discreetly(settings)
    _run(lambda: _worker().run_beat(settings))


def jobs_command(
    data_dir: DataDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """When each job last ran, who ran it and how that ended. Reads the ledger only.

    A process alone on a ledger in SQLite takes no leases, and so leaves nothing here. Exits with 2
    when the ledger cannot be opened.
    """
    settings = read_settings(data_dir=data_dir)
    try:
        found = open_to_read(settings.ledger).read_now(read_jobs)
    except LedgerUnavailableError as error:
        _refuse(str(error))
    if as_json:
        print(json.dumps([_row(one) for one in found]))
        return
    table = Table("job", "runs", "state", "began", "ended", "holder")
    for one in found:
        row = _row(one)
        table.add_row(
            one.job,
            f"{one.runs:,}",
            row["state"],
            row["began_at"],
            row["ended_at"] or "–",
            one.holder,
        )
    Console().print(table)


def _row(job: JobRow) -> dict[str, Any]:
    ended = to_moment_or_none(job.ended_at_us)
    state = "running" if job.is_running else "killed" if ended is None else job.outcome
    return {
        "job": job.job,
        "runs": job.runs,
        "state": state,
        "began_at": to_moment(job.began_at_us).isoformat(timespec="milliseconds"),
        "ended_at": None if ended is None else ended.isoformat(timespec="milliseconds"),
        "holder": job.holder,
    }


def _worker() -> Any:
    try:
        from service import worker  # only the worker extra has Celery
    except ImportError as error:
        _refuse(f"needs {error.name}: pip install 'acclimate[production,worker]'")
    return worker


def _run(work: Callable[[], None]) -> None:
    try:
        work()
    except (SpecError, BundleError, LedgerUnavailableError, SettingError, ValueError) as error:
        _refuse(str(error))


def _refuse(message: str) -> Any:
    print(f"acclimate: {message}", file=sys.stderr)
    raise typer.Exit(2)
