"""`acclimate bench mazes`: rollouts beside the engine alone."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from training.train_command import need, refuse


def mazes(
    engines: Annotated[int, typer.Option(min=1, help="Mazes walked at once.")] = 16,
    workers: Annotated[int, typer.Option(min=1, help="Processes that run engines.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each; the median counts.")] = 5,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each maze a turn.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Only JSON on standard output.")] = False,
) -> None:
    """Steps a second of TRPO's rollouts in mazes, and of the engine alone with random actions."""
    need("the benchmark of mazes", "torch", "vizdoom")
    from training.bench_mazes import bench_mazes, to_json
    from training.tasks.mazes.engine import EngineError

    try:
        speeds = bench_mazes(engines, workers, rounds, steps)
    except EngineError as error:
        refuse(str(error))
    if as_json:
        typer.echo(json.dumps(to_json(speeds), indent=2))
        return
    typer.echo(
        f"engine alone {speeds.engine_alone:,.0f} steps/s, {speeds.in_turns:,.0f} in turns, "
        f"rollouts {speeds.rollouts:,.0f}: {100 * speeds.share:.0f} % "
        f"({engines} engines, {workers} workers, median of {rounds})"
    )
    for name, costs in (("alone", speeds.alone_costs), ("rollouts", speeds.rollout_costs)):
        typer.echo(
            f"processor time a step, {name}: learner {costs.learner:.0f} µs, "
            f"workers {costs.workers:.0f} µs, engines {costs.engines:.0f} µs"
        )
