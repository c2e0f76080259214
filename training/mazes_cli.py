"""`acclimate train maze-lessons` and `acclimate train mazes`: from pictures to a policy for mazes.

Importable without torch and without an engine, which are loaded only inside the commands.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

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
    Minutes,
    Radius,
    Resume,
    SaveEvery,
    Seed,
    Threads,
    need,
    notes,
    refuse,
    say,
    train,
)

if TYPE_CHECKING:
    from training.maze_curriculum import MazeCurriculum
    from training.policies.network import Critic, Network

_TRPO = Hyperparameters(
    expected_rewards=False,
    discount=0.99,
    gae_lambda=0.99,
    cg_iterations=6,
    fisher_trials=0.25,
    fisher_times=0.2,
    critic_rate=3e-3,
    critic_epochs=8,
)
"""Duan et al. (2016): γ = λ = 0.99."""


def maze_lessons(
    seed: Seed = 1,
    out: Annotated[Path | None, typer.Option(help="Where checkpoints go; runs/mazes-SEED.")] = None,
    resume: Resume = False,
    save_every: SaveEvery = 20,
    threads: Threads = 1,
    memory_minutes: Annotated[
        float, typer.Option(min=0, help="Computing time of the memory's lessons, in the model.")
    ] = 24.0,
    eyes_minutes: Annotated[
        float, typer.Option(min=0, help="Of the eyes' lessons: pictures to rays.")
    ] = 8.0,
    together_minutes: Annotated[
        float, typer.Option(min=0, help="Of the whole policy's lessons, in the engine.")
    ] = 60.0,
    memory_rate: Annotated[float, typer.Option(help="Adam's rate in the model.")] = 4e-3,
    together_rate: Annotated[float, typer.Option(help="Adam's rate in the engine.")] = 5e-4,
    streams: Annotated[int, typer.Option(min=1, help="Mazes walked at once in the model.")] = 192,
    engines: Annotated[int, typer.Option(min=1, help="Mazes walked at once in the engine.")] = 24,
    workers: Annotated[int, typer.Option(min=1, help="Processes that run engines.")] = 1,
    part: Annotated[int, typer.Option(min=1, help="Streams a step of Adam.")] = 16,
    noise: Annotated[
        float, typer.Option(min=0, help="Deviation added to rays: eyes err as well.")
    ] = 0.03,
    larger: Annotated[
        float, typer.Option(min=0, max=1, help="Share of mazes of 4×4 rooms; the rest have 3×3.")
    ] = 0.25,
    hard: Annotated[
        float, typer.Option(min=0, max=1, help="Share of mazes that take the teacher long.")
    ] = 0.5,
    steps: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Of a stream; given several times, streams grow by them."),
    ] = None,
    help_after: Annotated[
        int, typer.Option(min=1, help="Steps of an episode after which the teacher walks.")
    ] = 75,
    varied: Annotated[
        bool, typer.Option("--varied", help="Mazes in the engine differ in textures and light.")
    ] = False,
    again: Annotated[
        str, typer.Option(help="With --resume: begin this stage again, with what was learned.")
    ] = "",
) -> None:
    """Teach a policy that sees pictures to explore mazes and to remember them (DAgger).

    Three stages: the memory in a model of the engine, the eyes by what pictures show, and the whole
    policy in ViZDoom. The teacher is a map explorer that knows only what its own sight has met.
    Stopping and `torchrun` are as in `acclimate train bandits`; with --resume the stages go on, and
    longer ones than before are what continues a run. Ends with a checkpoint that
    `acclimate train mazes --start` and `acclimate export` take.

    A quick look: acclimate train maze-lessons --memory-minutes 1 --eyes-minutes 1
    --together-minutes 1 --engines 8
    """
    need("training mazes", "torch", "vizdoom")
    import torch

    from training import distributed
    from training.maze_lessons import teach
    from training.maze_pupil import FILE, STAGES, Plan, begin, finish, load, new_pupil
    from training.run import stop_on_signal
    from training.tasks.mazes.engine import EngineError

    folder = out or Path("runs") / f"mazes-{seed}"
    plan = Plan(
        memory_minutes=memory_minutes,
        eyes_minutes=eyes_minutes,
        together_minutes=together_minutes,
        memory_rate=memory_rate,
        together_rate=together_rate,
        streams=streams,
        engines=engines,
        workers=workers,
        larger=larger,
        hard=hard,
        part=part,
        noise=noise,
        help_after=help_after,
        varied=varied,
    )
    if steps:
        plan = replace(plan, steps=tuple(steps))
    if again and again not in STAGES:
        refuse(f"--again: expected one of {', '.join(STAGES)}, got {again}")
    if again and not resume:
        refuse("--again: expected --resume beside it: nothing was learned before")
    path = folder / FILE
    if path.exists() and not resume:
        refuse(f"{path} exists: add --resume to go on with it, or choose another --out")
    torch.set_num_threads(threads)
    # Products of numbers rounded to bfloat16, where the processor has units for them.
    torch.set_float32_matmul_precision("medium")
    folder.mkdir(parents=True, exist_ok=True)

    def show(entry: dict[str, float]) -> None:
        if distributed.number() == 0 and int(entry["iteration"]) % 10 == 0:
            figures = "  ".join(
                f"{name} {value:.4g}" for name, value in entry.items() if name != "stage"
            )
            say(escape(f"{STAGES[int(entry['stage'])]}: {figures}"))

    notes.quiet = False
    with distributed.together(), stop_on_signal() as stop:
        try:
            pupil = load(path) if resume else new_pupil(seed)
            if again:
                begin(pupil, again)
            done = teach(pupil, plan, folder, lambda: bool(stop.by), show, save_every)
            finish(pupil, plan, folder, threads)
        except (ValueError, EngineError, FloatingPointError) as error:
            refuse(f"{error}; {path} is the last good checkpoint, if there is one")
    say(f"{'done' if done else 'stopped'}: {pupil.steps:,} steps; {path} is whole")


def mazes(
    ctx: typer.Context,
    iterations: Iterations = None,
    minutes: Minutes = None,
    seed: Seed = 1,
    out: Annotated[
        Path | None, typer.Option(help="Where checkpoint and plots go; runs/mazes-trpo-SEED.")
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(help="A run of `maze-lessons` whose policy TRPO begins with; none: scratch."),
    ] = None,
    resume: Resume = False,
    save_every: SaveEvery = 1,
    check_every: CheckEvery = 1_000_000,
    threads: Threads = 1,
    device: Device = "cpu",
    engines: Annotated[int, typer.Option(min=1, help="Trials at once.")] = 16,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that play, engines included; none given: one a core."),
    ] = None,
    batches_an_iteration: Annotated[int, typer.Option(min=1, help="Batches of trials.")] = 2,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes a trial.")] = 2,
    steps: Annotated[int, typer.Option(min=1, help="Steps a trial at most.")] = 300,
    varied: Annotated[
        bool, typer.Option("--varied", help="Mazes in the engine differ in textures and light.")
    ] = False,
    in_model: Annotated[
        bool,
        typer.Option(
            "--in-model",
            help="Walk in the model of the engine, on rays in place of pictures: the memory learns "
            "ten times as fast, and the eyes stay as they are.",
        ),
    ] = False,
    larger: Annotated[
        float, typer.Option(min=0, max=1, help="In the model: share of mazes of 4×4 rooms.")
    ] = 0.0,
    hard: Annotated[
        float,
        typer.Option(min=0, max=1, help="In the model: share of mazes that take a search long."),
    ] = 0.0,
    noise: Annotated[
        float, typer.Option(min=0, help="In the model: deviation added to rays.")
    ] = 0.03,
    expected_rewards: Annotated[
        bool,
        typer.Option(
            help="Returns add up how much farther the target is than it need be, by one who knows "
            "the maze, instead of rewards: less noise, simulator only."
        ),
    ] = _TRPO.expected_rewards,
    discount: Discount = _TRPO.discount,
    gae_lambda: GaeLambda = _TRPO.gae_lambda,
    radius: Radius = _TRPO.radius,
    damping: Damping = _TRPO.damping,
    cg_iterations: CgIterations = _TRPO.cg_iterations,
    fisher_trials: FisherTrials = _TRPO.fisher_trials,
    fisher_times: FisherTimes = _TRPO.fisher_times,
    critic_rate: CriticRate = _TRPO.critic_rate,
    critic_epochs: CriticEpochs = _TRPO.critic_epochs,
    critic_batches: CriticBatches = _TRPO.critic_batches,
) -> None:
    """Train on mazes by TRPO in ViZDoom: from the policy of some lessons, or from scratch.

    Workers play, each with its engines and a copy of the policy; the learner is here. The critic is
    told how far the target is; the policy never is. Stopping, resuming, refusals and `torchrun` are
    as in `acclimate train bandits`.

    A policy trained with --in-model goes on in ViZDoom by another run's --start, and is exported
    with the eyes that it began with.

    A quick look: acclimate train mazes --minutes 2 --engines 4 --batches-an-iteration 1
    """
    need("training mazes", "torch", "vizdoom", "matplotlib")
    from training.checkpoints import FILE, CheckpointError, load
    from training.maze_curriculum import MazeCurriculum, new_critic
    from training.policies.network import build
    from training.policies.vision import Vision, told_rays
    from training.tasks.mazes.engine import EngineError
    from training.tasks.mazes.workers import usable_cores

    def curriculum() -> MazeCurriculum:
        return MazeCurriculum(
            engines=engines,
            workers=workers or max(1, min(engines, len(usable_cores()))),
            batches_an_iteration=batches_an_iteration,
            episodes=episodes,
            steps=steps,
            layouts_seed=seed,
            varied=varied,
            in_model=in_model,
            larger=larger,
            hard=hard,
            noise=noise,
        )

    def networks() -> tuple[Network, Critic]:
        policy = build("vision", {}, seed=seed)
        assert isinstance(policy, Vision)
        if start is not None and not resume:
            begun, *_ = load(start / FILE if start.is_dir() else start)
            if not isinstance(begun.policy, Vision):
                raise CheckpointError(
                    f"--start: expected a policy that sees, got {begun.policy.name}"
                )
            policy = begun.policy
        return told_rays(policy, in_model), new_critic(seed)

    folder = out or Path("runs") / f"mazes-trpo-{seed}"
    try:
        train(ctx, folder, curriculum, networks)
    except EngineError as error:
        refuse(f"{error}; {folder / FILE} is the last good checkpoint, if there is one")
