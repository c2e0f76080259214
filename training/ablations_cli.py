"""`acclimate ablations`: one command, one table, and a written report when asked for.

Importable without torch, which is loaded only inside the command.
"""

from __future__ import annotations

import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

BAD_INPUT = 2


def ablations(
    n: Annotated[int, typer.Option(min=1, help="Pulls a trial.")] = 20,
    k: Annotated[int, typer.Option(min=2, max=50, help="Arms.")] = 5,
    width: Annotated[int, typer.Option(min=1, help="Of every recurrent network.")] = 48,
    iterations: Annotated[int, typer.Option(min=1, help="Of every run.")] = 100,
    steps: Annotated[int, typer.Option(min=40, help="Interactions of an iteration.")] = 8_000,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of every variant.")] = 2,
    trials: Annotated[int, typer.Option(min=2, help="Fresh trials to judge on.")] = 5_000,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    quick: Annotated[bool, typer.Option(help="Every variant for a moment: no figures.")] = False,
    report: Annotated[Path | None, typer.Option(help="Write the table here, Markdown.")] = None,
) -> None:
    """Train small policies that differ in one thing each, and compare them.

    Memory reset between episodes, a vanilla RNN, an LSTM, a feed-forward critic and imitation
    alone, beside a GRU under TRPO: same task, interactions, seeds and settings.
    """
    notes = Console(stderr=True)
    try:
        import torch
    except ImportError as error:
        notes.print(
            "[red]error:[/red] ablations need torch: "
            ".venv/bin/pip install -e '.\\[train]' -c constraints.txt",
            soft_wrap=True,
        )
        raise typer.Exit(BAD_INPUT) from error
    from training import ablations as runs

    torch.set_num_threads(threads)
    settings = runs.Settings(n, k, width, iterations, steps, seeds, trials)
    if quick:
        settings = runs.quick(settings)
    with Progress(console=notes, disable=not notes.is_terminal, transient=True) as bar:
        total = len(runs.VARIANTS) * settings.seeds * settings.iterations
        task = bar.add_task("iterations", total=total)

        def show(name: str, iteration: int) -> None:
            bar.advance(task)
            if bar.disable and iteration == settings.iterations:
                print(f"{name}: a run is done", file=sys.stderr, flush=True)

        result = runs.run(settings, show)
    table = table_of(result)
    print(table)
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(written(result, table), encoding="utf-8")
        notes.print(f"The report: {report}", soft_wrap=True)


def table_of(result: dict[str, Any]) -> str:
    """Markdown: reward of a trial, and the distance to the first row on the same trials."""
    gittins, gittins_se = result["gittins"]
    lines = [
        "| | reward of a trial | by seed | difference to the first, paired | % of Gittins |",
        "|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        seeds = ", ".join(f"{one:.2f}" for one in row.rewards)
        lines.append(
            f"| {row.name} | {row.reward:.3f} ± {row.reward_se:.3f} | {seeds} | "
            f"{row.difference:+.3f} ± {row.difference_se:.3f} | {100 * row.reward / gittins:.1f} |"
        )
    lines.append(f"| finite-horizon Gittins | {gittins:.3f} ± {gittins_se:.3f} | | | 100 |")
    lines.append(
        f"| random | {result['random']:.3f} | | | {100 * result['random'] / gittins:.1f} |"
    )
    return "\n".join(lines)


def written(result: dict[str, Any], table: str) -> str:
    """The report."""
    settings = result["settings"]
    interactions = settings.iterations * settings.steps
    return f"""# Ablations

Bernoulli bandits, n = {settings.n} pulls (each an episode) on k = {settings.k} arms. Every run:
{interactions:,} interactions, {settings.iterations} iterations, width {settings.width}, the same
hyperparameters, {settings.seeds} seeds, judged on the same {settings.trials:,} fresh trials by the
mean of the arm pulled. ± is one standard error over trials; how far seeds are apart is in their
column.

{table}

Made by `{shlex.join(["acclimate", *sys.argv[1:]])}` on {datetime.now(UTC).date().isoformat()}.

- *Memory reset between episodes*: the GRU forgets everything, the last interaction included, when
  an episode ends. What is left is plain reinforcement learning over tasks: it cannot adapt.
- *Vanilla RNN, LSTM*: another cell in policy and nothing else; the critic stays a GRU.
- *Feed-forward critic*: the baseline sees the last interaction and what is left of the trial.
- *Supervised imitation of Gittins alone*: DAgger lessons for the same number of interactions, no
  reinforcement.

These runs are small, and say what a part is worth early in training; they are no policies to ship.
"""
