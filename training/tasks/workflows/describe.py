"""What the simulated workflows are, and what simple players earn there, as Markdown or JSON.

    python -m training.tasks.workflows.describe --accounts 2000 --seed 5

It plays with what the simulator knows, never with a learned policy.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from contract.encode import context_size
from training.tasks.workflows.accounts import Situation
from training.tasks.workflows.families import (
    FAMILIES,
    TRAINING_VERTICALS,
    build_accounts,
    family_of,
    family_spec,
    verticals,
)
from training.tasks.workflows.simulation import SimulatedAccounts

Array = NDArray[Any]
Chooses = Callable[[SimulatedAccounts, Situation], Array]

BAD_INPUT = 2


def describe(
    workflow: Annotated[list[str] | None, typer.Option(help="Only these workflows.")] = None,
    accounts: Annotated[int, typer.Option(help="Accounts a vertical.")] = 2000,
    steps: Annotated[int, typer.Option(help="Decisions an account.")] = 200,
    seed: Annotated[int, typer.Option(help="Of accounts and luck.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Figures alone, for programs.")] = False,
) -> None:
    """Verticals, latent parameters, and what fallback, best fixed action, random and oracle earn.

    The expected reward of what is served, mean over accounts and decisions, all players on the same
    accounts and luck.
    """
    notes = Console(stderr=True)
    try:
        wanted = [(name, vertical) for name in workflow or FAMILIES for vertical in verticals(name)]
        rows = [
            measure(name, vertical, accounts, steps, seed)
            for name, vertical in track(
                wanted, "playing", console=notes, disable=not notes.is_terminal
            )
        ]
    except ValueError as error:
        notes.print(f"error: {error}", markup=False)
        raise typer.Exit(BAD_INPUT) from error
    if as_json:
        print(json.dumps({"accounts": accounts, "steps": steps, "seed": seed, "rows": rows}))
        return
    for name in workflow or FAMILIES:
        print("\n".join(section(name, [row for row in rows if row["workflow"] == name])))


def measure(workflow: str, vertical: str, accounts: int, steps: int, seed: int) -> dict[str, Any]:
    """What the players earn on one vertical."""
    ids = family_spec(workflow).action_ids
    earned = {
        name: earnings(workflow, vertical, accounts, steps, seed, choose)
        for name, choose in players(ids)
    }
    fixed = {action: float(earned.pop(action).mean()) for action in ids}
    best = max(fixed, key=lambda action: fixed[action])
    gap = earned["oracle"] - earned["fallback"]
    return {
        "workflow": workflow,
        "vertical": vertical,
        "split": "training" if vertical in TRAINING_VERTICALS[workflow] else "held-out",
        **{name: float(per_account.mean()) for name, per_account in earned.items()},
        "best_fixed": fixed[best],
        "best_fixed_action": best,
        "gap": float(gap.mean()),
        "gap_se": float(gap.std() / np.sqrt(accounts)),
    }


def players(ids: tuple[str, ...]) -> Iterator[tuple[str, Chooses]]:
    """Fallback, random, oracle, and every action wherever it is allowed."""
    yield "fallback", lambda accounts, now: accounts.fallback()
    yield "random", _at_random
    yield "oracle", lambda accounts, now: now.oracle
    for row, action in enumerate(ids):
        yield action, _always(row)


def earnings(
    workflow: str, vertical: str, accounts: int, steps: int, seed: int, choose: Chooses
) -> NDArray[np.float64]:
    """Mean expected reward of what is served, `[B]`."""
    rng = np.random.default_rng(seed)
    played = build_accounts(workflow, vertical, accounts=accounts, steps=steps, rng=rng)
    assert isinstance(played, SimulatedAccounts)
    played.reset()
    total = np.zeros(accounts)
    for _ in range(steps):
        now = played.situation()
        total += now.means[played.rows, played.step(choose(played, now)).served]
    return total / steps


def section(workflow: str, rows: list[dict[str, Any]]) -> Iterator[str]:
    """One workflow, line by line."""
    spec, family = family_spec(workflow), family_of(workflow)
    yield f"## {workflow}"
    yield ""
    doc = sys.modules[family.simulator.__module__].__doc__ or ""
    yield " ".join(doc.replace("Numpy only.", "").split())
    yield ""
    usual = next(iter(family.training.values())).practice
    heard = {f"up to {usual.longest_delay} decisions late": usual.late}
    heard |= {f"in batches of {usual.batch}": usual.batched}
    late = ", ".join(f"{share:.0%} hear {how}" for how, share in heard.items() if share)
    yield (
        f"{len(spec.actions)} actions ({', '.join(spec.action_ids)}); {context_size(spec)} slots "
        f"of context; rewards in [{spec.reward.min:g}, {spec.reward.max:g}]. Of decisions, "
        f"{usual.forced:.0%} are forced and {usual.subset:.0%} ask for a subset; of accounts, "
        f"{usual.changing:.0%} change, {usual.drifting:.0%} drift, {late}."
    )
    yield ""
    yield "| vertical | split | who is met | segments | shifted, spread | mix, means |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        population = family.population(row["vertical"])
        shift = ", ".join(f"{name} {_shown(by)}" for name, by in population.shift.items())
        met = {**population.mix, **population.facts}
        yield (
            f"| {row['vertical']} | {row['split']} | {population.about} | "
            f"{_shares(population.segments)} | "
            f"{'; '.join(filter(None, (shift, f'× {population.spread:g}')))} | "
            f"{'; '.join(f'{name} {_shares(of)}' for name, of in met.items())} |"
        )
    yield ""
    segments = family.segments
    if segments.centres:
        yield f"| latent parameter | ± | {' | '.join(segments.names)} |"
        yield "|---|---|" + "---|" * len(segments.names)
        for name, centres in segments.centres.items():
            shown = " | ".join(_shown(centre) for centre in centres)
            about = f"`{name}`: {segments.meanings[name]}"
            yield f"| {about} | {segments.deviations[name]:g} | {shown} |"
        yield ""
    yield "| vertical | fallback | best fixed action | random | oracle | oracle − fallback |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        yield (
            f"| {row['vertical']} | {row['fallback']:.3f} | {row['best_fixed']:.3f} "
            f"({row['best_fixed_action']}) | {row['random']:.3f} | {row['oracle']:.3f} | "
            f"{row['gap']:.3f} ± {row['gap_se']:.3f} |"
        )
    yield ""


def _at_random(accounts: SimulatedAccounts, now: Situation) -> Array:
    uniforms = np.random.default_rng(accounts.t).random(now.mask.shape)
    return np.asarray(np.where(now.mask, uniforms, -1.0).argmax(axis=1))


def _always(action: int) -> Chooses:
    return lambda accounts, now: np.where(now.mask[:, action], action, accounts.fallback())


def _shares(values: Any) -> str:
    return " / ".join(f"{value:g}" for value in np.atleast_1d(values))


def _shown(values: Any) -> str:
    """A number, or rows of them."""
    array = np.asarray(values, float)
    if array.ndim == 0:
        return f"{array:g}"
    return (" / " if array.ndim > 1 else " ").join(_shown(one) for one in array)


if __name__ == "__main__":
    typer.run(describe)
