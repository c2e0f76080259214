"""`acclimate evaluate ledger`: what a bundle would have earned where another policy decided.

It must never write anything but the report it was asked for.
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from contract.bundle import BundleError
from contract.policy import OnnxPolicy
from contract.spec import SpecError, load_workflow
from training import evaluate_ledger as evaluation
from training.evaluate_ledger import ESTIMATORS, Result, Settings, estimate
from training.evaluate_workflows import refuse_misfit
from training.ledger_records import read_log
from training.ledger_rows import LogError
from training.progress import progress_bar

BAD_INPUT = 2

LABELS = {
    "logged": "as logged",
    "ips": "IPS",
    "snips": "SNIPS",
    "dr": "doubly robust",
}


def ledger(
    file: Annotated[
        Path, typer.Argument(help="What `acclimate ledger export --all` wrote: .jsonl or .parquet.")
    ],
    policy: Annotated[Path, typer.Option(help="The bundle's directory.")],
    workflow: Annotated[Path, typer.Option(help="The workflow's YAML file.")],
    level: Annotated[
        float, typer.Option(min=0.5, max=0.999, help="How often intervals shall hold.")
    ] = 0.95,
    weight_bound: Annotated[
        float, typer.Option(min=1.0, help="Weights above it are counted; none is clipped.")
    ] = 20.0,
    seed: Annotated[int, typer.Option(min=0, help="Which accounts predict which.")] = 0,
    greedy: Annotated[
        bool, typer.Option("--greedy", help="Take the most probable action instead of sampling.")
    ] = False,
    blind: Annotated[
        bool, typer.Option("--blind", help="Show the policy no context, so that any policy fits.")
    ] = False,
    report: Annotated[Path | None, typer.Option(help="Also write report.md and ope.json here.")] = (
        None
    ),
    only_json: Annotated[
        bool, typer.Option("--json", help="Only JSON on standard output.")
    ] = False,
) -> None:
    """What a policy would have earned at decisions that another one made, from an exported ledger.

    Its memory of each account is folded over the logged history, so its probabilities are those it
    would have given there. The histories stay those of whoever decided: it is not what the policy
    would earn had it decided from the start. docs/off-policy.md says more.
    """
    notes = Console(stderr=True)
    settings = Settings(level, weight_bound, seed, greedy, blind)
    try:
        if report is not None and report.exists() and not report.is_dir():
            raise ValueError(f"--report: expected a directory, got the file {report}")
        spec = load_workflow(workflow)
        loaded = OnnxPolicy.load(policy)
        refuse_misfit(loaded, spec, blind=blind)
        with progress_bar(notes) as bar:
            reading = bar.add_task(f"reading {file.name}", total=None)
            log = read_log(file, spec, lambda count: bar.advance(reading, count))
            bar.remove_task(reading)
            task = bar.add_task(loaded.manifest.policy, total=log.decisions.count)
            result = evaluation.evaluate(
                loaded, log, settings, lambda count: bar.advance(task, count)
            )
    except OSError as error:
        _refuse(notes, f"{error.filename}: {error.strerror}")
    except (BundleError, LogError, SpecError, ValueError) as error:
        _refuse(notes, str(error))
    for warning in result.warnings:
        notes.print(f"[yellow]note:[/yellow] {escape(warning)}", highlight=False, soft_wrap=True)
    if report is not None:
        from training.report_ledger import write_ledger_report

        write_ledger_report(report, result, shlex.join(["acclimate", *sys.argv[1:]]))
        notes.print(f"report: {report / 'report.md'}", highlight=False, soft_wrap=True)
    if only_json:
        typer.echo(json.dumps(evaluation.as_json(result), indent=2))
        return
    out = Console()
    out.print(_table(result))
    overlap = result.evaluation.overlap
    out.print(
        f"{overlap.decisions:,} decisions of {result.evaluation.accounts:,} accounts, that say as "
        f"much as {overlap.effective:,.0f} of the policy's own; {overlap.above_bound:.1%} weigh "
        f"more than {overlap.bound:g}. Intervals at {level:.0%}, clustered by account. Histories "
        "are those of whoever decided.",
        highlight=False,
    )


def _refuse(notes: Console, message: str) -> None:
    notes.print(f"[red]error:[/red] {escape(message)}", highlight=False, soft_wrap=True)
    raise typer.Exit(BAD_INPUT)


def _table(result: Result) -> Table:
    title = f"{result.policy} on the log of {result.workflow}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    for name in ("", "reward", "interval", "above what was logged", "interval"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    for name in ESTIMATORS:
        one = estimate(result.evaluation, name)
        interval = f"{one.difference_low:+.4f} to {one.difference_high:+.4f}"
        table.add_row(
            LABELS[name],
            f"{one.value:.4f}",
            f"{one.low:.4f} to {one.high:.4f}",
            *(("", "") if name == "logged" else (f"{one.difference:+.4f}", interval)),
        )
    return table
