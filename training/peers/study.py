"""What the peers are told beforehand: a workflow's training verticals, played and fitted. Numpy.

Held-out verticals are never played here.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection

import numpy as np

from training.peers.player import Terms
from training.peers.prior import ROUNDS, Evidence, JointPrior, fit_joint_prior
from training.peers.references import AnyAction, FixedAction, WorkflowFallback
from training.peers.roster import BEST_FIXED, PEERS, Known, tuned
from training.tasks.workflows import Accounts
from training.tasks.workflows.families import build_accounts, family_spec
from training.workflow_play import EVERYONE, play

Build = Callable[[str, np.random.Generator, int], Accounts]
"""So many accounts of a vertical, drawn with this generator."""

LOGGED_ACCOUNTS = 1_500
"""Accounts, of all training verticals together, whose logs the joint prior is fitted on."""

DECISIONS = 200
"""Of each account that is logged or tuned on."""

CHOSEN_ON = 200
"""Accounts of each training vertical that every fixed action is tried on, where no tuning said."""

STUDY_STEPS = ROUNDS
"""How often `study` calls `on_step`, where a fitted peer plays."""

_SEED = 0


def training_accounts(
    workflow: str, vertical: str, rng: np.random.Generator, accounts: int
) -> Accounts:
    """So many accounts of a vertical, as long as those that are evaluated."""
    return build_accounts(workflow, vertical, accounts=accounts, steps=DECISIONS, rng=rng)


def stream(purpose: str, seed: int, workflow: str, vertical: str) -> np.random.Generator:
    """The generator of a vertical's accounts: another for each purpose, so that no peer is scored
    on the accounts that it was fitted or tuned on."""
    return np.random.default_rng([seed, *(_number(x) for x in (purpose, workflow, vertical))])


def study(
    workflow: str,
    verticals: Collection[str],
    build: Build,
    peers: Collection[str],
    on_step: Callable[[], None] = lambda: None,
) -> Known:
    """What these peers need to know of a workflow, from its training verticals.

    `on_step` is called STUDY_STEPS times when one of them is fitted.
    """
    found = tuned().get(workflow)
    fitted = any(PEERS[name].kind == "fitted" for name in peers)
    prior = fit_prior(workflow, verticals, build, on_step) if fitted else None
    best = 0
    if BEST_FIXED in peers:
        best = (
            best_fixed(workflow, verticals, build)
            if found is None
            else family_spec(workflow).action_ids.index(found.best_fixed)
        )
    return Known(found.parameters if found else {}, best, prior)


def fit_prior(
    workflow: str,
    verticals: Collection[str],
    build: Build,
    on_step: Callable[[], None] = lambda: None,
    accounts: int = LOGGED_ACCOUNTS,
) -> JointPrior:
    """The joint prior, fitted on accounts that were served any allowed action, equally likely."""
    parts = []
    for vertical in verticals:
        rng = stream("logs", _SEED, workflow, vertical)
        logged = build(vertical, rng, max(2, accounts // len(verticals)))
        played = play(AnyAction(rng.spawn(1)[0]), logged)
        terms = Terms.of(logged.spec, logged.num_envs, rng)
        parts.append(
            Evidence.of(played.context, played.served, terms.unit(played.reward), terms.actions)
        )
    return fit_joint_prior(Evidence.together(parts), on_round=lambda prior: on_step())


def best_fixed(
    workflow: str, verticals: Collection[str], build: Build, accounts: int = CHOSEN_ON
) -> int:
    """The action that earns most when it is always served, the verticals counting the same."""
    totals: dict[int, float] = {}
    for vertical in verticals:
        actions = len(build(vertical, np.random.default_rng(0), 1).spec.actions)
        for action in range(actions):
            served = build(vertical, stream("fixed", _SEED, workflow, vertical), accounts)
            player = FixedAction(action, WorkflowFallback(served, EVERYONE))
            earned = float(np.nanmean(play(player, served).expected))
            totals[action] = totals.get(action, 0.0) + earned
    return max(totals, key=lambda action: totals[action])


def _number(name: str) -> int:
    return zlib.crc32(name.encode())
