"""`acclimate evaluate`: how good a bundle is, next to the algorithms one would otherwise use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from contract.bundle import BundleError
from contract.policy import OnnxPolicy
from training.evaluate import Cell, evaluate_bandits, interactions, to_json
from training.evaluate_mdps_cli import mdps

app = typer.Typer(help="Evaluate a policy bundle through its ONNX graphs.", no_args_is_help=True)

BAD_INPUT = 2
"""Exit status for a usage that cannot work, and for a bundle that cannot be loaded."""


@app.callback()
def evaluate() -> None:
    """Evaluate a policy bundle through its ONNX graphs."""


app.command()(mdps)


@app.command()
def bandits(
    policy: Annotated[Path, typer.Option(help="The bundle's directory.")],
    n: Annotated[list[int] | None, typer.Option(help="Pulls a trial; may be repeated.")] = None,
    k: Annotated[list[int] | None, typer.Option(help="Arms; may be repeated.")] = None,
    trials: Annotated[int, typer.Option(help="Trials of each (n, k), at least 2.")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Fixes tasks, coins and every draw.")] = 0,
    greedy: Annotated[
        bool, typer.Option("--greedy", help="Take the most probable arm instead of sampling.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Only JSON on standard output.")] = False,
) -> None:
    """Bernoulli bandits, arm means uniform(0, 1): the same means and coins for every player.

    Defaults to n = 100, k = 5; several --n and --k are all combined. ts is Thompson sampling from a
    flat prior; ucb1 is UCB1 with its exploration tuned (c = 0.2), as in the tables of Duan et al.
    (2016): the textbook's c = 1 earns over 10 less at n = 100, k = 5.
    """
    grid = [(pulls, arms) for pulls in n or [100] for arms in k or [5]]
    notes = Console(stderr=True)
    try:
        loaded = OnnxPolicy.load(policy)
        with _progress(notes) as progress:
            task = progress.add_task(
                f"{loaded.manifest.policy}", total=sum(interactions(n, trials) for n, _ in grid)
            )
            cells = [
                evaluate_bandits(
                    loaded,
                    n=pulls,
                    k=arms,
                    trials=trials,
                    seed=seed,
                    greedy=greedy,
                    on_step=lambda count: progress.advance(task, count),
                )
                for pulls, arms in grid
            ]
    except (BundleError, ValueError) as error:
        notes.print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(BAD_INPUT) from error
    if as_json:
        typer.echo(json.dumps(to_json(cells), indent=2))
    else:
        out = Console()
        for cell in cells:
            out.print(_table(cell, f"{loaded.manifest.policy}{', greedy' if greedy else ''}"))
        out.print(f"{trials:,} trials each, seed {seed}; ± is one standard error; the difference")
        out.print("is policy − baseline over the same arm means and coins.")


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


def _table(cell: Cell, policy: str) -> Table:
    table = Table(title=f"n = {cell.n}, k = {cell.k}", title_justify="left")
    table.add_column("player")
    table.add_column("total reward", justify="right")
    table.add_column("policy − player", justify="right")
    table.add_row(policy, f"{cell.policy:.2f} ± {cell.policy_se:.2f}", "", style="bold")
    for name, baseline in cell.baselines.items():
        difference = f"{baseline.difference:+.2f} ± {baseline.difference_se:.2f}"
        table.add_row(name, f"{baseline.reward:.2f}", difference)
    return table
