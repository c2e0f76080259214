"""Who plays beside the policy: every peer's name, kind, parameters and the grid they are tuned on.

Parameters come from `tuned.json`, which `python -m training.peers.tune` writes; a workflow that is
not in it plays with the first of every grid.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from training.peers.joint import JointLinear
from training.peers.linear import DisjointLinear, PooledLinTS
from training.peers.player import Player, Terms
from training.peers.prior import JointPrior
from training.peers.references import AnyAction, FixedAction, Oracle, WorkflowFallback
from training.peers.river_linucb import RiverLinUCB
from training.peers.vowpal import VowpalSquareCB
from training.tasks.workflows import Accounts

Kind = Literal["scratch", "fitted", "fixed", "pooled", "oracle"]
Parameters = Mapping[str, Any]

TUNED = Path(__file__).with_name("tuned.json")

ORACLE = "oracle"
FALLBACK = "fallback"
BEST_FIXED = "best_fixed"

SLOW_ACCOUNTS = 300
"""How many accounts, the first ones, a peer plays that has a Python object for each."""


@dataclass(frozen=True)
class Peer:
    """One peer: what it was given beforehand, and the grid that its parameters are tuned on."""

    kind: Kind
    about: str
    grid: Grid
    """What is tuned, and the values tried; the first of each where nothing was tuned."""
    base: str | None = None
    """The peer whose tuned parameters hold for all that the grid does not name."""
    slow: bool = False
    """It plays the first SLOW_ACCOUNTS accounts only, and is compared on those."""
    discounts: bool = False


Grid = Mapping[str, Sequence[Any]]

_RIDGE: Grid = {
    "ridge": (3.0, 1.0, 10.0, 30.0),
    "slopes": (0.1, 0.003, 0.03, 0.3, 1.0),
    "centre": (0.5, 0.0, 0.75, 1.0),
}
_WIDTH: Grid = {"width": (0.2, 0.05, 0.1, 0.4, 0.8)}
_DISCOUNT: Grid = {"discount": (0.997, 0.999, 0.99, 0.98, 0.95)}

PEERS: Mapping[str, Peer] = {
    "ridge_greedy": Peer("scratch", "ridge, greedy, an account alone", _RIDGE),
    "lin_ucb": Peer(
        "scratch",
        "LinUCB, disjoint, an account alone",
        {**_WIDTH, **_RIDGE},
        base="ridge_greedy",
    ),
    "lin_ts": Peer("scratch", "LinTS, an account alone", {**_WIDTH, **_RIDGE}, base="ridge_greedy"),
    "ridge_greedy_discount": Peer(
        "scratch", "ridge, greedy, that forgets", _DISCOUNT, base="ridge_greedy", discounts=True
    ),
    "lin_ts_discount": Peer(
        "scratch", "LinTS that forgets", {**_DISCOUNT, **_WIDTH}, base="lin_ts", discounts=True
    ),
    "vw_squarecb": Peer(
        "scratch",
        "VowpalWabbit, cb_explore_adf with SquareCB",
        {"gamma_scale": (1000.0, 100.0, 10000.0), "learning_rate": (0.5, 0.1, 2.0)},
        slow=True,
    ),
    "river_linucb": Peer(
        "scratch",
        "river's LinUCBDisjoint",
        {"alpha": (100.0, 10.0), "beta": (1.0, 10.0), "centre": (0.5, 0.0, 1.0)},
        slow=True,
    ),
    "fitted_greedy": Peer("fitted", "joint prior of all actions, greedy", {}),
    "fitted_ts": Peer("fitted", "joint prior, Thompson", {"width": (0.25, 0.05, 0.1, 0.5, 1.0)}),
    "fitted_greedy_discount": Peer(
        "fitted", "joint prior, greedy, that forgets", _DISCOUNT, discounts=True
    ),
    "fitted_ts_discount": Peer(
        "fitted", "joint prior, Thompson, that forgets", _DISCOUNT, base="fitted_ts", discounts=True
    ),
    BEST_FIXED: Peer("fixed", "the action that is best for all on the training verticals", {}),
    FALLBACK: Peer("fixed", "the workflow's own fallback", {}),
    "random": Peer("fixed", "any allowed action", {}),
    "pooled_lin_ts": Peer(
        "pooled", "LinTS, one model for all accounts", {**_WIDTH, "ridge": (3.0, 1.0, 10.0)}
    ),
    ORACLE: Peer("oracle", "knows the latent parameters", {}),
}


def defaults(name: str) -> dict[str, Any]:
    """What a peer plays with where nothing was tuned."""
    peer = PEERS[name]
    own = {parameter: values[0] for parameter, values in peer.grid.items()}
    return (defaults(peer.base) if peer.base else {}) | own


@dataclass(frozen=True)
class Known:
    """What the training verticals of a workflow have told the peers."""

    parameters: Mapping[str, Parameters]
    """Of each peer that has any."""
    best_fixed: int
    """The row of the action."""
    prior: JointPrior | None
    """Of the fitted peers."""


def named(names: Sequence[str] | None) -> tuple[str, ...]:
    """These peers, or all, in the order of the roster. Raises ValueError for an unknown one."""
    choice = [name for name in PEERS if name != ORACLE]
    for name in names or ():
        if name not in choice:
            raise ValueError(f"--peer: expected one of {', '.join(choice)}, got {name!r}")
    return tuple(name for name in choice if not names or name in names)


def build(
    name: str, known: Known, accounts: Accounts, rows: slice, rng: np.random.Generator
) -> Player:
    """A player of these rows of the accounts, before their first decision."""
    count = len(range(*rows.indices(accounts.num_envs)))
    terms = Terms.of(accounts.spec, count, rng)
    with_parameters = dict(known.parameters.get(name) or defaults(name))
    if PEERS[name].kind == "fitted":
        if known.prior is None:
            raise ValueError(f"{name}: expected a prior fitted on the training verticals, got none")
        return JointLinear(terms, known.prior, **with_parameters)
    if name == BEST_FIXED:
        return FixedAction(known.best_fixed, WorkflowFallback(accounts, rows))
    if name == FALLBACK:
        return WorkflowFallback(accounts, rows)
    if name == ORACLE:
        return Oracle(accounts, rows)
    return _LEARNERS[name](terms, **with_parameters)


_LEARNERS: Mapping[str, Callable[..., Player]] = {
    "lin_ts": lambda terms, **said: DisjointLinear(terms, explore="ts", **said),
    "lin_ucb": lambda terms, **said: DisjointLinear(terms, explore="ucb", **said),
    "ridge_greedy": DisjointLinear,
    "lin_ts_discount": lambda terms, **said: DisjointLinear(terms, explore="ts", **said),
    "ridge_greedy_discount": DisjointLinear,
    "vw_squarecb": VowpalSquareCB,
    "river_linucb": RiverLinUCB,
    "pooled_lin_ts": PooledLinTS,
    "random": lambda terms: AnyAction(terms.rng),
}


@dataclass(frozen=True)
class Tuned:
    """What tuning found for one workflow."""

    parameters: Mapping[str, Parameters]
    best_fixed: str
    """The action's id."""
    best_peer: str
    """Of those that do not pool accounts, on the training verticals."""
    best_scratch: str
    """Of those that were given nothing beforehand."""
    best_discounting: str


@cache
def tuned(path: Path = TUNED) -> Mapping[str, Tuned]:
    """What tuning found, by workflow; nothing where it has never run."""
    if not path.exists():
        return {}
    stored = json.loads(path.read_text(encoding="utf-8"))
    return {
        workflow: Tuned(
            parameters={name: one["parameters"] for name, one in found["peers"].items()},
            best_fixed=found["best_fixed"],
            best_peer=found["best_peer"],
            best_scratch=found["best_scratch"],
            best_discounting=found["best_discounting"],
        )
        for workflow, found in stored["workflows"].items()
    }
