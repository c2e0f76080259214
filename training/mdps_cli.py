"""`acclimate train mdps`: meta-training on tabular MDPs.

Importable without torch, which is loaded only inside the command.
"""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from training.curriculum import Curriculum, MdpCurriculum, settings_of
from training.hyperparameters import Hyperparameters
from training.informed_mdps import TOLD
from training.tasks.mdps import ACTIONS, EPISODE_STEPS, REWARD_RANGE, STATES
from training.train_command import (
    CgIterations,
    CriticBatches,
    CriticEpochs,
    CriticRate,
    Damping,
    Discount,
    FisherTimes,
    FisherTrials,
    GaeLambda,
    Radius,
    need,
    option,
    refuse,
    refuse_other_settings,
    train_until_done,
    typed,
)

_FAMILY = MdpCurriculum()
_DEFAULT = Hyperparameters(
    teacher="planner",
    lessons=40,
    lesson_rate=0.03,
    lesson_times=0.1,
    lesson_parts=2,
    gae_lambda=0.97,
    radius=0.003,
    cg_iterations=8,
    fisher_trials=0.5,
    fisher_times=0.1,
    critic_rate=3e-3,
    critic_epochs=4,
    critic_batches=4,
)


class NetworkName(StrEnum):
    """The networks there are."""

    planning = "planning"
    actionwise = "actionwise"
    gru = "gru"


def mdps(
    ctx: typer.Context,
    network: Annotated[
        NetworkName,
        typer.Option(help="planning: counts as memory, a planner as head. The others: a GRU."),
    ] = NetworkName.planning,
    iterations: Annotated[
        int | None, typer.Option(min=1, help="Stop once this many are done, resumptions included.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.01, help="Stop after this much training time instead.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Fixes weights, tasks and draws.")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="Where checkpoint and plots go; runs/mdps-NETWORK-SEED.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint in --out, exactly.")
    ] = False,
    save_every: Annotated[int, typer.Option(min=1, help="Iterations between checkpoints.")] = 10,
    check_every: Annotated[
        int, typer.Option(min=1, help="Iterations between looks at the fixed trials.")
    ] = 20,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    width: Annotated[
        int, typer.Option(min=1, help="Width of planning's or actionwise's head.")
    ] = 16,
    shared: Annotated[int, typer.Option(min=1, help="actionwise: shared memory, floats.")] = 64,
    row: Annotated[int, typer.Option(min=1, help="actionwise: memory an action, floats.")] = 32,
    hidden: Annotated[int, typer.Option(min=1, help="gru: size of the hidden state.")] = 256,
    teacher: Annotated[
        str, typer.Option(help="planner shows what to do first; none: TRPO from scratch.")
    ] = _DEFAULT.teacher,
    lessons: Annotated[
        int, typer.Option(help="Iterations of imitation (DAgger) before TRPO.")
    ] = _DEFAULT.lessons,
    lesson_rate: Annotated[
        float, typer.Option(help="Adam's rate in the first lesson.")
    ] = _DEFAULT.lesson_rate,
    lesson_times: Annotated[
        float, typer.Option(help="Share of a trial's steps a lesson looks at.")
    ] = _DEFAULT.lesson_times,
    lesson_parts: Annotated[
        int, typer.Option(help="Steps of Adam a batch of lessons.")
    ] = _DEFAULT.lesson_parts,
    episodes: Annotated[
        tuple[int, int], typer.Option(help="Fewest and most episodes a trial.")
    ] = _FAMILY.episodes,
    growing: Annotated[
        int, typer.Option(help="Iterations over which the most episodes grow; 0: none.")
    ] = _FAMILY.growing,
    horizons: Annotated[
        int, typer.Option(help="Numbers of episodes drawn an iteration.")
    ] = _FAMILY.horizons,
    steps_per_horizon: Annotated[
        int, typer.Option(help="Interactions played on each.")
    ] = _FAMILY.steps_per_horizon,
    expected_rewards: Annotated[
        bool,
        typer.Option(
            help="Returns add up what actions cost against the optimal policy, not sampled "
            "rewards: unbiased, far less noise, simulator only."
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
    """Train on tabular MDPs: lessons from the planner (DAgger) first, then TRPO.

    10 states, 5 actions, episodes of 10 steps (Duan et al. 2016). Every iteration plays several
    numbers of episodes, log-uniform in their range. The critic is told what only a simulator knows;
    the policy never is. Stopping, resuming and refusals are as in `acclimate train bandits`.

    A quick look (a minute): acclimate train mdps --minutes 1
    """
    need("training", "torch", "matplotlib")
    from training.checkpoints import FILE, CheckpointError, load, refuse_other_architecture
    from training.policies.network import architecture, build, build_critic
    from training.run import Schedule, machine
    from training.teachers import build_teacher
    from training.trpo import new_learner

    out = out or Path("runs") / f"mdps-{network}-{seed}"
    path = out / FILE
    try:
        curriculum: Curriculum = MdpCurriculum(
            horizons=horizons,
            steps_per_horizon=steps_per_horizon,
            episodes=episodes,
            growing=growing,
        )
        wanted = Hyperparameters(
            teacher=teacher,
            lessons=lessons,
            lesson_rate=lesson_rate,
            lesson_times=lesson_times,
            lesson_parts=lesson_parts,
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
        if wanted.teacher != "none":
            build_teacher(wanted.teacher).lessons(curriculum)
    except ValueError as error:
        field, _, expected = str(error).partition(":")
        refuse(f"{option(field)}:{expected}")
    if iterations is None and minutes is None:
        refuse("say when to stop: --iterations or --minutes")
    if out.exists() and not out.is_dir():
        refuse(f"--out: expected a directory, but {out} is a file")
    known: dict[NetworkName, dict[str, Any]] = {
        NetworkName.planning: {
            "actions": ACTIONS,
            "context": STATES,
            "episode": EPISODE_STEPS,
            "reward_scale": (REWARD_RANGE[1] - REWARD_RANGE[0]) / 2.0,
            "width": width,
        },
        NetworkName.actionwise: {"context": STATES, "shared": shared, "row": row, "width": width},
        NetworkName.gru: {"actions": ACTIONS, "context": STATES, "hidden": hidden},
    }
    sizes = known[network]
    try:
        policy = build(network, sizes, seed=seed)
        if resume:
            learner, record, wanted, curriculum = load(path)
            refuse_other_architecture(path, learner, architecture(policy))
            settings = asdict(wanted) | settings_of(curriculum)
            refuse_other_settings(ctx, path, {"seed": record["seed"], **settings})
        elif path.exists():
            raise ValueError(
                f"{path} exists: add --resume to go on with it, or choose another --out"
            )
        else:
            critic = build_critic("informed", {"told": TOLD}, seed=seed + 1)
            learner = new_learner(policy, critic, seed, wanted)
            record = {
                "seed": seed,
                "command": typed(),
                "seconds": 0.0,
                "task": curriculum.name,
                "machine": machine(threads),
            }
    except (ValueError, CheckpointError) as error:
        refuse(str(error))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        refuse(f"--out: {out} cannot be a directory: {error.strerror}")
    schedule = Schedule(iterations, minutes, check_every=check_every, save_every=save_every)
    train_until_done(learner, wanted, curriculum, record, schedule, out, threads)
