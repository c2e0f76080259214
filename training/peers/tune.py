"""`python -m training.peers.tune`: the peers' parameters, on the training verticals alone.

It plays no held-out vertical and no policy, and writes one small file, `tuned.json`.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape

from training.peers.prior import JointPrior
from training.peers.roster import PEERS, TUNED, Known, build, defaults
from training.peers.study import DECISIONS, best_fixed, fit_prior, stream, training_accounts
from training.tasks.workflows.families import FAMILIES, TRAINING_VERTICALS, family_spec
from training.whole_files import write_text
from training.workflow_play import play

BAD_INPUT = 2

PASSES = 2
"""How often the parameters of a peer are gone through."""

Found = dict[str, Any]
notes = Console(stderr=True)


def tune(
    workflow: Annotated[
        list[str] | None, typer.Option(help="May be repeated; the others' results are kept.")
    ] = None,
    accounts: Annotated[int, typer.Option(min=2, help="Of each training vertical.")] = 60,
    slow_accounts: Annotated[
        int, typer.Option(min=2, help="The same, for peers with an object an account.")
    ] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Fixes accounts, coins and every draw.")] = 0,
    out: Annotated[Path, typer.Option(help="The file to write.")] = TUNED,
) -> None:
    """Tune every peer of a workflow by its mean reward over decisions 1-200 on the training
    verticals, which count the same, and choose the best one there.

    One parameter after another takes the value of its grid that earns most, the others held, twice
    over. The same accounts for every value; at the end every peer plays the same ones.
    """
    for name in workflow or ():
        if name not in FAMILIES:
            notes.print(
                f"[red]error:[/red] --workflow: expected one of {', '.join(FAMILIES)}, got "
                f"{escape(repr(name))}"
            )
            raise typer.Exit(BAD_INPUT)
    stored = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {"workflows": {}}
    origin = {
        "command": shlex.join(["python", "-m", "training.peers.tune", *sys.argv[1:]]),
        "seed": seed,
        "date": datetime.now(UTC).date().isoformat(),
    }
    for name in workflow or FAMILIES:
        began = time.process_time()
        found = tune_workflow(name, accounts, slow_accounts, seed, on_peer=_said)
        stored["workflows"][name] = origin | found
        write_text(out, json.dumps(stored, indent=1) + "\n")
        took = time.process_time() - began
        notes.print(f"{name}: best is {found['best_peer']}; {took:.0f} CPU seconds")


def tune_workflow(
    workflow: str,
    accounts: int,
    slow_accounts: int,
    seed: int,
    *,
    on_peer: Callable[[str, Found], None] = lambda name, found: None,
    names: Sequence[str] = tuple(PEERS),
) -> Found:
    """What tuning finds for one workflow."""
    verticals = TRAINING_VERTICALS[workflow]
    make = partial(training_accounts, workflow)
    prior = fit_prior(workflow, verticals, make)
    fixed = best_fixed(workflow, verticals, make)
    peers: dict[str, Found] = {}
    for name in names:
        if PEERS[name].kind == "oracle":
            continue
        count = slow_accounts if PEERS[name].slow else accounts
        score = partial(mean_reward, workflow, name, seed=seed, prior=prior, fixed=fixed)
        base = PEERS[name].base
        start = defaults(name) | (peers[base]["parameters"] if base in peers else {})
        parameters, _, tried = search(PEERS[name].grid, start, partial(score, accounts=count))
        peers[name] = {
            "parameters": parameters,
            "reward": round(score(parameters, accounts=accounts), 5),
            "settings_tried": tried,
            "accounts_tuned_on": count * len(verticals),
        }
        on_peer(name, peers[name])

    def best(*kinds: str, forgetting: bool = False) -> str:
        candidates = [
            name
            for name in peers
            if PEERS[name].kind in kinds and (PEERS[name].discounts or not forgetting)
        ]
        return max(candidates, key=lambda name: peers[name]["reward"])

    return {
        "verticals": list(verticals),
        "decisions": DECISIONS,
        "accounts": accounts * len(verticals),
        "best_fixed": family_spec(workflow).action_ids[fixed],
        "best_peer": best("scratch", "fitted", "fixed"),
        "best_scratch": best("scratch"),
        "best_discounting": best("scratch", "fitted", forgetting=True),
        "peers": peers,
    }


def search(
    grid: Mapping[str, Sequence[Any]],
    start: dict[str, Any],
    score: Callable[[dict[str, Any]], float],
) -> tuple[dict[str, Any], float, int]:
    """The parameters found, their score, and how many settings were tried.

    One parameter after another takes its best value, the others held, until a pass changes nothing
    or PASSES are done.
    """
    known: dict[str, float] = {}

    def scored(parameters: dict[str, Any]) -> float:
        key = json.dumps(parameters, sort_keys=True)
        if key not in known:
            known[key] = score(parameters)
        return known[key]

    best = dict(start)
    for _ in range(PASSES):
        before = dict(best)
        for parameter, values in grid.items():
            best[parameter] = max(values, key=lambda value: scored(best | {parameter: value}))
        if best == before:
            break
    return best, scored(best), len(known)


def mean_reward(
    workflow: str,
    name: str,
    parameters: dict[str, Any],
    *,
    accounts: int,
    seed: int,
    prior: JointPrior,
    fixed: int,
) -> float:
    """A peer's mean expected reward over all decisions, training verticals counting the same."""
    earned = []
    for vertical in TRAINING_VERTICALS[workflow]:
        met = training_accounts(
            workflow, vertical, stream("tuning", seed, workflow, vertical), accounts
        )
        known = Known({name: parameters}, fixed, prior)
        player = build(name, known, met, slice(None), np.random.default_rng([seed, 1]))
        earned.append(float(np.nanmean(play(player, met).expected)))
    return float(np.mean(earned))


def _said(name: str, found: Found) -> None:
    shown = ", ".join(f"{key} {value:g}" for key, value in found["parameters"].items())
    notes.print(f"  {name}: {found['reward']:.4f}  {shown}", highlight=False)


if __name__ == "__main__":
    typer.run(tune)
