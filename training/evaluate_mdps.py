"""Paired evaluation of a bundle on tabular MDPs, through its ONNX graphs. Never torch.

Policy and baselines meet the same MDPs and the same luck (`training.tasks.mdps`); a player's own
draws are its own, and the same whoever else plays.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.draw import sample
from contract.encode import horizon_left
from contract.policy import OnnxPolicy
from training.baselines_mdps import (
    NAMED,
    PUBLISHED,
    Actions,
    Algorithm,
    History,
    optimal_value,
    play,
)
from training.paired import Comparison, compare, mean_and_se
from training.tasks.mdps import (
    ACTIONS,
    EPISODE_STEPS,
    STATES,
    TabularMDPs,
    one_hot,
    refuse_impossible_family,
)

Array = NDArray[Any]

DEFAULT_NAMES = ("opsrl", "psrl", "ucrl2", "beb", "epsilon_greedy", "greedy", "random", "planner")
"""The baselines played unless others are asked for."""

_TRIALS_AT_ONCE = 500


@dataclass(frozen=True)
class Cell:
    """One n: total rewards of a trial, means over trials."""

    n: int
    trials: int
    policy: float
    policy_se: float
    greedy_play: Comparison | None
    """The policy again, always its most probable action; None where `policy` was played so."""
    optimum: float
    """What knowing these very MDPs is worth: an expectation, exact."""
    baselines: dict[str, Comparison]
    by_episode: dict[str, NDArray[np.float64]]
    """Mean reward of each episode, `[n]`, of every player."""

    @property
    def published(self) -> dict[str, float]:
        """The figures in print for RL² and SNAIL at this n, if there are any."""
        printed = {name: PUBLISHED[name].get(self.n) for name in ("rl2", "snail")}
        return {name: figure for name, figure in printed.items() if figure is not None}


def evaluate_mdps(
    policy: OnnxPolicy,
    *,
    n: int,
    trials: int,
    seed: int,
    greedy: bool = False,
    baselines: Mapping[str, Algorithm] | None = None,
    on_step: Callable[[int], None] = lambda interactions: None,
) -> Cell:
    """Plays `trials` trials of n episodes with every player and scores them in pairs.

    The policy samples, as it is served, and then plays greedily on the same trials; `greedy` leaves
    the sampling out. `on_step` hears how many interactions were just played, of
    `interactions(…)` in all.
    """
    refuse_misfit(policy, n=n, trials=trials)
    baselines = named(DEFAULT_NAMES) if baselines is None else baselines
    policies = {"policy": greedy} if greedy else {"policy": False, "greedy play": True}
    earned: dict[str, list[Array]] = {name: [] for name in (*policies, *baselines)}
    worth = []
    for start in range(0, trials, _TRIALS_AT_ONCE):
        batch = min(_TRIALS_AT_ONCE, trials - start)
        players = {
            name: recurrent(policy, n=n, greedy=most_probable)
            for name, most_probable in policies.items()
        } | dict(baselines)
        for name, player in players.items():
            mdps = TabularMDPs(batch, n, np.random.default_rng([seed, start]))
            own_draws = np.random.default_rng([seed, start, zlib.crc32(name.encode())])
            earned[name].append(play(player, mdps, own_draws, on_step))
        worth.append(optimal_value(mdps))
    by_trial = {name: np.concatenate(parts, axis=1) for name, parts in earned.items()}
    totals = {name: rewards.sum(axis=0) for name, rewards in by_trial.items()}
    mean, se = mean_and_se(totals["policy"])
    return Cell(
        n=n,
        trials=trials,
        policy=mean,
        policy_se=se,
        greedy_play=None if greedy else compare(totals["policy"], totals["greedy play"]),
        optimum=float(np.concatenate(worth).mean()),
        baselines={name: compare(totals["policy"], totals[name]) for name in baselines},
        by_episode={name: rewards.mean(axis=1) for name, rewards in by_trial.items()},
    )


def interactions(n: int, trials: int, baselines: int, greedy: bool) -> int:
    """How many interactions an evaluation beside so many baselines plays, all players together."""
    return n * EPISODE_STEPS * trials * (baselines + (1 if greedy else 2))


def named(names: Sequence[str]) -> dict[str, Algorithm]:
    """Baselines by name. Raises ValueError for a name that there is not, or that comes twice."""
    for name in names:
        if name not in NAMED:
            raise ValueError(f"baseline: expected one of {', '.join(NAMED)}, got {name}")
    if len(set(names)) < len(names):
        raise ValueError(f"baseline: expected each once, got {', '.join(names)}")
    return {name: NAMED[name] for name in names}


def refuse_misfit(policy: OnnxPolicy, *, n: int, trials: int) -> None:
    """Raises ValueError naming the field of what cannot be evaluated."""
    refuse_impossible_family(n=n, trials=trials)
    if trials < 2:
        raise ValueError(f"trials: expected at least 2, for a standard error, got {trials}")
    manifest = policy.manifest
    if manifest.context_size != STATES:
        raise ValueError(
            f"policy: expected one that is shown {STATES} states (context_size {STATES}), "
            f"got {manifest.policy} with context_size {manifest.context_size}"
        )
    if not manifest.actions.min <= ACTIONS <= manifest.actions.max:
        raise ValueError(
            f"policy: expected one that takes {ACTIONS} actions, got {manifest.policy} with "
            f"{manifest.actions.min} to {manifest.actions.max}"
        )


def recurrent(policy: OnnxPolicy, *, n: int, greedy: bool = False) -> Algorithm:
    """The bundle as an algorithm for one batch of trials of n episodes: it holds the memory."""
    manifest = policy.manifest
    memory = None

    def choose(history: History, rng: np.random.Generator) -> Actions:
        nonlocal memory
        batch = history.state.size
        features = np.zeros((batch, ACTIONS, manifest.action_feature_size), np.float32)
        if memory is None:
            memory = policy.blank(batch, ACTIONS)
        elif history.last is not None:
            state, action, reward = history.last
            memory = policy.learn(
                memory,
                context=one_hot(state),
                action=action,
                reward=TabularMDPs.shown(reward),
                done=np.full(batch, history.episode_step == 0, np.float32),
                action_features=features,
            )
        left = horizon_left(history.position, n * EPISODE_STEPS)
        probabilities, _ = policy.decide(
            memory,
            context=one_hot(history.state),
            action_mask=np.ones((batch, ACTIONS), bool),
            horizon_left=np.broadcast_to(left, (batch, *left.shape)),
            action_features=features,
        )
        if greedy:
            most_probable: Actions = probabilities.argmax(axis=1)
            return most_probable
        return sample(probabilities, rng.random(batch))

    return choose


def to_json(cells: Sequence[Cell]) -> dict[str, Any]:
    """The evaluation as plain numbers."""
    return {
        "cells": [
            {
                "n": cell.n,
                "trials": cell.trials,
                "policy": cell.policy,
                "policy_se": cell.policy_se,
                **({"greedy_play": asdict(cell.greedy_play)} if cell.greedy_play else {}),
                "optimum": cell.optimum,
                "published": cell.published,
                "baselines": {name: asdict(one) for name, one in cell.baselines.items()},
            }
            for cell in cells
        ]
    }


def standings(cell: Cell) -> list[tuple[str, float, Comparison | None, float | None]]:
    """(player, total reward, policy − player, figure in print) of everyone but the policy."""
    compared: Mapping[str, Comparison] = cell.baselines
    if cell.greedy_play:
        compared = {"greedy play": cell.greedy_play} | cell.baselines
    measured = [
        (name, one.reward, one, PUBLISHED.get(name, {}).get(cell.n))
        for name, one in compared.items()
    ]
    return [*measured, ("known MDP", cell.optimum, None, None)]
