"""`acclimate evaluate households`: how good a bundle is on real purchases it was not trained on.

It must never write anything but its result.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from contract.bundle import BundleError
from contract.policy import OnnxPolicy
from contract.spec import SpecError, load_workflow
from training.evaluate_households import evaluate_households, purchases, refuse_misfit, to_json
from training.household_scores import Estimate, FamilyScore
from training.progress import progress_bar
from training.tasks.households import HouseholdsMissingError, load_panels

FAILED = 1
BAD_INPUT = 2

WORKFLOW = "brand-choice"


def households(
    policy: Annotated[Path, typer.Option(help="The bundle's directory.")],
    permutations: Annotated[
        int, typer.Option(min=1, max=1_000, help="Label permutations each household is met under.")
    ] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Fixes permutations and every draw.")] = 0,
    greedy: Annotated[
        bool, typer.Option("--greedy", help="Take the most probable brand instead of sampling.")
    ] = False,
    workflows: Annotated[Path, typer.Option(help="Folder of workflow files.")] = Path("workflows"),
    as_json: Annotated[bool, typer.Option("--json", help="Only JSON on standard output.")] = False,
) -> None:
    """Real households choosing brands: catsup, cracker, yogurt, and all of them pooled.

    One brand is offered at each purchase, and the reward is 1 when the household bought it: that is
    prediction of the next purchase under bandit feedback, not persuasion. Brand labels are permuted
    for each household, alike for every player, so that labels carry nothing. The horizon is that of
    workflows/brand-choice.yaml. ts_fitted is Thompson sampling with an exchangeable prior fitted on
    the other half of the households.
    """
    notes = Console(stderr=True)
    try:
        spec = load_workflow(workflows / f"{WORKFLOW}.yaml")
        loaded = OnnxPolicy.load(policy)
        refuse_misfit(loaded, spec)
        panels = load_panels()
    except HouseholdsMissingError as error:
        notes.print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(FAILED) from error
    except (BundleError, SpecError, ValueError) as error:
        notes.print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(BAD_INPUT) from error
    with progress_bar(notes) as bar:
        task = bar.add_task(loaded.manifest.policy, total=purchases(panels, permutations))
        scores = evaluate_households(
            loaded,
            spec,
            panels,
            permutations=permutations,
            seed=seed,
            greedy=greedy,
            on_purchases=lambda count: bar.advance(task, count),
        )
    if as_json:
        typer.echo(json.dumps(to_json(scores, loaded.manifest.policy), indent=2))
        return
    out = Console()
    for score in scores:
        out.print(_table(score, loaded.manifest.policy))
    out.print(
        f"{permutations} label permutations, seed {seed}; ± is one standard error over households. "
        "reward: share of all purchases predicted. policy − player: paired by household; each "
        "alike: the same with every household counted once. adapted: the first interaction at "
        "which the cohort's mean reward has closed 80 % of the gap from chance to each "
        "household's favourite brand. Rows ending in brand_aware know the brands, which the "
        "policy does not.",
        highlight=False,
    )


def _table(score: FamilyScore, policy: str) -> Table:
    title = f"{score.family}: {score.households} households, adapted at {score.target:.2f}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    table.add_column("player", no_wrap=True)
    for column in ("reward", "policy − player", "each alike", "adapted"):
        table.add_column(column, justify="right", no_wrap=True)
    players = {policy: score.policy} | score.baselines
    for name, player in players.items():
        reached = player.adaptation_interactions
        own = player is score.policy
        table.add_row(
            name,
            f"{player.reward.mean:.3f} ± {player.reward.se:.3f}",
            "" if own else _signed(player.difference),
            f"{player.household_reward.mean:.3f}" if own else _signed(player.household_difference),
            "never" if reached is None else str(reached),
            style="bold" if own else None,
        )
    return table


def _signed(difference: Estimate) -> str:
    return f"{difference.mean:+.3f} ± {difference.se:.3f}"
