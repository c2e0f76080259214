"""What each phase of a training gained, as its report says it: on the fixed trials of its curve.

It measures only what a checkpoint cannot hold, the network before its first iteration.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from training.curriculum import Curriculum
from training.hyperparameters import Hyperparameters
from training.ledger_training import FIT
from training.maze_pupil import STAGES
from training.policies.network import build
from training.run import look
from training.trpo import Learner

_ENDS = 5
"""Iterations at either end of a phase over which what it gained is averaged."""
_KEPT = {"iteration", "steps", "minutes", "stage"}
"""What a history keeps beside its figures."""


def told_of_phases(
    learner: Learner, seed: int, hyperparameters: Hyperparameters, curriculum: Curriculum, run: Path
) -> str:
    """A section of Markdown; empty where a training has a single phase.

    `run` is the directory of the checkpoint, `seed` what the first weights were drawn with.
    """
    if not curriculum.looks(learner.policy.action_range):
        return told_as_played(learner.history)
    first, ledger = hyperparameters.prepared, run / FIT
    checked = [one for one in learner.history if _looks(one, learner, curriculum)]
    if not checked or not (first or ledger.is_file()):
        return ""
    untrained = build(learner.policy.name, asdict(learner.policy.sizes), seed)
    rows = [("untrained", look(untrained, curriculum))]
    before = [one for one in checked if one["iteration"] <= first]
    if before:
        rows.append((f"after {before[-1]['iteration']:.0f} iterations", before[-1]))
    if checked[-1]["iteration"] > first:
        name = f"after {checked[-1]['iteration']:.0f} iterations, TRPO from {first + 1}"
        rows.append((name, checked[-1]))
    names = [one.name for one in curriculum.looks(learner.policy.action_range)]
    lines = [
        "## What each phase gained",
        "",
        "Mean expected reward of a trial on the fixed trials of the curve, luck taken off.",
        "",
        f"| | {' | '.join(names)} |",
        f"|---|{'---|' * len(names)}",
        *(f"| {said} | {' | '.join(f'{row[n]:.2f}' for n in names)} |" for said, row in rows),
    ]
    lines += _surprise(learner.history)
    if ledger.is_file():
        lines += _fitted(json.loads(ledger.read_text()))
    return "\n".join(lines)


def told_as_played(history: Sequence[dict[str, float]]) -> str:
    """The same for a family without fixed trials: its curve at either end of each phase.

    Empty where a training has a single phase.
    """
    phases = [
        (stage, list(entries)) for stage, entries in groupby(history, lambda one: one.get("stage"))
    ]
    if len(phases) < 2:
        return ""
    lines = [
        "## What each phase gained",
        "",
        f"Means over the first and the last {_ENDS} iterations of each phase, on training tasks",
        "as they came: the later ones may be harder.",
        "",
        "| phase | iterations | | first | last |",
        "|---|---|---|---|---|",
    ]
    for stage, entries in phases:
        name = "TRPO" if stage is None else STAGES[int(stage)]
        for figure in dict.fromkeys(key for entry in entries for key in entry if key not in _KEPT):
            told = [entry[figure] for entry in entries if figure in entry]
            ends = (sum(part) / len(part) for part in (told[:_ENDS], told[-_ENDS:]))
            first, last = (f"{end:.4g}" for end in ends)
            lines.append(f"| {name} | {len(entries)} | {figure} | {first} | {last} |")
    return "\n".join(lines)


def _looks(entry: dict[str, float], learner: Learner, curriculum: Curriculum) -> bool:
    return all(one.name in entry for one in curriculum.looks(learner.policy.action_range))


def _surprise(history: list[dict[str, float]]) -> list[str]:
    """How much better rewards were foretold at the end of the fit than at its start."""
    found = [entry["surprise"] for entry in history if "surprise" in entry]
    if len(found) < 2 * _ENDS:
        return []
    start, end = (sum(part) / _ENDS for part in (found[:_ENDS], found[-_ENDS:]))
    return [
        "",
        "Surprise, the mean negative log-likelihood of a reward before it was learned: "
        f"{start:.3f} over the first {_ENDS} iterations of the fit, {end:.3f} over its last.",
    ]


def _fitted(fit: dict[str, Any]) -> list[str]:
    """What the fit to a ledger gained, on accounts that it did not see."""
    return [
        "",
        f"Beliefs were fitted to {fit['accounts'] - fit['held_out']:,} accounts of a ledger. "
        f"Surprise on {fit['held_out']:,} others: {fit['before']:.4f} before, {fit['after']:.4f} "
        f"after, {fit['action_means']:.4f} by the mean of each action alone.",
    ]
