"""`acclimate evaluate bandits`: how good a bundle is on bandits, next to the field's algorithms.

It must never write anything but the report it was asked for.
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from contract.bundle import BundleError
from contract.policy import OnnxPolicy
from training.baselines.gittins import gittins_table
from training.baselines.published import CELLS
from training.evaluate import Cell, evaluate_bandits, interactions, refuse_misfit, rows, to_json
from training.opponents import Family, chosen, opponents
from training.progress import progress_bar

BAD_INPUT = 2
"""Exit status for a usage that cannot work, and for a bundle that cannot be loaded."""

TABLE = (*CELLS, (250, 25), (40, 3))
"""The nine cells of Duan et al. (2016), and two whose numbers of arms nobody trains on."""


def bandits(
    policy: Annotated[Path, typer.Option(help="The bundle's directory.")],
    n: Annotated[list[int] | None, typer.Option(help="Pulls a trial; may be repeated.")] = None,
    k: Annotated[list[int] | None, typer.Option(help="Arms; may be repeated.")] = None,
    table: Annotated[
        bool, typer.Option("--table", help="The nine cells of the paper, (250, 25) and (40, 3).")
    ] = False,
    trials: Annotated[int, typer.Option(help="Trials of each (n, k), at least 2.")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Fixes tasks, coins and every draw.")] = 0,
    greedy: Annotated[
        bool, typer.Option("--greedy", help="Take the most probable arm instead of sampling.")
    ] = False,
    baseline: Annotated[
        list[str] | None,
        typer.Option(help="Who else plays; may be repeated. Default: all that fit the family."),
    ] = None,
    arms: Annotated[str, typer.Option(help="bernoulli or gaussian.")] = "bernoulli",
    drift: Annotated[str, typer.Option(help="none, change-points or slow.")] = "none",
    delay: Annotated[int, typer.Option(help="Pulls that a pull's feedback comes late.")] = 0,
    batch: Annotated[int, typer.Option(help="Interactions that are fed back together.")] = 1,
    report: Annotated[
        Path | None, typer.Option(help="Also write report.md and its pictures here.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Only JSON on standard output.")] = False,
) -> None:
    """Bandits, by default Bernoulli with arm means uniform(0, 1): the same means and coins for
    every player.

    Defaults to n = 100, k = 5; several --n and --k are all combined. The policy samples, as it is
    served, and plays greedily beside that. gittins is the finite-horizon index, the ceiling; its
    table is computed once (15 s at 500 pulls) and kept in the cache directory. ucb1 and
    epsilon_greedy are tuned, as in the tables of Duan et al. (2016).
    """
    notes = Console(stderr=True)
    command = shlex.join(["acclimate", *sys.argv[1:]])
    cells: list[Cell] = []
    try:
        if table and (n or k):
            raise ValueError("table: expected without n and k, which it says itself")
        family = Family.named(arms, drift, delay, batch)
        grid = TABLE if table else tuple((pulls, ways) for pulls in n or [100] for ways in k or [5])
        if report is not None and report.exists() and not report.is_dir():
            raise ValueError(f"report: expected a directory, got the file {report}")
        loaded = OnnxPolicy.load(policy)
        names = {pulls: chosen(family, pulls, baseline) for pulls, _ in grid}
        for pulls, ways in grid:
            refuse_misfit(loaded, n=pulls, k=ways, trials=trials, family=family)
        total = sum(interactions(pulls, trials, len(names[pulls]), greedy) for pulls, _ in grid)
        with progress_bar(notes) as bar:
            _tabulate(bar, [pulls for pulls, players in names.items() if "gittins" in players])
            task = bar.add_task("", total=total)
            for pulls, ways in grid:
                bar.update(task, description=f"{loaded.manifest.policy} n = {pulls}, k = {ways}")
                cells.append(
                    evaluate_bandits(
                        loaded,
                        n=pulls,
                        k=ways,
                        trials=trials,
                        seed=seed,
                        greedy=greedy,
                        family=family,
                        baselines=opponents(family, pulls, names[pulls]),
                        on_step=lambda count: bar.advance(task, count),
                    )
                )
                if report is not None:
                    from training.report_bandits import write_bandit_report

                    write_bandit_report(
                        report, loaded.manifest, cells, family=family, command=command, seed=seed
                    )
    except (BundleError, ValueError) as error:
        notes.print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(BAD_INPUT) from error
    if report is not None:
        notes.print(f"report: {report / 'report.md'}", highlight=False, soft_wrap=True)
    if as_json:
        typer.echo(json.dumps(to_json(cells), indent=2))
        return
    out = Console()
    for cell in cells:
        out.print(_table(cell, f"{loaded.manifest.policy}{', greedy' if greedy else ''}"))
    out.print(f"{family}, {trials:,} trials each, seed {seed}; ± is one standard error.")
    out.print("The difference is policy − player, over the same arm means and luck.")
    out.print("In print: Duan et al. (2016), 1,000 trials; SNAIL: Mishra et al. (2018).")


def _tabulate(bar: Progress, horizons: list[int]) -> None:
    """Has the Gittins table computed where it is not cached, with its own bar."""
    if horizons:
        task = bar.add_task(f"Gittins table, {max(horizons)} pulls", total=1.0)
        gittins_table(max(horizons), lambda share: bar.update(task, completed=share))
        bar.remove_task(task)


def _table(cell: Cell, policy: str) -> Table:
    table = Table(title=f"n = {cell.n}, k = {cell.k}", title_justify="left")
    table.add_column("player")
    for column in ("total reward", "policy − player", "%", "in print"):
        table.add_column(column, justify="right")
    table.add_row(policy, f"{cell.policy:.2f} ± {cell.policy_se:.2f}", "", "", "", style="bold")
    for name, reward, compared, printed in rows(cell):
        difference = percent = ""
        if compared:
            difference = f"{compared.difference:+.2f} ± {compared.difference_se:.2f}"
            percent = f"{100 * compared.difference / abs(reward):+.2f}" if reward else ""
        table.add_row(
            name,
            f"{reward:.2f}",
            difference,
            percent,
            "" if printed is None else f"{printed:.1f}",
        )
    for name, title in (("rl2", "RL²"), ("snail", "SNAIL")):
        if name in cell.published:
            table.add_row(title, "", "", "", f"{cell.published[name]:.1f}")
    return table
