"""`acclimate evaluate`: how good a bundle is, next to the algorithms one would otherwise use."""

from __future__ import annotations

import typer

from training.evaluate_bandits_cli import bandits
from training.evaluate_households_cli import households
from training.evaluate_ledger_cli import ledger
from training.evaluate_mazes_cli import mazes
from training.evaluate_mdps_cli import mdps
from training.evaluate_workflows_cli import workflows

app = typer.Typer(help="Evaluate a policy bundle through its ONNX graphs.", no_args_is_help=True)


@app.callback()
def evaluate() -> None:
    """Evaluate a policy bundle through its ONNX graphs."""


app.command()(bandits)
app.command()(households)
app.command()(ledger)
app.command()(mazes)
app.command()(mdps)
app.command()(workflows)
