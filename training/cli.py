"""`acclimate train` and `acclimate export`: the training room's command line.

Importable without torch, which is loaded only inside a command.
"""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from training.curriculum import BanditCurriculum
from training.hyperparameters import Hyperparameters
from training.train_command import (
    CgIterations,
    CheckEvery,
    CriticBatches,
    CriticEpochs,
    CriticRate,
    Damping,
    Device,
    Discount,
    FisherTimes,
    FisherTrials,
    GaeLambda,
    Iterations,
    LessonParts,
    LessonPasses,
    LessonRate,
    Lessons,
    LessonTimes,
    Minutes,
    Radius,
    Resume,
    Revise,
    SaveEvery,
    Seed,
    Threads,
    need,
    notes,
    refuse,
    say,
)
from training.train_command import train as train_as_asked

if TYPE_CHECKING:
    from training.policies.network import Critic, Network

_POLICY_NAME = r"[a-z][a-z0-9-]*"

train_app = typer.Typer(help="Meta-train a policy.", no_args_is_help=True)

_DEFAULT = Hyperparameters()
_FAMILY = BanditCurriculum()


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
    iterations: Iterations = None,
    minutes: Minutes = None,
    seed: Seed = 1,
    out: Annotated[
        Path | None, typer.Option(help="Where checkpoint and plots go; runs/bandits-NETWORK-SEED.")
    ] = None,
    resume: Resume = False,
    save_every: SaveEvery = 10,
    check_every: CheckEvery = 25,
    threads: Threads = 1,
    device: Device = "cpu",
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
    lessons: Lessons = _DEFAULT.lessons,
    lesson_rate: LessonRate = _DEFAULT.lesson_rate,
    lesson_times: LessonTimes = _DEFAULT.lesson_times,
    lesson_passes: LessonPasses = _DEFAULT.lesson_passes,
    lesson_parts: LessonParts = _DEFAULT.lesson_parts,
    revise: Revise = True,
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
    discount: Discount = _DEFAULT.discount,
    gae_lambda: GaeLambda = _DEFAULT.gae_lambda,
    radius: Radius = _DEFAULT.radius,
    damping: Damping = _DEFAULT.damping,
    cg_iterations: CgIterations = _DEFAULT.cg_iterations,
    fisher_trials: FisherTrials = _DEFAULT.fisher_trials,
    fisher_times: FisherTimes = _DEFAULT.fisher_times,
    critic_rate: CriticRate = _DEFAULT.critic_rate,
    critic_epochs: CriticEpochs = _DEFAULT.critic_epochs,
    critic_batches: CriticBatches = _DEFAULT.critic_batches,
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
    need("training", "torch", "matplotlib")
    from training.policies.network import build

    def curriculum() -> BanditCurriculum:
        return BanditCurriculum(
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

    def networks() -> tuple[Network, Critic]:
        sizes: dict[str, Any] = {"shared": shared, "row": row, "width": width, "belief": belief}
        if network is NetworkName.gru:
            if arms[0] != arms[1]:
                raise ValueError(f"--arms: the gru takes one number of actions, got {arms}")
            sizes = {"actions": arms[0], "hidden": hidden}
        return build(network, sizes, seed=seed), build(network, sizes, seed=seed + 1)

    folder = out or Path("runs") / f"bandits-{network}-{seed}"
    train_as_asked(ctx, folder, curriculum, networks)


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
    need("export", "torch", "onnx", "onnxscript", "matplotlib")
    from training.checkpoints import FILE, CheckpointError
    from training.export import ExportError, export_bundle

    name = name if name is not None else out.resolve().parent.name
    if not re.fullmatch(_POLICY_NAME, name):
        refuse(f"--name: expected a-z, then a-z, 0-9 or -, got {name!r}")
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
            on_evaluation=lambda: say(
                f"graphs agree with torch; playing {evaluation_trials:,} trials for the report "
                "(--evaluation-trials 0: none) ..."
            ),
        )
    except (CheckpointError, ExportError, OSError, ValueError) as error:
        refuse(str(error))
    notes.print(
        f"{out}: policy {manifest.policy}, "
        f"torch and onnxruntime agree within {manifest.provenance.torch_parity:.1g}"
    )


def _version(directory: str, version: int | None) -> int:
    """The bundle's version: what was asked for, which a directory that is a number must be."""
    if version is None and not re.fullmatch("[1-9][0-9]*", directory):
        refuse(f"--version: the directory {directory!r} is not a number from 1, so say it")
    if version is not None and directory.isdecimal() and directory != str(version):
        refuse(f"--version: the directory is named {directory}, expected the same, got {version}")
    return int(directory) if version is None else version
