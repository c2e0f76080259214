"""`acclimate evaluate workflows`: how good a bundle is on simulated workflows, next to its peers.

It must never write anything but the report it was asked for.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from contract.bundle import BundleError
from contract.policy import OnnxPolicy
from training import evaluate_workflows as evaluation
from training.evaluate_workflows import Row, Settings
from training.peers.roster import named, tuned
from training.peers.study import STUDY_STEPS, study, training_accounts
from training.progress import progress_bar
from training.tasks.workflows.families import (
    FAMILIES,
    HELD_OUT_VERTICALS,
    TRAINING_VERTICALS,
    family_spec,
)
from training.workflow_scores import BATCH, Score

BAD_INPUT = 2

DECISION_KINDS = (
    "support-routing",
    "fraud-step-up",
    "onboarding",
    "retention-offer",
    "lead-qualification",
)
"""The workflows that are evaluated unless others are asked for."""

SPLITS = {"held-out": HELD_OUT_VERTICALS, "training": TRAINING_VERTICALS}


def workflows(
    policy: Annotated[Path, typer.Option(help="The bundle's directory.")],
    split: Annotated[
        str, typer.Option(help="held-out: verticals that no training or tuning saw; or training.")
    ] = "held-out",
    workflow: Annotated[
        list[str] | None, typer.Option(help="May be repeated. Default: the five decision kinds.")
    ] = None,
    vertical: Annotated[
        list[str] | None, typer.Option(help="Of the split; may be repeated. Default: all.")
    ] = None,
    accounts: Annotated[int, typer.Option(help="Accounts of each vertical, at least 2.")] = 1_000,
    decisions: Annotated[int, typer.Option(help="Decisions of each account.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Fixes accounts, coins and every draw.")] = 0,
    peer: Annotated[
        list[str] | None, typer.Option(help="Who else plays; may be repeated. Default: all.")
    ] = None,
    delay: Annotated[
        int | None, typer.Option(help="Every feedback comes so many decisions late.")
    ] = None,
    change_at: Annotated[
        int | None,
        typer.Option(help="Every account becomes another after so many decisions: recovery."),
    ] = None,
    greedy: Annotated[
        bool, typer.Option("--greedy", help="Take the most probable action instead of sampling.")
    ] = False,
    blind: Annotated[
        bool, typer.Option("--blind", help="Show the policy no context, so that any policy fits.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help="Also write report.md and its pictures here.")
    ] = None,
    only_json: Annotated[
        bool, typer.Option("--json", help="Only JSON on standard output.")
    ] = False,
) -> None:
    """Simulated accounts of real decision kinds, on verticals that nothing was trained or tuned on:
    the same accounts, contexts and coins for every player.

    A batch is 10 decisions: batch 1 is decisions 1-10, batch 5 is 41-50, batch 20 is 191-200. The
    reward is the expected reward of the action served, wherever it was not forced. Peers are tuned
    on the training verticals (python -m training.peers.tune); fitted ones take their prior from
    there, on the way.
    """
    notes = Console(stderr=True)
    command = shlex.join(["acclimate", *sys.argv[1:]])
    settings = Settings(accounts, decisions, seed, delay, change_at, greedy, blind)
    try:
        peers = named(peer)
        asked = asked_for(split, workflow, vertical)
        refuse_impossible(settings)
        if report is not None and report.exists() and not report.is_dir():
            raise ValueError(f"--report: expected a directory, got the file {report}")
        loaded = OnnxPolicy.load(policy)
        for name in asked:
            evaluation.refuse_misfit(loaded, family_spec(name), blind=blind)
        rows = _play(loaded, asked, peers, settings, notes)
    except (BundleError, ValueError) as error:
        notes.print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(BAD_INPUT) from error
    if report is not None:
        from training.report_workflows import write_workflow_report

        write_workflow_report(
            report, rows, loaded.manifest.policy, settings, split=split, command=command
        )
        notes.print(f"report: {report / 'report.md'}", highlight=False, soft_wrap=True)
    if only_json:
        numbers = evaluation.as_json(rows, loaded.manifest.policy, settings)
        typer.echo(json.dumps(numbers, indent=2))
        return
    out = Console()
    for each in evaluation.by_workflow(rows):
        out.print(_table(evaluation.pool(each, settings), loaded.manifest.policy, len(each)))
    out.print(
        f"{accounts:,} accounts of each vertical, seed {seed}. Mean reward in a batch of 10 "
        "decisions, and what the policy earned more, on the same accounts and coins, ± one "
        "standard error. after: the first interaction at which the cohort has closed 80 % of the "
        "gap from fallback to oracle. *: the best peer on the training verticals. Those named "
        "pooled_ learn from one account for another. --report has every vertical.",
        highlight=False,
    )


def asked_for(
    split: str, workflows: Sequence[str] | None, verticals: Sequence[str] | None
) -> dict[str, tuple[str, ...]]:
    """The verticals to play, by workflow. Raises ValueError naming the option."""
    if split not in SPLITS:
        raise ValueError(f"--split: expected {' or '.join(SPLITS)}, got {split!r}")
    for name in workflows or ():
        if name not in FAMILIES:
            raise ValueError(f"--workflow: expected one of {', '.join(FAMILIES)}, got {name!r}")
    names = [name for name in FAMILIES if name in (workflows or DECISION_KINDS)]
    known = [each for name in names for each in SPLITS[split][name]]
    for each in verticals or ():
        if each not in known:
            raise ValueError(f"--vertical: expected one of {', '.join(known)}, got {each!r}")
    chosen = {
        name: tuple(each for each in SPLITS[split][name] if not verticals or each in verticals)
        for name in names
    }
    return {name: each for name, each in chosen.items() if each}


def refuse_impossible(settings: Settings) -> None:
    """Raises ValueError naming the option of what cannot be played."""
    if settings.accounts < 2:
        raise ValueError(
            f"--accounts: expected at least 2, for a standard error, got {settings.accounts}"
        )
    if settings.decisions < BATCH:
        raise ValueError(
            f"--decisions: expected at least {BATCH}, one batch, got {settings.decisions}"
        )
    for option, value in (("--delay", settings.delay), ("--change-at", settings.change_at)):
        least = 1 if option == "--change-at" else 0
        if value is not None and not least <= value < settings.decisions:
            raise ValueError(
                f"{option}: expected {least} to {settings.decisions - 1}, within the "
                f"{settings.decisions} decisions, got {value}"
            )


def _play(
    policy: OnnxPolicy,
    asked: Mapping[str, Sequence[str]],
    peers: Sequence[str],
    settings: Settings,
    notes: Console,
) -> list[Row]:
    """Plays every vertical, with a progress bar."""
    rows = []
    with progress_bar(notes) as bar:
        count = sum(map(len, asked.values())) * evaluation.decisions(peers, settings)
        task = bar.add_task(policy.manifest.policy, total=count)
        for name, verticals in asked.items():
            if name not in tuned():
                notes.print(f"{name}: its peers are not tuned; python -m training.peers.tune")
            fit = bar.add_task(f"{name}: what its peers know beforehand", total=STUDY_STEPS)
            known = study(
                name,
                TRAINING_VERTICALS[name],
                partial(training_accounts, name),
                peers,
                on_step=partial(bar.advance, fit),
            )
            bar.remove_task(fit)
            for vertical in verticals:
                bar.update(task, description=f"{policy.manifest.policy} on {name}, {vertical}")
                rows.append(
                    evaluation.evaluate(
                        policy, name, vertical, known, peers, settings, partial(bar.advance, task)
                    )
                )
    return rows


def _table(row: Row, policy: str, verticals: int) -> Table:
    title = f"{row.workflow}: {verticals} verticals pooled, {row.policy.accounts:,} accounts"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    table.add_column("batch", no_wrap=True)
    for batch in row.policy.reward:
        table.add_column(str(batch), justify="right", no_wrap=True)
        table.add_column("policy −", justify="right", no_wrap=True)
    table.add_column("after", justify="right", no_wrap=True)
    best = (found := tuned().get(row.workflow)) and found.best_peer
    table.add_row(policy, *_cells(row.policy, own=True), style="bold", end_section=True)
    for name, one in (row.peers | row.pooling).items():
        table.add_row(f"{name}*" if name == best else name, *_cells(one))
    table.add_row("oracle", *_cells(row.oracle))
    return table


def _cells(score: Score, own: bool = False) -> list[str]:
    cells = []
    for batch, earned in score.reward.items():
        gap = score.difference[batch]
        cells += [_short(earned.mean), "" if own else f"{_short(gap.mean, '+')}±{_short(gap.se)}"]
    return [*cells, "never" if score.adaptation is None else str(score.adaptation)]


def _short(value: float, sign: str = "-") -> str:
    """Three decimals, and no zero before them: eighty columns hold a table."""
    return f"{value:{sign}.3f}".replace("0.", ".", 1)
