"""How soon alarms come where something is wrong, and how often where nothing is: simulated.

Rewards are coins of known chances; memories are those of simulated workflows' accounts, of
verticals that no policy was trained on. Everything is drawn from one seed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from contract.bundle import load_manifest
from contract.memory_reference import MemoryReference, load_reference
from contract.policy import Memory, OnnxPolicy
from guardrails.memory_health import sickness
from guardrails.reward_shift import ACCOUNT, STREAM, Rule, find_shift
from guardrails.streams import BATCH
from training.memory_reference import play
from training.tasks.workflow_trials import WorkflowTrials
from training.tasks.workflows.families import FAMILIES, HELD_OUT_VERTICALS

ADAPTING = 15
"""Interactions in which most of an account's adaptation happens."""
FELL_AT = 100
"""Values before a fall."""


def alarms(
    accounts: Annotated[int, typer.Option(min=50, help="Simulated for each row.")] = 2_000,
    policy: Annotated[Path, typer.Option(help="The bundle whose memories are looked at.")] = Path(
        "policies/universal/1"
    ),
    seed: Annotated[int, typer.Option(help="Of everything.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Measure alarms: how often without a cause, and within how many interactions with one."""
    found = {
        "accounts": list(_accounts(accounts, seed)),
        "workflows": list(_workflows(accounts, seed)),
        "memories": list(_memories(policy, max(50, accounts // 10), seed)),
    }
    if as_json:
        print(json.dumps(found))
        return
    for name, rows in found.items():
        table = Table(*rows[0], title=name)
        for row in rows:
            table.add_row(*(f"{one:.4g}" if isinstance(one, float) else str(one)
                            for one in row.values()))  # fmt: skip
        Console().print(table)


def _accounts(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """One account's rewards, 0 or 1, one by one."""
    steps = np.arange(400)
    for level in (0.5, 0.7, 0.9):
        chance = level - (level - 0.4) * np.exp(-steps / ADAPTING)
        yield _row(f"adapts from .4 to {level:g}", chance, count, seed, ACCOUNT, 1)
    for before, after in ((0.8, 0.3), (0.9, 0.5), (0.7, 0.4)):
        chance = np.where(steps < FELL_AT, before, after)
        yield _row(f"falls from {before:g} to {after:g}", chance, count, seed, ACCOUNT, 1)


def _workflows(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Means of batches of many accounts' rewards."""
    batches = np.arange(400)
    for level in (0.5, 0.7):
        yield _row(f"stays at {level:g}", np.full(400, level), count, seed, STREAM, BATCH)
    for before, after in ((0.6, 0.55), (0.6, 0.5), (0.6, 0.4)):
        chance = np.where(batches < FELL_AT, before, after)
        yield _row(f"falls from {before:g} to {after:g}", chance, count, seed, STREAM, BATCH)


def _row(
    name: str, chance: NDArray[np.float64], count: int, seed: int, rule: Rule, batch: int
) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    falls = chance[-1] < chance[FELL_AT - 1] - 0.01
    until = FELL_AT if falls else len(chance)
    at = []
    for _ in range(count):
        values = rng.binomial(batch, chance) / batch
        shift = find_shift(values.tolist(), rule)
        at.append(-1 if shift is None else shift.at)
    found = np.array(at)
    delays = (found[found >= FELL_AT] - FELL_AT + 1) * batch
    return {
        "rewards": name,
        "without cause": float(((found >= 0) & (found < until)).mean()),
        "interactions before": until * batch,
        "found": float((found >= FELL_AT).mean()) if falls else None,
        "p50": float(np.quantile(delays, 0.5)) if falls else None,
        "p90": float(np.quantile(delays, 0.9)) if falls else None,
    }


def _memories(bundle: Path, count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Memories of simulated workflows' accounts, as they are and blown up threefold."""
    policy = OnnxPolicy.load(bundle)
    reference = load_reference(bundle, load_manifest(bundle))
    if reference is None:
        raise typer.BadParameter(f"{bundle} has no memory.npz; see acclimate reference")
    oldest = int(reference.positions[-1])
    for workflow in FAMILIES:
        vertical = HELD_OUT_VERTICALS[workflow][0]
        task = WorkflowTrials(workflow, vertical, count, oldest, np.random.default_rng(seed))
        ever, large = np.zeros(count, bool), np.zeros(count, bool)
        for position, memory in play(policy, task, np.random.default_rng(seed)):
            ever |= _sick(reference, memory, position)
            large = _sick(reference, Memory(memory.shared * 3, memory.rows * 3), position)
        yield {
            "workflow": f"{workflow}, {vertical}",
            "accounts": count,
            "interactions": oldest,
            "ever without cause": float(ever.mean()),
            "threefold found": float(large.mean()),
        }


def _sick(reference: MemoryReference, memory: Memory, position: int) -> NDArray[np.bool_]:
    rows = [Memory(memory.shared[i : i + 1], memory.rows[i : i + 1])
            for i in range(len(memory.shared))]  # fmt: skip
    return np.array([sickness(reference, one, position) is not None for one in rows])
