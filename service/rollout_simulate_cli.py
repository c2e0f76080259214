"""`acclimate rollout schedule` and `simulate`: try a schedule before real accounts do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from guardrails.rollouts.schedule import DEFAULT_SCHEDULE, Schedule, ScheduleError, parse_schedule
from service.operator_cli import AsJson, refuse
from service.rollouts.simulation import World, simulate, summarise

ScheduleFile = Annotated[
    Path | None,
    typer.Option("--schedule", help="A schedule as JSON; default: `acclimate rollout schedule`."),
]


def schedule_command(path: ScheduleFile = None) -> None:
    """Print the default schedule as JSON, to be changed and given back as --schedule; or check one.

    Exits with 2 when the file is not a schedule that can be followed, naming the field.
    """
    print(json.dumps(read_schedule(path).model_dump(mode="json"), indent=2))


def simulate_command(
    lift: Annotated[
        float,
        typer.Option(help="The candidate's mean reward over the fallback's, minus 1: -0.10."),
    ],
    runs: Annotated[int, typer.Option(min=1, help="Simulated rollouts.")] = 1_000,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    accounts: Annotated[int, typer.Option(min=100)] = 20_000,
    decisions: Annotated[
        int, typer.Option(min=2, max=100, help="Per account, one a day in the mean.")
    ] = 20,
    mean: Annotated[float, typer.Option(min=0.01, max=0.99, help="The fallback's reward.")] = 0.4,
    spread: Annotated[
        float, typer.Option(min=0, help="Standard deviation of the accounts' own means.")
    ] = 0.15,
    schedule: ScheduleFile = None,
    as_json: AsJson = False,
) -> None:
    """Roll out a policy whose worth is known, many times, and count how that ends.

    The verdicts are the service's own, under its default schedule or yours: try a schedule here
    before real accounts do. Every account has its own mean reward, and its decisions at random
    moments. A policy 10 % worse should be rolled back while few have seen it, an equal one hardly
    ever, and a better one should reach 100 %.

    rolled_back_under_25: of those rolled back, how many before 25 % of the accounts had seen it.
    unfinished: neither at 100 % nor stopped when the accounts had no decisions left.
    """
    if spread**2 >= mean * (1 - mean):
        refuse(
            f"--spread: expected below {(mean * (1 - mean)) ** 0.5:.3f} at a mean of "
            f"{mean:g}, got {spread:g}",
            2,
        )
    followed = read_schedule(schedule)
    world = World(lift, accounts, decisions, mean, spread)
    with Progress(
        SpinnerColumn(),
        TextColumn("rollouts"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as progress:
        task = progress.add_task("", total=runs)
        found = summarise(simulate(world, followed, runs, seed, lambda: progress.advance(task)))
    if as_json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:22} {json.dumps(value)}")


def read_schedule(path: Path | None) -> Schedule:
    """The schedule in a file, or the default one. Exits with 2 when it is none."""
    if path is None:
        return DEFAULT_SCHEDULE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict):
            raise ScheduleError("schedule", "a JSON object")
        return parse_schedule(data)
    except (OSError, ValueError) as error:
        refuse(f"{path}: {error}", 2)
