"""`acclimate bench guardrails`: what limits, caps and budgets cost a decision."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.guardrails import BATCHES, Settings, measured
from contract.spec import SpecError


def guardrails(
    workflows: Annotated[
        Path, typer.Option(exists=True, file_okay=False, help="Folder of workflow files.")
    ] = Path("workflows"),
    decisions: Annotated[int, typer.Option(min=1, help="Measured for each figure.")] = 20_000,
    seed: Annotated[int, typer.Option(min=0, help="Fixes the contexts.")] = 0,
    only_json: Annotated[
        bool, typer.Option("--json", help="Only JSON on standard output.")
    ] = False,
) -> None:
    """Microseconds a decision of each workflow, for its limits in CEL, made alone and together,
    and for what is settled under the account's lock: caps, budgets, the draw.

    Exits with 2 when a workflow file is not right.
    """
    try:
        found = measured(Settings(workflows, seed, decisions))
    except SpecError as error:
        Console(stderr=True).print(f"[red]error:[/red] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(2) from error
    if only_json:
        print(json.dumps({"machine": platform.processor(), "workflows": found}, indent=2))
        return
    table = Table("workflow", "actions", "limits", box=box.SIMPLE)
    for batch in BATCHES:
        table.add_column(f"limits, µs, {batch} at once", justify="right")
    table.add_column("under the lock, µs", justify="right")
    for one in found:
        locked = one["locked_us"]
        table.add_row(
            one["workflow"],
            str(one["actions"]),
            str(one["limits"]),
            *(f"{one['limits_us'][str(batch)]:.1f}" for batch in BATCHES),
            "none" if locked is None else f"{locked:.1f}",
        )
    Console().print(table)
