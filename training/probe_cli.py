"""`acclimate probe`: the command around the probes, its table, picture and file."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from contract.bundle import BundleError
from contract.policy import OnnxPolicy
from training.probe import Probed, probe, refuse_misfit

BAD_INPUT = 2


def probe_command(
    policy: Annotated[Path, typer.Option(help="The bundle's directory.")],
    n: Annotated[int, typer.Option(help="Pulls a trial.")] = 100,
    k: Annotated[int, typer.Option(help="Arms.")] = 5,
    trials: Annotated[int, typer.Option(help="Half to fit on, half to score on.")] = 1_000,
    seed: Annotated[int, typer.Option(min=0, help="Fixes tasks, coins and draws.")] = 7,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Where a picture goes, .png.")] = None,
) -> None:
    """What a policy's memory holds of a bandit, and whose rule its choices follow.

    Linear probes read posterior mean and deviation of every arm off the memory; R² is of trials the
    probes were not fitted on. Agreement is the share of pulls at which the policy's most probable
    arm is the rule's (for Thompson sampling: its probability of drawing it).

    Example: acclimate probe --policy policies/bandits/1 --n 100 --k 5
    """
    out, notes = Console(), Console(stderr=True)
    try:
        loaded = OnnxPolicy.load(policy)
        refuse_misfit(loaded, n=n, k=k, trials=trials)
        with Progress(console=notes, disable=not notes.is_terminal, transient=True) as bar:
            task = bar.add_task("pulls", total=n * trials)
            found = probe(
                loaded, n=n, k=k, trials=trials, seed=seed, on_step=lambda i: bar.advance(task, i)
            )
    except (BundleError, ValueError) as error:
        notes.print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(BAD_INPUT) from error
    if as_json:
        print(json.dumps({"policy": loaded.manifest.policy, "seed": seed, **asdict(found)}))
    else:
        out.print(table_of(found, loaded.manifest.policy))
    if plot is not None:
        from training.probe_plot import plot_probe  # matplotlib takes a second to import

        plot_probe(found, loaded.manifest.policy, plot)
        notes.print(f"The picture: {escape(str(plot))}", soft_wrap=True)


def table_of(found: Probed, policy: str) -> Table:
    """All figures, by part of a trial."""
    parts = {"first tenth": 0.1, "first half": 0.5, "whole trial": 1.0}
    table = Table(title=f"{policy} at n={found.n}, k={found.k}, {found.trials:,} trials")
    table.add_column("")
    for part in parts:
        table.add_column(part, justify="right")
    for name, fit in found.posterior.items():
        shares = [
            [
                r
                for r, at in zip(fit.r2_by_position, found.positions, strict=True)
                if at <= p * found.n
            ]
            for p in parts.values()
        ]
        table.add_row(f"R² of the posterior {name}", *(_mean(share) for share in shares))
        table.add_row("  over all positions", "", "", f"{fit.r2:.3f}")
        table.add_row("  without memory", "", "", f"{fit.r2_without_memory:.3f}")
    for name, by_step in found.agreement.items():
        table.add_row(f"agrees with {name}", *(_mean(_first(by_step, p)) for p in parts.values()))
    for name, by_step in found.never_tried.items():
        shares = [_first(by_step, p) for p in parts.values()]
        table.add_row(f"pulls of {name} at new arms", *(_mean(share) for share in shares))
    return table


def _first(by_step: list[float], share: float) -> list[float]:
    return by_step[: max(1, round(share * len(by_step)))]


def _mean(shares: list[float]) -> str:
    return f"{sum(shares) / len(shares):.3f}" if shares else "–"
