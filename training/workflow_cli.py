"""`acclimate train workflow`: meta-training on one workflow's own simulator, or on its log.

Importable without torch, which is loaded only inside the command.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contract.encode import context_size
from contract.spec import SpecError, load_workflow
from training.hyperparameters import Hyperparameters
from training.ledger_curriculum import MODEL, LedgerCurriculum
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
    refuse,
    train,
)
from training.workflow_curriculum import WorkflowCurriculum

if TYPE_CHECKING:
    from training.curriculum import Curriculum
    from training.policies.network import Critic, Network

_FAMILY = WorkflowCurriculum("retention-offer")
_DEFAULT = Hyperparameters(fitting=120, fitting_rate=0.01, discount=0.99, gae_lambda=0.95)


def workflow(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="The workflow's YAML file.")],
    ledger: Annotated[
        Path | None,
        typer.Option(help="Learn from this exported ledger, .jsonl or .parquet; no simulator."),
    ] = None,
    iterations: Iterations = None,
    minutes: Minutes = None,
    seed: Seed = 1,
    out: Annotated[
        Path | None, typer.Option(help="Where checkpoint and plots go; runs/WORKFLOW-SEED.")
    ] = None,
    resume: Resume = False,
    save_every: SaveEvery = 10,
    check_every: CheckEvery = 20,
    threads: Threads = 1,
    device: Device = "cpu",
    shared: Annotated[int, typer.Option(min=1, help="Recurrent shared memory, floats.")] = 24,
    row: Annotated[int, typer.Option(min=1, help="Recurrent memory an action, floats.")] = 12,
    width: Annotated[int, typer.Option(min=1, help="Width of the head.")] = 48,
    features: Annotated[int, typer.Option(min=2, help="Learned features of the belief.")] = 16,
    kinds: Annotated[int, typer.Option(min=1, help="Kinds of accounts that it tells apart.")] = 4,
    fitting: Fitting = _DEFAULT.fitting,
    fitting_rate: FittingRate = _DEFAULT.fitting_rate,
    decisions: Annotated[
        tuple[int, int], typer.Option(help="Fewest and most decisions an account.")
    ] = _FAMILY.decisions,
    horizons: Annotated[
        int, typer.Option(help="Numbers of decisions drawn an iteration.")
    ] = _FAMILY.horizons,
    groups: Annotated[int, typer.Option(help="Verticals drawn for each.")] = _FAMILY.groups,
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
    """Train a policy for one workflow: on its simulator's training verticals alone, or on a log.

    First features and prior of its belief are fitted by likelihood, then they stand still and TRPO
    trains the head and the recurrent memory. The policy takes this workflow's actions and no
    others. It stops, saves and resumes as `acclimate train bandits` does.

    With --ledger, for workflows without a simulator, the belief is fitted to an exported ledger
    before the run; TRPO then plays accounts that are drawn from it, in contexts of the log.

    Example: acclimate train workflow workflows/retention-offer.yaml --minutes 20
    """
    need("training", "torch", "matplotlib")
    try:
        spec = load_workflow(file)
    except SpecError as error:
        refuse(str(error))

    folder = out or Path("runs") / f"{spec.workflow}-{seed}"
    if ledger is not None:
        need("--ledger", "torch")
        ctx.params["fitting"] = 0  # the belief is fitted before the run

    def curriculum() -> Curriculum:
        if ledger is not None:
            return LedgerCurriculum(
                str(folder / MODEL), horizons, groups, steps_per_group, decisions
            )
        return WorkflowCurriculum(
            workflow=spec.workflow,
            horizons=horizons,
            groups=groups,
            steps_per_group=steps_per_group,
            decisions=decisions,
        )

    def networks() -> tuple[Network, Critic]:
        from training.policies.network import build, build_critic

        sizes = {
            "shared": shared,
            "row": row,
            "width": width,
            "context": max(1, context_size(spec)),
            "action_features": len(spec.actions[0].features),
            "actions": len(spec.actions),
            "features": features,
            "kinds": kinds,
        }
        policy = build("contextual", sizes, seed)
        if ledger is not None and not resume:
            from training.ledger_training import fit_and_keep

            fit_and_keep(policy, ledger, spec, folder, fitting, fitting_rate, seed, threads)
        return policy, build_critic("informed", {"told": TOLD}, seed + 1)

    train(ctx, folder, curriculum, networks)
