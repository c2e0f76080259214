"""What every training command does: its options, its refusals, a learner that is new or goes on,
the run with its progress bar.

Importable without torch, which is loaded only while something is trained.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from training.curricula import settings_of
from training.curriculum import Curriculum
from training.hyperparameters import Hyperparameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from training.policies.network import Critic, Network
    from training.run import Schedule
    from training.trpo import Learner

BAD_INPUT = 2
"""Exit status: an option, a checkpoint or a bundle that cannot be used."""
DIVERGED = 3
"""Exit status: training met a number that is not finite; the last good checkpoint is kept."""

# The options of a run.
Iterations = Annotated[
    int | None, typer.Option(min=1, help="Stop once this many are done, resumptions included.")
]
Minutes = Annotated[
    float | None, typer.Option(min=0.01, help="Stop after this much training time instead.")
]
Seed = Annotated[int, typer.Option(min=0, help="Fixes weights, tasks and draws.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on from the checkpoint in --out, exactly.")
]
SaveEvery = Annotated[int, typer.Option(min=1, help="Iterations between checkpoints.")]
CheckEvery = Annotated[
    int, typer.Option(min=1, help="Iterations between looks at the fixed trials.")
]
Threads = Annotated[
    int, typer.Option(min=1, help="CPU threads; 1 is best unless the machine is yours alone.")
]
Device = Annotated[
    str, typer.Option(help="cpu or cuda; torchrun starts several processes on either.")
]

# The options of lessons and of the trust-region learner, whose defaults are the task's.
Lessons = Annotated[
    int, typer.Option(help="Iterations of imitation (DAgger) before those of TRPO.")
]
LessonRate = Annotated[float, typer.Option(help="Adam's rate in the first lesson.")]
LessonTimes = Annotated[
    float, typer.Option(help="Share of a trial's steps that a lesson looks at.")
]
LessonPasses = Annotated[int, typer.Option(help="Passes over the trials of a lesson.")]
LessonParts = Annotated[int, typer.Option(help="Parts of a lesson's trials, a step of Adam each.")]
Revise = Annotated[bool, typer.Option(help="A lesson after every iteration of TRPO as well.")]
Fitting = Annotated[
    int, typer.Option(help="Iterations in which beliefs are fitted by likelihood, before all else.")
]
FittingRate = Annotated[float, typer.Option(help="Adam's rate in the first of them.")]
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


@dataclass(frozen=True)
class Asked:
    """What was asked of a run, whatever it is trained on and with: the options above by name."""

    iterations: int | None
    minutes: float | None
    seed: int
    out: Path
    resume: bool
    save_every: int
    check_every: int
    threads: int
    device: str


def train(
    ctx: typer.Context,
    out: Path,
    curriculum: Callable[[], Curriculum],
    networks: Callable[[], tuple[Network, Critic]],
) -> None:
    """Trains in `out` as was typed, a new learner or a resumed one; refuses what cannot be.

    The command has the options of a run by their own names (`Asked`). Both callables may raise
    ValueError, its message starting with the field's name.
    """
    from training import distributed
    from training.checkpoints import FILE, CheckpointError
    from training.run import Schedule
    from training.teachers import build_teacher

    options = (one.name for one in fields(Asked) if one.name != "out")
    asked = Asked(out=out, **{name: ctx.params[name] for name in options})
    try:
        family = curriculum()
        hyperparameters = _hyperparameters(ctx)
        if hyperparameters.teacher != "none":
            build_teacher(hyperparameters.teacher).lessons(family)
    except ValueError as error:
        field, _, expected = str(error).partition(":")
        refuse(f"{option(field)}:{expected}")
    if asked.iterations is None and asked.minutes is None:
        refuse("say when to stop: --iterations or --minutes")
    if out.exists() and not out.is_dir():
        refuse(f"--out: expected a directory, but {out} is a file")
    try:
        ctx.with_resource(distributed.together(asked.device))
    except distributed.DeviceError as error:
        refuse(str(error))
    notes.quiet = distributed.number() > 0
    try:
        policy, critic = networks()
        if asked.resume:
            learner, record, hyperparameters, family = _resumed(ctx, out / FILE, policy)
        else:
            learner, record = _new(asked, out / FILE, policy, critic, hyperparameters, family)
    except (ValueError, CheckpointError) as error:
        refuse(str(error))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        refuse(f"--out: {out} cannot be a directory: {error.strerror}")
    schedule = Schedule(
        asked.iterations,
        asked.minutes,
        check_every=asked.check_every,
        save_every=asked.save_every,
    )
    _train_until_done(learner, hyperparameters, family, record, schedule, out, asked.threads)


def _hyperparameters(ctx: typer.Context) -> Hyperparameters:
    """Those typed, each under its own name; what a command has no option for is as it is."""
    known = (one.name for one in fields(Hyperparameters))
    return Hyperparameters(**{name: ctx.params[name] for name in known if name in ctx.params})


def _new(
    asked: Asked,
    path: Path,
    policy: Network,
    critic: Critic,
    hyperparameters: Hyperparameters,
    family: Curriculum,
) -> tuple[Learner, dict[str, Any]]:
    """A learner at iteration 0, and what a checkpoint tells of its run."""
    from training import distributed
    from training.run import machine
    from training.trpo import new_learner

    if path.exists():
        raise ValueError(f"{path} exists: add --resume to go on with it, or choose another --out")
    record = {
        "seed": asked.seed,
        "command": typed(),
        "seconds": 0.0,
        "task": family.name,
        "machine": machine(asked.threads),
        "processes": distributed.count(),
    }
    return new_learner(policy, critic, asked.seed, hyperparameters), record


def _resumed(
    ctx: typer.Context, path: Path, policy: Network
) -> tuple[Learner, dict[str, Any], Hyperparameters, Curriculum]:
    """What the checkpoint at `path` holds, if it is the run that was typed."""
    from training.checkpoints import load, refuse_other_architecture, refuse_other_processes
    from training.policies.network import architecture

    learner, record, hyperparameters, family = load(path)
    refuse_other_processes(path, record)
    refuse_other_architecture(path, learner, architecture(policy))
    settings = asdict(hyperparameters) | settings_of(family)
    _refuse_other_settings(ctx, path, {"seed": record["seed"], **settings})
    return learner, record, hyperparameters, family


def _train_until_done(
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
    from training.descent import TrainingDivergedError
    from training.run import run, stop_on_signal

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


def _refuse_other_settings(ctx: typer.Context, path: Path, kept: dict[str, Any]) -> None:
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


def need(what: str, *modules: str, extra: str = "train") -> None:
    """Refuses with advice that works from a clone when one of the modules is not installed."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        refuse(
            f"{what} needs {', '.join(missing)}: "
            f".venv/bin/pip install -e '.[{extra}]' -c constraints.txt"
        )


def refuse(message: str) -> NoReturn:
    """Says what is wrong, and exits with BAD_INPUT."""
    notes.quiet = False
    say(f"[red]error:[/red] {escape(message)}")
    raise typer.Exit(BAD_INPUT)


def say(markup: str) -> None:
    """Says it to who is looking on; results alone go to standard output."""
    notes.print(markup, highlight=False, soft_wrap=True)
