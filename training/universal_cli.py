"""`acclimate train universal`: meta-training on contextual decisions of every kind.

Importable without torch, which is loaded only inside the command.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from training.contextual_curriculum import ContextualCurriculum
from training.hyperparameters import Hyperparameters
from training.tasks.contextual import ACTION_FEATURES, SLOTS
from training.tasks.task import TOLD
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
    Fitting,
    FittingRate,
    GaeLambda,
    Iterations,
    Minutes,
    Radius,
    Resume,
    SaveEvery,
    Seed,
    Threads,
    need,
    train,
)

if TYPE_CHECKING:
    from training.policies.network import Critic, Network

_FAMILY = ContextualCurriculum()
_DEFAULT = Hyperparameters(fitting=40, discount=0.99, gae_lambda=0.95, radius=0.003)


def universal(
    ctx: typer.Context,
    iterations: Iterations = None,
    minutes: Minutes = None,
    seed: Seed = 1,
    out: Annotated[
        Path | None, typer.Option(help="Where checkpoint and plots go; runs/universal-SEED.")
    ] = None,
    resume: Resume = False,
    save_every: SaveEvery = 10,
    check_every: CheckEvery = 20,
    threads: Threads = 1,
    device: Device = "cpu",
    shared: Annotated[int, typer.Option(min=1, help="Recurrent shared memory, floats.")] = 24,
    row: Annotated[int, typer.Option(min=1, help="Recurrent memory an action, floats.")] = 12,
    width: Annotated[int, typer.Option(min=1, help="Width of the head.")] = 48,
    fitting: Fitting = _DEFAULT.fitting,
    fitting_rate: FittingRate = _DEFAULT.fitting_rate,
    actions: Annotated[
        tuple[int, int], typer.Option(help="Fewest and most actions.")
    ] = _FAMILY.actions,
    decisions: Annotated[
        tuple[int, int], typer.Option(help="Fewest and most decisions an account.")
    ] = _FAMILY.decisions,
    choice_share: Annotated[
        float, typer.Option(help="Share of families in which at most one action pays.")
    ] = _FAMILY.choice_share,
    bandit_share: Annotated[
        float, typer.Option(help="Share of families without a context.")
    ] = _FAMILY.bandit_share,
    funnel_share: Annotated[
        float, typer.Option(help="Share of families that are small MDPs.")
    ] = _FAMILY.funnel_share,
    delay_share: Annotated[
        float, typer.Option(help="Share of families whose feedback is late or in batches.")
    ] = _FAMILY.delay_share,
    horizons: Annotated[
        int, typer.Option(help="Numbers of decisions drawn an iteration.")
    ] = _FAMILY.horizons,
    groups: Annotated[
        int, typer.Option(help="Numbers of actions drawn for each number of decisions.")
    ] = _FAMILY.groups,
    families: Annotated[
        int, typer.Option(help="Families drawn for each number of actions.")
    ] = _FAMILY.families,
    steps_per_group: Annotated[
        int, typer.Option(help="Interactions played on each.")
    ] = _FAMILY.steps_per_group,
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
    """Train one policy for every workflow: any actions, any context of up to 16 slots.

    First its beliefs are fitted by likelihood, without reinforcement; then they stand still, and
    TRPO trains the head and the recurrent memory. No workflow is ever played. It stops, saves and
    resumes as `acclimate train bandits` does.

    A quick look (a few minutes): acclimate train universal --minutes 3
    """
    need("training", "torch", "matplotlib")

    def networks() -> tuple[Network, Critic]:
        from training.policies.network import build, build_critic

        sizes = {
            "shared": shared,
            "row": row,
            "width": width,
            "context": SLOTS,
            "action_features": ACTION_FEATURES,
        }
        return build("contextual", sizes, seed), build_critic("informed", {"told": TOLD}, seed + 1)

    train(
        ctx,
        out or Path("runs") / f"universal-{seed}",
        lambda: ContextualCurriculum(
            horizons=horizons,
            groups=groups,
            families=families,
            steps_per_group=steps_per_group,
            actions=actions,
            decisions=decisions,
            choice_share=choice_share,
            bandit_share=bandit_share,
            funnel_share=funnel_share,
            delay_share=delay_share,
        ),
        networks,
    )
