"""`acclimate bench training`: the training benchmark's command line and its file.

Importable without torch and without the peer, which are loaded only inside the command.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

RESULTS = Path("benchmarks/results/training.json")
BAD_INPUT = 2
MISSED = 1
FASTER_THAN_PEER = 4.0
"""Times RecurrentPPO's steps a second that must be reached."""
SLOWER_THAN_PRODUCTS = 4.0
"""Times its matrix products that an iteration may take."""


def training(
    json_file: Annotated[
        Path | None, typer.Option("--json", help=f"Keep the figures here; a full run: {RESULTS}.")
    ] = None,
    width: Annotated[int, typer.Option(min=1, help="Of every recurrent network.")] = 256,
    trials: Annotated[int, typer.Option(min=2, help="Trials that an iteration plays.")] = 1_000,
    pulls: Annotated[int, typer.Option(min=1, help="Pulls a trial.")] = 100,
    arms: Annotated[int, typer.Option(min=2, help="Arms of the bandit.")] = 5,
    environments: Annotated[
        str, typer.Option(help="Numbers of environments to try the peer with, commas between.")
    ] = "16,32,64,128,256,512,1024",
    repetitions: Annotated[int, typer.Option(min=1, help="Turns that both take.")] = 7,
    quick: Annotated[bool, typer.Option(help="Every part for a moment: no figures.")] = False,
    check: Annotated[bool, typer.Option(help="Exit with 1 when a target is missed.")] = False,
) -> None:
    """Steps/s through a whole TRPO iteration, beside sb3-contrib's RecurrentPPO.

    And beside the time of this iteration's matrix products alone. Both are given the cores in the
    way that suits them best, and the peer the number of environments and of minibatches; the rest
    are its defaults.
    """
    out, notes = Console(), Console(stderr=True)
    for module in ("torch", "sb3_contrib"):
        if importlib.util.find_spec(module) is None:
            notes.print(
                f"[red]error:[/red] the benchmark needs {module}: "
                ".venv/bin/pip install -e '.\\[bench,train]' -c constraints.txt",
                soft_wrap=True,
            )
            raise typer.Exit(BAD_INPUT)
    from training import bench

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    several = cores or 1
    settings = bench.Settings(
        n=pulls,
        k=arms,
        width=width,
        trials=trials,
        layouts=sorted({(1, 1), (1, several), (several, 1)}),
        threads=sorted({1, several}),
        environments=_numbers(environments),
        repetitions=repetitions,
    )
    if quick:
        settings = bench.quick(settings)
    elif json_file is None:
        json_file = RESULTS
    try:
        result = bench.run(settings, lambda line: notes.print(escape(line), highlight=False))
    except ValueError as error:
        notes.print(f"[red]error:[/red] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(BAD_INPUT) from error
    result["command"] = shlex.join(["acclimate", *sys.argv[1:]])
    for line in verdicts(result):
        out.print(line, highlight=False, soft_wrap=True)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(_rounded(result), indent=2) + "\n", encoding="utf-8")
        out.print(f"The figures: {escape(str(json_file))}", soft_wrap=True)
    if check and not (
        result["ratio"] >= FASTER_THAN_PEER and result["matmul_ratio"] <= SLOWER_THAN_PRODUCTS
    ):
        raise typer.Exit(MISSED)


def _numbers(typed: str) -> list[int]:
    try:
        numbers = [int(number) for number in typed.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise typer.BadParameter(
            f"expected numbers from 1 with commas between, got {typed!r}",
            param_hint="--environments",
        )
    return numbers


def verdicts(result: dict[str, Any]) -> list[str]:
    """What the figures say, beside what they must reach."""
    spread = result["spread"]
    return [
        f"TRPO, GRU-{result['trpo']['width']}: {result['steps_per_s']:,.0f} steps/s through a "
        f"whole iteration; RecurrentPPO, LSTM-{result['trpo']['width']}, "
        f"{result['recurrent_ppo']['environments']} environments: "
        f"{result['recurrent_ppo_steps_per_s']:,.0f} steps/s",
        f"ratio {result['ratio']:.2f} (turn by turn {spread['ratio'][0]:.2f} to "
        f"{spread['ratio'][1]:.2f}); expected at least {FASTER_THAN_PEER:g}",
        f"a whole iteration takes {result['matmul_ratio']:.2f} times its matrix products "
        f"({spread['matmul_ratio'][0]:.2f} to {spread['matmul_ratio'][1]:.2f}); expected at most "
        f"{SLOWER_THAN_PRODUCTS:g}",
    ]


def _rounded(figures: Any) -> Any:
    """Four digits tell all there is to know of a measurement."""
    if isinstance(figures, float):
        return float(f"{figures:.4g}") if abs(figures) < 1_000 else round(figures)
    if isinstance(figures, dict):
        return {name: _rounded(value) for name, value in figures.items()}
    if isinstance(figures, list | tuple):
        return [_rounded(value) for value in figures]
    return figures
