"""Paired evaluation of a bundle on Bernoulli bandits, through its ONNX graphs. Never torch.

Common random numbers: policy and baselines meet the same arm means and the same coins. A trial's
coin at step t is one uniform number, whichever arm is pulled (`training.tasks.bandits`), so two
players who pull the same arm at the same step earn the same. A player's own draws are its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.draw import sample
from contract.encode import encode_reward, horizon_left
from contract.policy import OnnxPolicy
from training.baselines import Actions, Algorithm, History, thompson, ucb1, uniform
from training.tasks.bandits import BernoulliBandits, refuse_impossible_family

Array = NDArray[Any]

BASELINES: Mapping[str, Algorithm] = {"ts": thompson(), "ucb1": ucb1(), "random": uniform}
"""Thompson sampling with a flat prior, tuned UCB1, and any arm."""

_TRIALS_AT_ONCE = 1_000


@dataclass(frozen=True)
class Comparison:
    """A baseline on the policy's own trials; `difference` is policy − baseline."""

    reward: float
    difference: float
    difference_se: float


@dataclass(frozen=True)
class Cell:
    """One (n, k): the mean total reward of a trial, with its standard error over trials."""

    n: int
    k: int
    policy: float
    policy_se: float
    baselines: dict[str, Comparison]


def evaluate_bandits(
    policy: OnnxPolicy,
    *,
    n: int,
    k: int,
    trials: int,
    seed: int,
    greedy: bool = False,
    baselines: Mapping[str, Algorithm] = BASELINES,
    on_step: Callable[[int], None] = lambda interactions: None,
) -> Cell:
    """Plays `trials` trials of n pulls on k arms, means uniform(0, 1), and scores them in pairs.

    `greedy` takes the policy's most probable arm instead of sampling. `on_step` hears how many
    interactions were just played, of `interactions(n, trials, baselines)` in all.
    """
    refuse_impossible_family(k=k, n=n, trials=trials)
    if trials < 2:
        raise ValueError(f"trials: expected at least 2, for a standard error, got {trials}")
    most = policy.manifest.actions
    if not most.min <= k <= most.max:
        raise ValueError(
            f"k: policy {policy.manifest.policy} takes {most.min} to {most.max} arms, got {k}"
        )
    totals: dict[str, list[Array]] = {name: [] for name in ("policy", *baselines)}
    for start in range(0, trials, _TRIALS_AT_ONCE):
        batch = min(_TRIALS_AT_ONCE, trials - start)
        players = {"policy": recurrent(policy, n=n, greedy=greedy), **baselines}
        for number, (name, player) in enumerate(players.items()):
            bandits = BernoulliBandits(batch, k, n, np.random.default_rng([seed, start]))
            own_draws = np.random.default_rng([seed, start, number + 1])
            totals[name].append(_total_reward(player, bandits, own_draws, on_step))
    earned = {name: np.concatenate(parts) for name, parts in totals.items()}
    mean, se = _mean_and_se(earned["policy"])
    return Cell(
        n=n,
        k=k,
        policy=mean,
        policy_se=se,
        baselines={
            name: Comparison(
                float(earned[name].mean()), *_mean_and_se(earned["policy"] - earned[name])
            )
            for name in baselines
        },
    )


def interactions(n: int, trials: int, baselines: Mapping[str, Algorithm] = BASELINES) -> int:
    """How many interactions an evaluation plays, all players together."""
    return n * trials * (1 + len(baselines))


def recurrent(policy: OnnxPolicy, *, n: int, greedy: bool = False) -> Algorithm:
    """The bundle as a bandit algorithm for one batch of trials of n pulls: it holds the memory."""
    manifest = policy.manifest
    memory = None

    def choose(history: History, rng: np.random.Generator) -> Actions:
        nonlocal memory
        batch, k = history.pulls.shape
        context = np.zeros((batch, manifest.context_size), np.float32)
        features = np.zeros((batch, k, manifest.action_feature_size), np.float32)
        if memory is None:
            memory = policy.blank(batch, k)
        else:
            memory = policy.learn(
                memory,
                context=context,
                action=history.last_action,
                reward=encode_reward(history.last_reward, 0.0, 1.0),
                done=np.ones(batch, np.float32),
                action_features=features,
            )
        left = horizon_left(history.position, n)
        probabilities, _ = policy.decide(
            memory,
            context=context,
            action_mask=np.ones((batch, k), bool),
            horizon_left=np.broadcast_to(left, (batch, *left.shape)),
            action_features=features,
        )
        if greedy:
            most_probable: Actions = probabilities.argmax(axis=1)
            return most_probable
        return sample(probabilities, rng.random(batch))

    return choose


def to_json(cells: list[Cell]) -> dict[str, Any]:
    """The evaluation as plain numbers."""
    return {
        "cells": [
            {
                "n": cell.n,
                "k": cell.k,
                "policy": cell.policy,
                "policy_se": cell.policy_se,
                "baselines": {
                    name: {
                        "reward": baseline.reward,
                        "difference": baseline.difference,
                        "difference_se": baseline.difference_se,
                    }
                    for name, baseline in cell.baselines.items()
                },
            }
            for cell in cells
        ]
    }


def _total_reward(
    player: Algorithm,
    bandits: BernoulliBandits,
    rng: np.random.Generator,
    on_step: Callable[[int], None],
) -> NDArray[np.float64]:
    """What a player earns in each trial, `[B]`."""
    bandits.reset()
    history = History.blank(bandits.num_envs, bandits.k)
    total = np.zeros(bandits.num_envs)
    for _ in range(bandits.n):
        actions = player(history, rng)
        _, rewards, _, _, _ = bandits.step(actions)
        history.observe(actions, rewards)
        total += rewards
        on_step(bandits.num_envs)
    return total


def _mean_and_se(values: Array) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(values.size))
