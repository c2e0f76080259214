"""`acclimate evaluate mdps`: how good a bundle is on tabular MDPs, next to who plans for a living.

It must never write anything but the report it was asked for.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from contract.bundle import BundleError
from contract.policy import OnnxPolicy
from training.evaluate_mdps import (
    DEFAULT_NAMES,
    Cell,
    evaluate_mdps,
    interactions,
    named,
    refuse_misfit,
    standings,
    to_json,
)
from training.progress import progress_bar

BAD_INPUT = 2


def mdps(
    policy: Annotated[Path, typer.Option(help="The bundle's directory.")],
    n: Annotated[list[int] | None, typer.Option(help="Episodes a trial; may be repeated.")] = None,
    trials: Annotated[int, typer.Option(help="Trials of each n, at least 2.")] = 1_000,
    seed: Annotated[int, typer.Option(min=0, help="Fixes tasks, luck and every draw.")] = 0,
    greedy: Annotated[
        bool, typer.Option("--greedy", help="Take the most probable action instead of sampling.")
    ] = False,
    baseline: Annotated[
        list[str] | None,
        typer.Option(help="Who else plays; may be repeated. Default: all but the _prior ones."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Also write report.md and its pictures here.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Only JSON on standard output.")] = False,
) -> None:
    """Tabular MDPs of 10 states and 5 actions, episodes of 10 steps: the same tasks and luck for
    every player.

    Defaults to n = 10, 25, 50, 75 and 100 episodes, as in Duan et al. (2016), whose baselines
    these are. psrl_prior, opsrl_prior, greedy_prior and beb_prior know the family's mean reward, as
    the planner does; those of the paper did not.
    """
    notes = Console(stderr=True)
    sizes = n or [10, 25, 50, 75, 100]
    try:
        players = named(baseline or DEFAULT_NAMES)
        if report is not None and report.exists() and not report.is_dir():
            raise ValueError(f"report: expected a directory, got the file {report}")
        loaded = OnnxPolicy.load(policy)
        for episodes in sizes:
            refuse_misfit(loaded, n=episodes, trials=trials)
        total = sum(interactions(episodes, trials, len(players), greedy) for episodes in sizes)
        with progress_bar(notes) as bar:
            task = bar.add_task(loaded.manifest.policy, total=total)
            cells = [
                evaluate_mdps(
                    loaded,
                    n=episodes,
                    trials=trials,
                    seed=seed,
                    greedy=greedy,
                    baselines=players,
                    on_step=lambda count: bar.advance(task, count),
                )
                for episodes in sizes
            ]
    except (BundleError, ValueError) as error:
        notes.print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(BAD_INPUT) from error
    if report is not None:
        from training.report_mdps import write_mdp_report

        command = " ".join(["acclimate", *sys.argv[1:]])
        write_mdp_report(report, loaded.manifest, cells, command=command, seed=seed)
        notes.print(f"report: {report / 'report.md'}", highlight=False, soft_wrap=True)
    if as_json:
        typer.echo(json.dumps(to_json(cells), indent=2))
        return
    out = Console()
    for cell in cells:
        out.print(_table(cell, f"{loaded.manifest.policy}{', greedy' if greedy else ''}"))
    out.print(f"{trials:,} trials each, seed {seed}; ± is one standard error; the difference")
    out.print(
        "is policy − player over the same MDPs and luck. In print: Duan et al. (2016); SNAIL:"
    )
    out.print("Mishra et al. (2018).")


def _table(cell: Cell, policy: str) -> Table:
    table = Table(title=f"n = {cell.n} episodes", title_justify="left")
    table.add_column("player")
    for column in ("total reward", "policy − player", "in print"):
        table.add_column(column, justify="right")
    table.add_row(policy, f"{cell.policy:.1f} ± {cell.policy_se:.1f}", "", "", style="bold")
    for name, reward, compared, printed in standings(cell):
        table.add_row(
            name,
            f"{reward:.1f}",
            f"{compared.difference:+.1f} ± {compared.difference_se:.1f}" if compared else "",
            "" if printed is None else f"{printed:.1f}",
        )
    for name, printed in cell.published.items():
        table.add_row({"rl2": "RL²", "snail": "SNAIL"}[name], "", "", f"{printed:.1f}")
    return table
