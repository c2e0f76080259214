"""Paired evaluation of a bundle on simulated workflows, through its ONNX graphs. Never torch.

Every player meets the same accounts, contexts and coins: one seed a vertical. What counts is the
expected reward of the action served, wherever it was not forced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.policy import OnnxPolicy
from contract.spec import WorkflowSpec
from training.peers.roster import FALLBACK, ORACLE, PEERS, SLOW_ACCOUNTS, Known, build, tuned
from training.peers.study import stream
from training.served import ServedPolicy
from training.tasks.workflows import Accounts
from training.tasks.workflows.families import Options, build_accounts
from training.workflow_play import EVERYONE, play
from training.workflow_scores import Score, pooled, score, to_json

Array = NDArray[Any]


@dataclass(frozen=True)
class Settings:
    """What is played, and how."""

    accounts: int = 1_000
    """Of each vertical."""
    decisions: int = 200
    seed: int = 0
    delay: int | None = None
    """Decisions that every feedback comes late; None: as the vertical is."""
    change_at: int | None = None
    """Every account becomes another one before this decision, counted from 0."""
    greedy: bool = False
    blind: bool = False
    """The policy is shown no context."""


@dataclass(frozen=True)
class Row:
    """One vertical, or all verticals of a workflow pooled, whose `vertical` is then None."""

    workflow: str
    vertical: str | None
    policy: Score
    peers: dict[str, Score]
    """Those to whom each account is alone."""
    pooling: dict[str, Score]
    """Those who learn from one account for another."""
    oracle: Score


def evaluate(
    policy: OnnxPolicy,
    workflow: str,
    vertical: str,
    known: Known,
    peers: Sequence[str],
    settings: Settings,
    on_decisions: Callable[[int], None] = lambda count: None,
) -> Row:
    """Plays one vertical with the policy and these peers; fallback and oracle always play.

    `on_decisions` hears how many decisions were just made, of `decisions(…)` in all.
    """

    def accounts() -> Accounts:
        return make_accounts(workflow, vertical, settings)

    def own_draws(name: str) -> np.random.Generator:
        return stream(f"draws of {name}", settings.seed, workflow, vertical)

    spec = accounts().spec
    refuse_misfit(policy, spec, blind=settings.blind)
    served = ServedPolicy(
        policy,
        spec,
        settings.accounts,
        own_draws("policy"),
        greedy=settings.greedy,
        blind=settings.blind,
    )
    expected = {}
    seconds = {}
    ours = play(served, accounts(), on_decisions=on_decisions)
    expected["policy"], seconds["policy"] = ours.expected, ours.seconds
    for name in players(peers):
        groups = arrivals(name, settings.accounts)
        met = [accounts() for _ in groups]
        rows = groups[0] if len(groups) == 1 else EVERYONE
        player = build(name, known, met[0], rows, own_draws(name))
        played = [
            play(player, each, group, on_decisions) for each, group in zip(met, groups, strict=True)
        ]
        expected[name] = np.concatenate([each.expected for each in played], axis=1)
        seconds[name] = sum(each.seconds for each in played)
    scores = {
        name: score(
            earned,
            expected["policy"],
            expected[FALLBACK],
            expected[ORACLE],
            change_at=settings.change_at,
            seconds=seconds[name],
        )
        for name, earned in expected.items()
    }
    own, oracle = scores.pop("policy"), scores.pop(ORACLE)
    pooling = {name: one for name, one in scores.items() if PEERS[name].kind == "pooled"}
    alone = {name: one for name, one in scores.items() if name not in pooling}
    return Row(workflow, vertical, own, alone, pooling, oracle)


def make_accounts(workflow: str, vertical: str, settings: Settings) -> Accounts:
    """The accounts that every player of an evaluation meets, the same each time."""
    rng = stream("evaluation", settings.seed, workflow, vertical)
    return build_accounts(
        workflow,
        vertical,
        accounts=settings.accounts,
        steps=settings.decisions,
        rng=rng,
        options=Options(delay=settings.delay, change_at=settings.change_at),
    )


def players(peers: Sequence[str]) -> tuple[str, ...]:
    """Who plays beside the policy: these, and always fallback and oracle, which adaptation is
    measured between."""
    return (*peers, *(name for name in (FALLBACK, ORACLE) if name not in peers))


def arrivals(name: str, accounts: int) -> list[slice]:
    """The rows that a player meets, one group after another; most players meet all at once.

    Who pools accounts meets one, then another, and then groups that double: everybody arrives when
    at least as many have come and gone, and each trial of a group is played side by side.
    """
    if PEERS[name].slow:
        return [slice(0, min(accounts, SLOW_ACCOUNTS))]
    if PEERS[name].kind != "pooled":
        return [slice(0, accounts)]
    groups = [slice(0, 1)]
    while (come := groups[-1].stop) < accounts:
        groups.append(slice(come, min(2 * come, accounts)))
    return groups


def decisions(peers: Sequence[str], settings: Settings) -> int:
    """How many decisions an evaluation of one vertical makes, all players together."""
    met: list[int] = [arrivals(name, settings.accounts)[-1].stop for name in players(peers)]
    return (settings.accounts + sum(met)) * settings.decisions


def pool(rows: Sequence[Row], settings: Settings) -> Row:
    """The verticals of one workflow, each counting the same."""

    def over(scores: Iterable[Score]) -> Score:
        return pooled(list(scores), settings.change_at)

    first = rows[0]
    return Row(
        workflow=first.workflow,
        vertical=None,
        policy=over(row.policy for row in rows),
        peers={name: over(row.peers[name] for row in rows) for name in first.peers},
        pooling={name: over(row.pooling[name] for row in rows) for name in first.pooling},
        oracle=over(row.oracle for row in rows),
    )


def refuse_misfit(policy: OnnxPolicy, spec: WorkflowSpec, *, blind: bool) -> None:
    """Raises BundleError when the policy cannot serve the workflow, blind or not."""
    policy.manifest.refuse_misfit(spec.model_copy(update={"context": {}}) if blind else spec)


def as_json(rows: Sequence[Row], policy: str, settings: Settings) -> dict[str, Any]:
    """The evaluation as plain numbers: differences are policy − peer."""
    together = [pool(each, settings) for each in by_workflow(rows)]
    return {
        "rows": [
            {"workflow": row.workflow, "vertical": row.vertical, "policy": policy, **_body(row)}
            for row in rows
        ],
        "pooled": [
            {"workflow": row.workflow, "policy": policy, **_chosen(row.workflow), **_body(row)}
            for row in together
        ],
        "settings": {
            "accounts": settings.accounts,
            "decisions": settings.decisions,
            "seed": settings.seed,
            "delay": settings.delay,
            "change_at": settings.change_at,
            "greedy": settings.greedy,
            "blind": settings.blind,
        },
    }


def by_workflow(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """The rows of each workflow, in the order in which they were played."""
    names = dict.fromkeys(row.workflow for row in rows)
    return ([row for row in rows if row.workflow == name] for name in names)


def _body(row: Row) -> dict[str, Any]:
    others = partial(to_json, row.policy)
    return {
        **others(row.peers),
        "pooling_peers": others(row.pooling)["peers"],
        "oracle": others({ORACLE: row.oracle})["peers"][ORACLE],
        "target": row.policy.target,
    }


def _chosen(workflow: str) -> dict[str, str]:
    """The peers that tuning found best, on the training verticals alone."""
    found = tuned().get(workflow)
    if found is None:
        return {}
    return {
        "best_peer": found.best_peer,
        "best_scratch_peer": found.best_scratch,
        "best_discounting_peer": found.best_discounting,
    }
