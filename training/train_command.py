"""What every training command does: its options, its refusals, the run with its progress bar.

Importable without torch, which is loaded only while something is trained.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from training.curriculum import Curriculum
from training.hyperparameters import Hyperparameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from training.run import Schedule
    from training.trpo import Learner

BAD_INPUT = 2
"""Exit status: an option, a checkpoint or a bundle that cannot be used."""
DIVERGED = 3
"""Exit status: training met a number that is not finite; the last good checkpoint is kept."""


# The options of the trust-region learner, whose defaults are the task's.
Discount = Annotated[float, typer.Option(help="Per interaction.")]
GaeLambda = Annotated[float, typer.Option(help="GAE's λ.")]
Radius = Annotated[float, typer.Option(help="Largest mean KL divergence of a step.")]
Damping = Annotated[float, typer.Option(help="Added to the Fisher matrix.")]
CgIterations = Annotated[int, typer.Option(help="Conjugate-gradient iterations.")]
FisherTrials = Annotated[float, typer.Option(help="Share of trials in the Fisher product.")]
FisherTimes = Annotated[float, typer.Option(help="Share of their steps in it.")]
CriticRate = Annotated[float, typer.Option(help="Adam's rate.")]
CriticEpochs = Annotated[int, typer.Option(help="Passes of the critic over an iteration.")]
CriticBatches = Annotated[int, typer.Option(help="Parts a pass is cut into.")]

notes = Console(stderr=True)


def train_until_done(
    learner: Learner,
    hyperparameters: Hyperparameters,
    curriculum: Curriculum,
    record: dict[str, Any],
    schedule: Schedule,
    out: Path,
    threads: int,
) -> None:
    """The run with its progress bar, and what it says at the end."""
    import torch

    from training import distributed
    from training.checkpoints import FILE
    from training.curves import plot_history
    from training.run import run, stop_on_signal
    from training.trpo import TrainingDivergedError

    torch.set_num_threads(threads)
    looks = curriculum.looks(learner.policy.action_range)
    watched = [look.name for look in looks]
    with _progress(schedule, watched) as show, stop_on_signal() as stop:
        show({"iteration": learner.iteration, "seconds": record["seconds"]})
        try:
            finished = run(
                learner,
                hyperparameters,
                curriculum,
                record,
                schedule,
                out / FILE,
                stop,
                on_iteration=show,
            )
        except TrainingDivergedError as error:
            say(f"[red]training stopped:[/red] {escape(f'{error}; {_left(out / FILE)}')}")
            raise typer.Exit(DIVERGED) from error
        except SystemExit:
            say(escape(f"stopped at once; {_left(out / FILE)}"))
            raise
    if learner.history and distributed.number() == 0:
        plot_history(learner.history, looks, out / "curve.png")
    if finished:
        notes.print(f"done: {learner.iteration} iterations, {learner.steps:,} interactions")
        notes.print(f"next: acclimate export {out} policies/NAME/VERSION", soft_wrap=True)
    else:
        notes.print(
            f"stopped by {stop.by} after iteration {learner.iteration}; {out / FILE} is whole. "
            "The same command with --resume goes on.",
            soft_wrap=True,
        )


@contextmanager
def _progress(
    schedule: Schedule, watched: Sequence[str]
) -> Iterator[Callable[[dict[str, float]], None]]:
    """A progress bar on a terminal, a line now and then in a log; `watched` are names of looks."""
    total = schedule.iterations or 60.0 * (schedule.minutes or 0.0)
    bar = Progress(
        TextColumn("iteration {task.fields[iteration]}"),
        BarColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=notes,
        disable=not notes.is_terminal,
    )
    task = bar.add_task("", total=total, iteration=0, figures="")
    seen = dict.fromkeys(watched, float("nan"))

    def show(entry: dict[str, float]) -> None:
        looked = [name for name in watched if name in entry]
        seen.update({name: entry[name] for name in looked})
        figures = f"gap closed {entry.get('gap_closed', float('nan')):.3f}"
        figures += "".join(f"  {name}: {reward:.2f}" for name, reward in seen.items())
        done = entry["iteration"] if schedule.iterations else entry["seconds"]
        bar.update(task, completed=done, iteration=int(entry["iteration"]), figures=figures)
        if bar.disable and looked:
            print(
                f"iteration {int(entry['iteration'])}  {figures}  "
                f"{int(entry['steps']):,} interactions  {entry['seconds']:.0f} s",
                file=sys.stderr,
                flush=True,
            )

    with bar:
        yield show


def _left(path: Path) -> str:
    return f"{path} is the last good checkpoint" if path.exists() else "no checkpoint was saved yet"


def typed() -> str:
    """What was typed, --out included, and how many processes it was typed for."""
    processes = os.environ.get("WORLD_SIZE", "1")
    several = ["torchrun", "--nproc-per-node", processes, "--no-python"]
    return shlex.join([*(several if processes != "1" else []), "acclimate", *sys.argv[1:]])


def option(field: str) -> str:
    """The option that sets a field."""
    return "--" + field.replace("_", "-")


def refuse_other_settings(ctx: typer.Context, path: Path, kept: dict[str, Any]) -> None:
    """Refuses to resume when a setting was typed that is not the checkpoint's."""
    for field, value in kept.items():
        source = ctx.get_parameter_source(field)
        typed = ctx.params.get(field)
        typed = tuple(typed) if isinstance(typed, list) else typed
        if source is not None and source.name != "DEFAULT" and typed != value:
            shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
            raise ValueError(
                f"{option(field)}: {path} was trained with {shown}, and a resumed run keeps its "
                "settings; leave the option out, or choose another --out"
            )


def need(what: str, *modules: str) -> None:
    """Refuses with advice that works from a clone when one of the modules is not installed."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        refuse(
            f"{what} needs {', '.join(missing)}: "
            ".venv/bin/pip install -e '.[train]' -c constraints.txt"
        )


def refuse(message: str) -> NoReturn:
    """Says what is wrong, and exits with BAD_INPUT."""
    notes.quiet = False
    say(f"[red]error:[/red] {escape(message)}")
    raise typer.Exit(BAD_INPUT)


def say(markup: str) -> None:
    """Says it to who is looking on; results alone go to standard output."""
    notes.print(markup, highlight=False, soft_wrap=True)
