"""Baselines of tabular MDPs among themselves: their table, and how they were tuned. Never torch.

`python -m training.compare_mdps table` plays every baseline on the same trials, beside the figures
in print; `tune` plays the settings that were tried, on seeds of their own.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from training.baselines_mdps import (
    NAMED,
    PUBLISHED,
    TRUE_PRIOR_MEAN,
    Algorithm,
    beb,
    epsilon_greedy,
    optimal_value,
    planner,
    play,
    ucrl2,
)
from training.paired import mean_and_se
from training.progress import progress_bar
from training.tasks.mdps import EPISODE_STEPS, TabularMDPs

Array = NDArray[Any]

app = typer.Typer(help="Compare and tune the baselines of tabular MDPs.", no_args_is_help=True)

TUNING_SEED = 900
"""Tasks that no figure is reported on."""

TRIED: Mapping[str, Algorithm] = {
    **{f"epsilon_greedy({e})": epsilon_greedy(e) for e in (0.05, 0.1, 0.15, 0.2)},
    **{f"beb({b})": beb(b) for b in (10.0, 20.0, 25.0, 30.0, 40.0, 60.0)},
    **{
        f"beb_prior({b})": beb(b, TRUE_PRIOR_MEAN, transitions_prior_counts=False)
        for b in (0.5, 1.0, 1.5, 2.0, 4.0)
    },
    **{
        f"ucrl2({r}, {p})": ucrl2(r, p)
        for r, p in (
            *((0.1, 0.1), (0.2, 0.2), (0.3, 0.0), (0.0, 0.1), (0.2, 0.02), (0.2, 0.05)),
            *((0.25, 0.05), (0.2, 0.07), (0.3, 0.05), (0.25, 0.03), (0.3, 0.03)),
        )
    },
    **{
        f"planner({c}, {g})": planner(c, g)
        for c, g in (
            *((0.6, 0.25), (0.2, 0.5), (0.3, 0.6), (0.4, 0.35), (0.8, 0.2)),
            *((0.5, 0.25), (0.7, 0.25), (0.3, 0.45)),
        )
    },
}
"""Every setting that was weighed, by what makes it."""

_TRIALS_AT_ONCE = 500
_SIZES = [10, 25, 50, 75, 100]


@app.command()
def table(
    n: Annotated[list[int], typer.Option(help="Episodes a trial; may be repeated.")] = _SIZES,
    trials: Annotated[int, typer.Option(min=2, help="Trials of each n.")] = 5_000,
    seed: Annotated[int, typer.Option(min=0, help="Fixes tasks, luck and every draw.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="JSON in place of a table.")] = False,
) -> None:
    """Every baseline on the same trials."""
    _show(NAMED, n, trials, seed, as_json)


@app.command()
def tune(
    n: Annotated[list[int], typer.Option(help="Episodes a trial; may be repeated.")] = _SIZES,
    trials: Annotated[int, typer.Option(min=2, help="Trials of each n.")] = 2_000,
    as_json: Annotated[bool, typer.Option("--json", help="JSON in place of a table.")] = False,
) -> None:
    """Every setting that was tried, on the tuning seed."""
    _show(TRIED, n, trials, TUNING_SEED, as_json)


def totals(
    algorithms: Mapping[str, Algorithm],
    n: int,
    trials: int,
    seed: int,
    on_step: Callable[[int], None] = lambda steps: None,
) -> dict[str, NDArray[np.float64]]:
    """Total reward of each trial, `[B]`, by name; `known MDP` is what knowing the MDP is worth."""
    parts: dict[str, list[Array]] = {name: [] for name in (*algorithms, "known MDP")}
    for start in range(0, trials, _TRIALS_AT_ONCE):
        batch = min(_TRIALS_AT_ONCE, trials - start)
        for name, algorithm in algorithms.items():
            mdps = TabularMDPs(batch, n, np.random.default_rng([seed, start]))
            own_draws = np.random.default_rng([seed, start, zlib.crc32(name.encode())])
            parts[name].append(play(algorithm, mdps, own_draws, on_step).sum(axis=0))
        parts["known MDP"].append(optimal_value(mdps))
    return {name: np.concatenate(earned) for name, earned in parts.items()}


def _show(
    algorithms: Mapping[str, Algorithm], sizes: list[int], trials: int, seed: int, as_json: bool
) -> None:
    notes = Console(stderr=True)
    with progress_bar(notes) as bar:
        steps = len(algorithms) * trials * EPISODE_STEPS * sum(sizes)
        task = bar.add_task("baselines", total=steps)
        earned = {
            n: totals(algorithms, n, trials, seed, lambda count: bar.advance(task, count))
            for n in sizes
        }
    if as_json:
        figures = {
            str(n): {
                name: dict(zip(("reward", "se"), mean_and_se(one), strict=True))
                for name, one in players.items()
            }
            for n, players in earned.items()
        }
        typer.echo(json.dumps(figures, indent=2))
        return
    typer.echo("| | " + " | ".join(f"n = {n}" for n in sizes) + " |")
    typer.echo("|---" * (len(sizes) + 1) + "|")
    for name in (*algorithms, "known MDP"):
        measured = (mean_and_se(earned[n][name]) for n in sizes)
        shown = " | ".join(f"{mean:.1f} ± {se:.1f}" for mean, se in measured)
        typer.echo(f"| {name} | {shown} |")
        if name in PUBLISHED:
            printed = " | ".join(str(PUBLISHED[name].get(n, "")) for n in sizes)
            typer.echo(f"| {name}, in print | {printed} |")


if __name__ == "__main__":
    app()
