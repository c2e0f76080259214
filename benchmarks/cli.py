"""`acclimate demo`: the command around the demo, its progress bars, files and exit status."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    TextColumn,
    TimeElapsedColumn,
)

from benchmarks import demo as households
from benchmarks.alarms import alarms
from benchmarks.console_load import console
from benchmarks.demo_report import how_to_go_on, report
from benchmarks.demo_scores import to_json
from benchmarks.guardrails_cli import guardrails
from benchmarks.interruption import ended_like_ctrl_c
from benchmarks.progress import Bars
from benchmarks.service_process import ServiceError
from benchmarks.serving_cli import serving
from contract.spec import SpecError
from training.tasks.households import HouseholdsMissingError

app = typer.Typer(help="Measurements beside peers.")
bench = typer.Typer(
    help="Measure serving, guardrails, alarms or training on this machine.", no_args_is_help=True
)
bench.command("console")(console)
bench.command("serving")(serving)
bench.command("alarms")(alarms)
bench.command("guardrails")(guardrails)


@bench.callback()
def measurements() -> None:
    """Measure serving, guardrails, alarms or training on this machine."""


FAILED = 1
BAD_INPUT = 2
INTERRUPTED = 130


@app.callback()
def benchmarks() -> None:
    """Measurements beside peers."""


@app.command()
def demo(
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Keep the numbers in this file.")
    ] = None,
    plot_file: Annotated[Path, typer.Option("--plot", help="Where the picture goes.")] = Path(
        "out/demo.png"
    ),
    seeds: Annotated[
        int, typer.Option(min=1, help="Label permutations that the service plays.")
    ] = 3,
    baseline_seeds: Annotated[
        int, typer.Option(min=1, help="Label permutations that the baselines play.")
    ] = 20,
    limit: Annotated[
        int | None,
        typer.Option("--households", min=2, help="Only so many test households a family."),
    ] = None,
    in_flight: Annotated[int, typer.Option(min=1, help="Requests under way at any time.")] = 8,
    workflows: Annotated[Path, typer.Option(help="Folder of workflow files.")] = Path("workflows"),
    policies: Annotated[Path, typer.Option(help="Folder of bundles.")] = Path("policies"),
) -> None:
    """Real households through a live service, next to the algorithms one would otherwise use.

    ACCLIMATE_INSTALLATION_KEY fixes the service's draws; unset, they are the demo's own, the same
    in every run.
    """
    settings = households.Settings(
        workflows=workflows,
        policies=policies,
        seeds=seeds,
        baseline_seeds=baseline_seeds,
        households=limit,
        in_flight=in_flight,
        installation_key=os.environ.get("ACCLIMATE_INSTALLATION_KEY", households.INSTALLATION_KEY),
    )
    notes, out = Console(stderr=True), Console()
    _refuse_unwritable(notes, json_file, plot_file)
    if baseline_seeds < seeds:
        raise typer.BadParameter(
            f"expected at least the service's {seeds}", param_hint="--baseline-seeds"
        )
    try:
        with ended_like_ctrl_c(), Bars(notes, TextColumn("purchases"), TimeElapsedColumn()) as bars:
            result = households.run(settings, bars)
    except (
        households.DemoError,
        ServiceError,
        SpecError,
        HouseholdsMissingError,
    ) as error:
        _refuse(notes, error, FAILED)
    except KeyboardInterrupt:
        notes.print("interrupted; the service is stopped")
        raise typer.Exit(INTERRUPTED) from None
    for part in report(result):
        out.print(part, highlight=False)
        out.print()
    try:
        if json_file is not None:
            numbers = to_json(result.families, result.decisions_per_s, result.p50_ms, result.p99_ms)
            json_file.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
            out.print(f"The numbers: {escape(str(json_file.resolve()))}", soft_wrap=True)
        from benchmarks.demo_plot import plot  # matplotlib takes a second to import

        plot(result.families, plot_file)
        picture = escape(str(plot_file.resolve()))
        out.print(f"Reward against interaction number: {picture}", soft_wrap=True)
    except OSError as error:
        _refuse(notes, error, FAILED)
    out.print()
    out.print(how_to_go_on(), highlight=False, markup=False, soft_wrap=True)


def _refuse(notes: Console, error: Exception, status: int) -> NoReturn:
    """Says what is wrong, letter for letter, and ends."""
    notes.print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
    raise typer.Exit(status) from error


def _refuse_unwritable(notes: Console, json_file: Path | None, plot_file: Path) -> None:
    """Before anything is played: what the demo writes at its end must be writable."""
    if plot_file.suffix not in (".png", ".svg", ".pdf"):
        raise typer.BadParameter(
            f"expected .png, .svg or .pdf, got {plot_file}", param_hint="--plot"
        )
    for path in (plot_file, *([json_file] if json_file else [])):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a"):
                pass
            if path.stat().st_size == 0:
                path.unlink()
        except OSError as error:
            _refuse(notes, error, BAD_INPUT)
