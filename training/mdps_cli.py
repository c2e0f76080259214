"""`acclimate train mdps`: meta-training on tabular MDPs.

Importable without torch, which is loaded only inside the command.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from training.curriculum import MdpCurriculum
from training.hyperparameters import Hyperparameters
from training.informed_mdps import TOLD
from training.tasks.mdps import ACTIONS, EPISODE_STEPS, REWARD_RANGE, STATES
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
    train,
)

if TYPE_CHECKING:
    from training.policies.network import Critic, Network

_FAMILY = MdpCurriculum()
_DEFAULT = Hyperparameters(
    teacher="planner",
    lessons=40,
    lesson_rate=0.03,
    lesson_times=0.1,
    lesson_passes=1,
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
    iterations: Iterations = None,
    minutes: Minutes = None,
    seed: Seed = 1,
    out: Annotated[
        Path | None, typer.Option(help="Where checkpoint and plots go; runs/mdps-NETWORK-SEED.")
    ] = None,
    resume: Resume = False,
    save_every: SaveEvery = 10,
    check_every: CheckEvery = 20,
    threads: Threads = 1,
    device: Device = "cpu",
    width: Annotated[
        int, typer.Option(min=1, help="Width of planning's or actionwise's head.")
    ] = 16,
    shared: Annotated[int, typer.Option(min=1, help="actionwise: shared memory, floats.")] = 64,
    row: Annotated[int, typer.Option(min=1, help="actionwise: memory an action, floats.")] = 32,
    hidden: Annotated[int, typer.Option(min=1, help="gru: size of the hidden state.")] = 256,
    teacher: Annotated[
        str, typer.Option(help="planner shows what to do first; none: TRPO from scratch.")
    ] = _DEFAULT.teacher,
    lessons: Lessons = _DEFAULT.lessons,
    lesson_rate: LessonRate = _DEFAULT.lesson_rate,
    lesson_times: LessonTimes = _DEFAULT.lesson_times,
    lesson_passes: LessonPasses = _DEFAULT.lesson_passes,
    lesson_parts: LessonParts = _DEFAULT.lesson_parts,
    revise: Revise = _DEFAULT.revise,
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
    the policy never is. Stopping, resuming, refusals and `torchrun` are as in `acclimate train
    bandits`.

    A quick look (a minute): acclimate train mdps --minutes 1
    """
    need("training", "torch", "matplotlib")
    from training.policies.network import build, build_critic

    def curriculum() -> MdpCurriculum:
        return MdpCurriculum(
            horizons=horizons,
            steps_per_horizon=steps_per_horizon,
            episodes=episodes,
            growing=growing,
        )

    def networks() -> tuple[Network, Critic]:
        known: dict[NetworkName, dict[str, Any]] = {
            NetworkName.planning: {
                "actions": ACTIONS,
                "context": STATES,
                "episode": EPISODE_STEPS,
                "reward_scale": (REWARD_RANGE[1] - REWARD_RANGE[0]) / 2.0,
                "width": width,
            },
            NetworkName.actionwise: {
                "context": STATES,
                "shared": shared,
                "row": row,
                "width": width,
            },
            NetworkName.gru: {"actions": ACTIONS, "context": STATES, "hidden": hidden},
        }
        critic = build_critic("informed", {"told": TOLD}, seed=seed + 1)
        return build(network, known[network], seed=seed), critic

    folder = out or Path("runs") / f"mdps-{network}-{seed}"
    train(ctx, folder, curriculum, networks)
