"""What the guardrails cost a decision: limits in CEL, and what is settled under the account's lock.

Nothing is served: the functions are called as the service calls them, on contexts that are drawn.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from contract.safety import Scope
from contract.spec import (
    BooleanFeature,
    CategoryFeature,
    NumberFeature,
    WorkflowSpec,
    load_workflow,
)
from guardrails.conditions import NEWCOMER
from guardrails.exploration import Tallies
from guardrails.fallback import Fallback
from guardrails.guard import POLICY, Guard, Offer, Past
from guardrails.limits import Limits
from guardrails.tally import Tally, counted

BATCHES = (1, 32, 256)
"""Decisions that are made together."""
NOW_US = 1_800_000_000_000_000


@dataclass(frozen=True)
class Settings:
    """What is measured, and how long."""

    workflows: Path
    seed: int = 0
    decisions: int = 20_000
    """For each figure."""
    rounds: int = 5
    """The figure is the median of so many."""


def measured(settings: Settings) -> list[dict[str, Any]]:
    """Microseconds a decision, for each workflow of the folder. Raises SpecError."""
    found = []
    for path in sorted(settings.workflows.glob("*.yaml")):
        spec = load_workflow(path)
        chance = random.Random(settings.seed)
        contexts = [drawn(spec, chance) for _ in range(max(BATCHES))]
        found.append({
            "workflow": spec.workflow,
            "actions": len(spec.actions),
            "limits": len(spec.guardrails.limits) + len(spec.guardrails.required),
            "limits_us": {
                str(batch): _limits(spec, contexts[:batch], settings) for batch in BATCHES
            },
            "locked_us": _locked(spec, contexts, settings),
        })  # fmt: skip
    return found


def drawn(spec: WorkflowSpec, chance: random.Random) -> dict[str, Any]:
    """A checked context, every feature uniform in its range, and no picture: rules see none."""
    context: dict[str, Any] = {}
    for name, feature in spec.context.items():
        match feature:
            case CategoryFeature(values=values):
                context[name] = chance.choice(values)
            case BooleanFeature():
                context[name] = chance.random() < 0.5
            case NumberFeature():
                context[name] = chance.uniform(feature.min, feature.max)
    return context


def _limits(spec: WorkflowSpec, contexts: list[dict[str, Any]], settings: Settings) -> float:
    limits, everything = Limits(spec), [None] * len(contexts)
    return _each(lambda: limits.allow_each(contexts, everything), len(contexts), settings)


def _locked(spec: WorkflowSpec, contexts: list[dict[str, Any]], settings: Settings) -> float | None:
    """What is settled where the decision commits, counting included; None: nothing is."""
    limits, fallback = Limits(spec), Fallback(spec)
    guard = Guard(spec, limits, fallback)
    if not guard.declared:
        return None
    offers = []
    for i, allowed in enumerate(limits.allow_each(contexts, [None] * len(contexts))):
        even = allowed.mask / allowed.mask.sum()
        offers.append(Offer(contexts[i], None, allowed, even, POLICY, i / len(contexts)))
    scopes: tuple[Scope, ...] = ("account", *guard.exploration.scopes)
    tallies: Tallies = {scope: counted(Tally(), guard.needs, []) for scope in scopes}
    past, turn = Past(NEWCOMER), 0

    def one() -> None:
        nonlocal tallies, turn
        turn += 1
        now_us = NOW_US + turn * 1_000_000
        choice = guard.choose(offers[turn % len(offers)], past, tallies, now_us)
        tallies = guard.count(choice.action, choice.deviates, past, tallies, now_us)

    return _each(one, 1, settings)


def _each(call: Callable[[], object], decisions: int, settings: Settings) -> float:
    """Microseconds a decision: the median round's mean."""
    calls = max(1, settings.decisions // decisions // settings.rounds)
    call()
    rounds = []
    for _ in range(settings.rounds):
        started = time.perf_counter()
        for _ in range(calls):
            call()
        rounds.append((time.perf_counter() - started) / calls / decisions)
    return 1e6 * median(rounds)
