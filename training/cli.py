"""`acclimate train` and `acclimate export`: the training room's command line.

Importable without torch, which is loaded only inside a command.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from training.curriculum import BanditCurriculum, Curriculum, settings_of
from training.hyperparameters import Hyperparameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from training.run import Schedule
    from training.trpo import Learner

BAD_INPUT = 2
"""Exit status: an option, a checkpoint or a bundle that cannot be used."""
DIVERGED = 3
"""Exit status: training met a number that is not finite; the last good checkpoint is kept."""

_POLICY_NAME = r"[a-z][a-z0-9-]*"

train_app = typer.Typer(help="Meta-train a policy.", no_args_is_help=True)

_DEFAULT = Hyperparameters()
_FAMILY = BanditCurriculum()
_notes = Console(stderr=True)


class NetworkName(StrEnum):
    """The networks there are."""

    actionwise = "actionwise"
    gru = "gru"


@train_app.callback()
def train() -> None:
    """Meta-train a policy over a task family. Its weights never change in production."""


@train_app.command()
def bandits(
    ctx: typer.Context,
    network: Annotated[
        NetworkName, typer.Option(help="actionwise: any number of actions. gru: a fixed number.")
    ] = NetworkName.actionwise,
    iterations: Annotated[
        int | None, typer.Option(min=1, help="Stop once this many are done, resumptions included.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.01, help="Stop after this much training time instead.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Fixes weights, tasks and draws.")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="Where checkpoint and plots go; runs/bandits-NETWORK-SEED.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint in --out, exactly.")
    ] = False,
    save_every: Annotated[int, typer.Option(min=1, help="Iterations between checkpoints.")] = 10,
    check_every: Annotated[
        int, typer.Option(min=1, help="Iterations between looks at the fixed trials.")
    ] = 25,
    threads: Annotated[
        int, typer.Option(min=1, help="CPU threads; 1 is best unless the machine is yours alone.")
    ] = 1,
    device: Annotated[
        str, typer.Option(help="cpu or cuda; torchrun starts several processes on either.")
    ] = "cpu",
    hidden: Annotated[int, typer.Option(min=1, help="gru: size of the hidden state.")] = 256,
    shared: Annotated[int, typer.Option(min=1, help="actionwise: shared memory, floats.")] = 31,
    row: Annotated[int, typer.Option(min=1, help="actionwise: memory an action, floats.")] = 24,
    width: Annotated[int, typer.Option(min=1, help="actionwise: width of the head.")] = 48,
    belief: Annotated[
        bool,
        typer.Option(
            help="actionwise: exact statistics of each action's reward in its row, or none."
        ),
    ] = True,
    teacher: Annotated[
        str, typer.Option(help="Who shows what to do before TRPO: gittins, or none.")
    ] = "gittins",
    lessons: Annotated[
        int, typer.Option(help="Iterations of imitation before those of TRPO.")
    ] = _DEFAULT.lessons,
    lesson_rate: Annotated[
        float, typer.Option(help="Adam's rate in the first lesson.")
    ] = _DEFAULT.lesson_rate,
    lesson_times: Annotated[
        float, typer.Option(help="Share of a trial's steps that a lesson looks at.")
    ] = _DEFAULT.lesson_times,
    lesson_passes: Annotated[
        int, typer.Option(help="Passes over the trials of a lesson.")
    ] = _DEFAULT.lesson_passes,
    lesson_parts: Annotated[
        int, typer.Option(help="Parts of a lesson's trials, a step of Adam each.")
    ] = _DEFAULT.lesson_parts,
    revise: Annotated[
        bool, typer.Option(help="A lesson after every iteration of TRPO as well.")
    ] = True,
    arms: Annotated[
        tuple[int, int], typer.Option(help="Fewest and most arms; gru: equal.")
    ] = _FAMILY.arms,
    held_out_arms: Annotated[
        list[int], typer.Option(help="A number of arms never trained on; may be repeated.")
    ] = list(_FAMILY.held_out_arms),  # noqa: B006
    pulls: Annotated[
        tuple[int, int], typer.Option(help="Fewest and most pulls a trial.")
    ] = _FAMILY.pulls,
    choice_share: Annotated[
        float, typer.Option(help="Share of trials whose arm means sum to one (a choice).")
    ] = _FAMILY.choice_share,
    growing: Annotated[
        int,
        typer.Option(help="Iterations over which the most pulls grow; 0: at once."),
    ] = _FAMILY.growing,
    gaussian_share: Annotated[
        float, typer.Option(help="Share of families that pay real numbers.")
    ] = _FAMILY.gaussian_share,
    drift_share: Annotated[
        float, typer.Option(help="Share of families whose means drift.")
    ] = _FAMILY.drift_share,
    delay_share: Annotated[
        float, typer.Option(help="Share of families whose feedback is late or in batches.")
    ] = _FAMILY.delay_share,
    horizons: Annotated[
        int, typer.Option(help="Numbers of pulls drawn an iteration.")
    ] = _FAMILY.horizons,
    groups: Annotated[
        int, typer.Option(help="Numbers of arms drawn for each number of pulls.")
    ] = _FAMILY.groups,
    steps_per_group: Annotated[
        int, typer.Option(help="Interactions played on each (pulls, arms).")
    ] = _FAMILY.steps_per_group,
    expected_rewards: Annotated[
        bool,
        typer.Option(
            help="Returns add up arm means instead of coins: unbiased, less noise, simulator only."
        ),
    ] = _DEFAULT.expected_rewards,
    discount: Annotated[float, typer.Option(help="Per interaction.")] = _DEFAULT.discount,
    gae_lambda: Annotated[float, typer.Option(help="GAE's λ.")] = _DEFAULT.gae_lambda,
    radius: Annotated[
        float, typer.Option(help="Largest mean KL divergence of a step.")
    ] = _DEFAULT.radius,
    damping: Annotated[float, typer.Option(help="Added to the Fisher matrix.")] = _DEFAULT.damping,
    cg_iterations: Annotated[
        int, typer.Option(help="Conjugate-gradient iterations.")
    ] = _DEFAULT.cg_iterations,
    fisher_trials: Annotated[
        float, typer.Option(help="Share of trials in the Fisher product.")
    ] = _DEFAULT.fisher_trials,
    fisher_times: Annotated[
        float, typer.Option(help="Share of their steps in it.")
    ] = _DEFAULT.fisher_times,
    critic_rate: Annotated[float, typer.Option(help="Adam's rate.")] = _DEFAULT.critic_rate,
    critic_epochs: Annotated[
        int, typer.Option(help="Passes of the critic over an iteration.")
    ] = _DEFAULT.critic_epochs,
    critic_batches: Annotated[
        int, typer.Option(help="Parts a pass is cut into.")
    ] = _DEFAULT.critic_batches,
) -> None:
    """Train on bandits: lessons from a teacher (DAgger) first, then TRPO.

    Every iteration plays several families (pulls n, arms k), log-uniform in their ranges. A lesson
    regresses the policy on what the teacher would have done; --teacher none is TRPO from scratch,
    and as many iterations as lessons is imitation alone. Afterwards each iteration takes one
    natural step. SIGTERM, SIGHUP or Ctrl-C finishes the iteration, saves a checkpoint and exits
    with 0; a second SIGTERM or Ctrl-C exits at once and keeps the checkpoint as last saved. The
    same command with --resume goes on as if nothing had happened. With --resume the network's sizes
    must be the checkpoint's; its seed and hyperparameters hold, and another one is refused.

    `torchrun --nproc-per-node 2 --no-python acclimate train bandits …` trains with two processes
    that each play their own trials and take every step together.

    A quick look (a minute): acclimate train bandits --minutes 1
    """
    _need("training", "torch", "matplotlib")
    from training import distributed
    from training.checkpoints import (
        FILE,
        CheckpointError,
        load,
        refuse_other_architecture,
        refuse_other_processes,
    )
    from training.policies.network import architecture, build
    from training.run import Schedule, machine
    from training.trpo import new_learner

    out = out or Path("runs") / f"bandits-{network}-{seed}"
    path = out / FILE
    try:
        curriculum: Curriculum = BanditCurriculum(
            horizons=horizons,
            groups=groups,
            steps_per_group=steps_per_group,
            arms=arms,
            held_out_arms=() if arms[0] == arms[1] else tuple(held_out_arms),
            pulls=pulls,
            growing=growing,
            choice_share=choice_share,
            gaussian_share=gaussian_share,
            drift_share=drift_share,
            delay_share=delay_share,
        )
        wanted = Hyperparameters(
            teacher=teacher,
            lessons=lessons,
            lesson_rate=lesson_rate,
            lesson_times=lesson_times,
            lesson_passes=lesson_passes,
            lesson_parts=lesson_parts,
            revise=revise,
            expected_rewards=expected_rewards,
            discount=discount,
            gae_lambda=gae_lambda,
            radius=radius,
            damping=damping,
            cg_iterations=cg_iterations,
            fisher_trials=fisher_trials,
            fisher_times=fisher_times,
            critic_rate=critic_rate,
            critic_epochs=critic_epochs,
            critic_batches=critic_batches,
        )
    except ValueError as error:
        field, _, expected = str(error).partition(":")
        _refuse(f"{_option(field)}:{expected}")
    if iterations is None and minutes is None:
        _refuse("say when to stop: --iterations or --minutes")
    if out.exists() and not out.is_dir():
        _refuse(f"--out: expected a directory, but {out} is a file")
    try:
        ctx.with_resource(distributed.together(device))
    except distributed.DeviceError as error:
        _refuse(str(error))
    _notes.quiet = distributed.number() > 0
    try:
        sizes: dict[str, Any]
        if network is NetworkName.gru:
            if arms[0] != arms[1]:
                raise ValueError(f"--arms: the gru takes one number of actions, got {arms}")
            sizes = {"actions": arms[0], "hidden": hidden}
        else:
            sizes = {"shared": shared, "row": row, "width": width, "belief": belief}
        policy, critic = build(network, sizes, seed=seed), build(network, sizes, seed=seed + 1)
        if resume:
            learner, record, wanted, curriculum = load(path)
            refuse_other_processes(path, record)
            refuse_other_architecture(path, learner, architecture(policy))
            settings = asdict(wanted) | settings_of(curriculum)
            _refuse_other_settings(ctx, path, {"seed": record["seed"], **settings})
        elif path.exists():
            raise ValueError(
                f"{path} exists: add --resume to go on with it, or choose another --out"
            )
        else:
            learner = new_learner(policy, critic, seed, wanted)
            record = {
                "seed": seed,
                "command": _command(),
                "seconds": 0.0,
                "task": "bandits",
                "machine": machine(threads),
                "processes": distributed.count(),
            }
    except (ValueError, CheckpointError) as error:
        _refuse(str(error))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _refuse(f"--out: {out} cannot be a directory: {error.strerror}")
    schedule = Schedule(iterations, minutes, check_every=check_every, save_every=save_every)
    _train(learner, wanted, curriculum, record, schedule, out, threads)


def export(
    run: Annotated[Path, typer.Argument(help="A run's directory, or its checkpoint.")],
    out: Annotated[Path, typer.Argument(help="The bundle's directory, such as policies/NAME/1.")],
    name: Annotated[
        str | None, typer.Option(help="The policy's name; by default out's parent directory.")
    ] = None,
    version: Annotated[
        int | None, typer.Option(min=1, help="Its version; by default out's own name.")
    ] = None,
    note: Annotated[
        Path | None, typer.Option(help="Markdown to put into report.md: what was tried.")
    ] = None,
    evaluation_trials: Annotated[
        int, typer.Option(min=0, help="Fresh trials for the report's evaluation; 0: none.")
    ] = 10_000,
    evaluation: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="What `acclimate evaluate --report` wrote, for the report.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that is there.")] = False,
) -> None:
    """Export a trained policy as a bundle: two ONNX graphs, manifest, parity vectors, report.

    The bundle is checked against torch and against its own parity vectors before it is put in
    place, and appears whole or not at all.

    Example: acclimate export runs/bandits-actionwise-1 policies/bandits/1
    """
    _need("export", "torch", "onnx", "onnxscript", "matplotlib")
    from training.checkpoints import FILE, CheckpointError
    from training.export import ExportError, export_bundle

    name = name if name is not None else out.resolve().parent.name
    if not re.fullmatch(_POLICY_NAME, name):
        _refuse(f"--name: expected a-z, then a-z, 0-9 or -, got {name!r}")
    number = _version(out.resolve().name, version)
    try:
        manifest = export_bundle(
            run / FILE if run.is_dir() else run,
            out,
            name=name,
            version=number,
            note=note.read_text() if note else "",
            evaluation_trials=0 if evaluation else evaluation_trials,
            evaluation=evaluation,
            replace=force,
            on_evaluation=lambda: _say(
                f"graphs agree with torch; playing {evaluation_trials:,} trials for the report "
                "(--evaluation-trials 0: none) ..."
            ),
        )
    except (CheckpointError, ExportError, OSError, ValueError) as error:
        _refuse(str(error))
    _notes.print(
        f"{out}: policy {manifest.policy}, "
        f"torch and onnxruntime agree within {manifest.provenance.torch_parity:.1g}"
    )


def _train(
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
            _say(f"[red]training stopped:[/red] {escape(f'{error}; {_left(out / FILE)}')}")
            raise typer.Exit(DIVERGED) from error
        except SystemExit:
            _say(escape(f"stopped at once; {_left(out / FILE)}"))
            raise
    if learner.history and distributed.number() == 0:
        plot_history(learner.history, looks, out / "curve.png")
    if finished:
        _notes.print(f"done: {learner.iteration} iterations, {learner.steps:,} interactions")
        _notes.print(f"next: acclimate export {out} policies/NAME/VERSION", soft_wrap=True)
    else:
        _notes.print(
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
        console=_notes,
        disable=not _notes.is_terminal,
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


def _command() -> str:
    """What was typed, --out included, and how many processes it was typed for."""
    processes = os.environ.get("WORLD_SIZE", "1")
    several = ["torchrun", "--nproc-per-node", processes, "--no-python"]
    return shlex.join([*(several if processes != "1" else []), "acclimate", *sys.argv[1:]])


def _option(field: str) -> str:
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
                f"{_option(field)}: {path} was trained with {shown}, and a resumed run keeps its "
                "settings; leave the option out, or choose another --out"
            )


def _version(directory: str, version: int | None) -> int:
    """The bundle's version: what was asked for, which a directory that is a number must be."""
    if version is None and not re.fullmatch("[1-9][0-9]*", directory):
        _refuse(f"--version: the directory {directory!r} is not a number from 1, so say it")
    if version is not None and directory.isdecimal() and directory != str(version):
        _refuse(f"--version: the directory is named {directory}, expected the same, got {version}")
    return int(directory) if version is None else version


def _need(what: str, *modules: str) -> None:
    """Refuses with advice that works from a clone when one of the modules is not installed."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        _refuse(
            f"{what} needs {', '.join(missing)}: "
            ".venv/bin/pip install -e '.[train]' -c constraints.txt"
        )


def _refuse(message: str) -> NoReturn:
    _notes.quiet = False
    _say(f"[red]error:[/red] {escape(message)}")
    raise typer.Exit(BAD_INPUT)


def _say(markup: str) -> None:
    _notes.print(markup, highlight=False, soft_wrap=True)
