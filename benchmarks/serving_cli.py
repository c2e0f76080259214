"""`acclimate bench serving`: the benchmark's command line, its file and exit status."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import TimeElapsedColumn as Elapsed
from rich.progress import TimeRemainingColumn as Remaining

from benchmarks import serving as benchmark
from benchmarks.interruption import ended_like_ctrl_c
from benchmarks.progress import Bars
from benchmarks.service_process import ServiceError
from benchmarks.serving_load import LoadError
from benchmarks.serving_report import report, verdicts
from benchmarks.serving_systems import ServingError

RESULTS = Path("benchmarks/results/serving.json")
FAILED = 1
INTERRUPTED = 130


def serving(
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help=f"Keep the figures in this file; a full run: {RESULTS}."),
    ] = None,
    only: Annotated[
        str, typer.Option(help=f"Some of {','.join(benchmark.PARTS)}, with commas between.")
    ] = ",".join(benchmark.PARTS),
    accounts: Annotated[
        str, typer.Option(help="Memories at which the cost of an account is measured.")
    ] = "1000,100000,1000000",
    rounds: Annotated[int, typer.Option(min=1, help="Turns that each system takes.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of one measurement.")] = 5.0,
    quick: Annotated[
        bool, typer.Option(help="Every part for a moment, 200 accounts: no figures to keep.")
    ] = False,
    check: Annotated[bool, typer.Option(help="Exit with 1 when a target is missed.")] = False,
    workflows: Annotated[
        Path, typer.Option(exists=True, file_okay=False, help="Folder of workflow files.")
    ] = Path("benchmarks/workflows"),
    policies: Annotated[
        Path, typer.Option(exists=True, file_okay=False, help="Folder of bundles.")
    ] = Path("policies"),
) -> None:
    """The service beside a bare echo: requests/s, latency, batches, accounts, replay.

    Redis and PostgreSQL are those of ACCLIMATE_TEST_REDIS_URL (emptied) and
    ACCLIMATE_TEST_POSTGRES_URL, or found on this machine and run for the benchmark alone. TMPDIR
    says where ledgers lie, and must be on a disk. Exits with 1 when something is not answered as
    it should be, and with 2 when asked for what does not exist.
    """
    parts = _parts(only)
    settings = benchmark.Settings(
        parts=parts,
        workflows=workflows,
        policies=policies,
        rounds=rounds,
        seconds=seconds,
        counts=_counts(accounts),
    )
    if quick:
        settings = benchmark.quick(settings)
    elif json_file is None and set(parts) == set(benchmark.PARTS):
        json_file = RESULTS
    if json_file is not None:
        _refuse_unwritable(json_file)
    out, notes = Console(), Console(stderr=True)
    try:
        with ended_like_ctrl_c(), Bars(notes, Elapsed(), Remaining(), refreshes_a_second=1) as bars:
            result = benchmark.run(settings, bars)
        result["command"] = shlex.join(["acclimate", *sys.argv[1:]])
        for part in report(result, parts):
            out.print(part, highlight=False, soft_wrap=isinstance(part, str))
        if json_file is not None:
            json_file.write_text(json.dumps(_rounded(result), indent=2) + "\n", encoding="utf-8")
            out.print(f"The figures: {escape(str(json_file))}", soft_wrap=True)
    except (ServingError, ServiceError, LoadError, OSError) as error:
        notes.print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(FAILED) from error
    except KeyboardInterrupt:
        notes.print("interrupted; every server is stopped")
        raise typer.Exit(INTERRUPTED) from None
    if check and not all(verdict.reached for verdict in verdicts(result, parts)):
        raise typer.Exit(FAILED)


def _parts(only: str) -> tuple[str, ...]:
    """The parts asked for; what is compared with the echo brings it along."""
    asked = [part.strip() for part in only.split(",")]
    for part in asked:
        if part not in benchmark.PARTS:
            raise typer.BadParameter(
                f"expected some of {','.join(benchmark.PARTS)}, got {part!r}", param_hint="--only"
            )
    return tuple(part for part in benchmark.PARTS if part in asked)


def _counts(accounts: str) -> tuple[int, ...]:
    try:
        counts = sorted({int(count) for count in accounts.split(",")})
    except ValueError:
        counts = []
    if not counts or counts[0] < 1 or counts[-1] > benchmark.MOST_ACCOUNTS:
        raise typer.BadParameter(
            f"expected numbers of 1 to {benchmark.MOST_ACCOUNTS} with commas between, "
            f"got {accounts!r}",
            param_hint="--accounts",
        )
    return tuple(counts)


def _refuse_unwritable(path: Path) -> None:
    """Before anything is measured: that takes a while."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a"):
            pass
        if path.stat().st_size == 0:
            path.unlink()
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}", param_hint="--json") from error


def _rounded(figures: Any) -> Any:
    """Four digits tell all there is to know of a measurement."""
    if isinstance(figures, float):
        return float(f"{figures:.4g}") if abs(figures) < 1_000 else round(figures)
    if isinstance(figures, dict):
        return {name: _rounded(value) for name, value in figures.items()}
    if isinstance(figures, list):
        return [_rounded(value) for value in figures]
    return figures
