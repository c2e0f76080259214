"""Paired evaluation of a bundle on bandits, through its ONNX graphs. Never torch.

Common random numbers: policy and baselines meet the same arm means and the same luck. A trial's
coin at step t is one uniform number, whichever arm is pulled (`training.tasks.bandits`), so two
players who pull the same arm at the same step earn the same. A player's own draws are its own, and
the same whoever else plays.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.draw import sample
from contract.encode import Float32, encode_reward, horizon_left
from contract.policy import Memory, OnnxPolicy
from training.baselines import Actions, Algorithm, History, bayes_optimal, thompson, ucb1, uniform
from training.baselines.bayes_optimal import LONGEST_TRIAL
from training.baselines.published import PUBLISHED
from training.curriculum import MdpCurriculum
from training.opponents import Family
from training.paired import Comparison, compare, mean_and_se
from training.tasks.bandit_trials import BanditTrials, refuse_impossible_trials

Array = NDArray[Any]

BASELINES: Mapping[str, Algorithm] = {"ts": thompson(), "ucb1": ucb1(), "random": uniform}
"""Those that cost nothing: Thompson sampling with a flat prior, tuned UCB1, and any arm."""

_TRIALS_AT_ONCE = 1_000

_ROWS_AT_ONCE = 128
"""Trials a call of a graph: its memories then stay in the processor's cache."""

_DRAWS = {"policy": 1, "ts": 2, "ucb1": 3, "random": 4}
"""The stream of own draws of those whose figures are kept elsewhere; others have their name's."""


@dataclass(frozen=True)
class Curve:
    """A player within a trial, `[n]` each, means over trials."""

    reward: NDArray[np.float64]
    """Expected reward of the arm pulled, at each pull."""
    ahead: NDArray[np.float64]
    """Reward that the policy earned more than this player up to and with each pull, paired."""
    ahead_se: NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """One (n, k): the mean total reward of a trial, with its standard error over trials."""

    n: int
    k: int
    trials: int
    policy: float
    policy_se: float
    greedy_play: Comparison | None
    """The policy again, always its most probable arm; None where `policy` was played so."""
    baselines: dict[str, Comparison]
    optimum: float | None
    """What the Bayes-optimal player earns, exact, where that can be computed."""
    published: dict[str, float]
    """Figures in print at this (n, k), by player; none for another family than theirs."""
    curves: dict[str, Curve] = field(compare=False)
    seconds: dict[str, float] = field(compare=False)
    """Processor time that each player took."""


def evaluate_bandits(
    policy: OnnxPolicy,
    *,
    n: int,
    k: int,
    trials: int,
    seed: int,
    greedy: bool = False,
    family: Family | None = None,
    baselines: Mapping[str, Algorithm] = BASELINES,
    on_step: Callable[[int], None] = lambda interactions: None,
) -> Cell:
    """Plays `trials` trials of n pulls on k arms with every player and scores them in pairs.

    The policy samples, as it is served, and then plays greedily on the same trials; `greedy` leaves
    the sampling out. `on_step` hears how many interactions were just played, of
    `interactions(…)` in all.
    """
    family = family or Family()
    refuse_misfit(policy, n=n, k=k, trials=trials, family=family)
    policies = {"policy": greedy} if greedy else {"policy": False, "greedy play": True}
    names = (*policies, *baselines)
    tallies = {name: _Tally(n) for name in names}
    for start in range(0, trials, _TRIALS_AT_ONCE):
        batch = min(_TRIALS_AT_ONCE, trials - start)
        own = None
        for name in names:
            bandits = family.trials(batch, k, n, np.random.default_rng([seed, start]))
            player = (
                recurrent(policy, n=n, greedy=policies[name], shown=bandits.shown)
                if name in policies
                else baselines[name]
            )
            stream = _DRAWS.get(name) or zlib.crc32(name.encode())
            own_draws = np.random.default_rng([seed, start, stream])
            began = time.process_time()
            earned, expected = play_trials(player, bandits, own_draws, on_step)
            own = earned if own is None else own
            tallies[name].add(own, earned, expected, time.process_time() - began)
    totals = {name: np.concatenate(tally.totals) for name, tally in tallies.items()}
    mean, se = mean_and_se(totals["policy"])
    key = (n, k)
    return Cell(
        n=n,
        k=k,
        trials=trials,
        policy=mean,
        policy_se=se,
        greedy_play=None if greedy else compare(totals["policy"], totals["greedy play"]),
        baselines={name: compare(totals["policy"], totals[name]) for name in baselines},
        optimum=bayes_optimal(n, k) if family.in_print and n <= LONGEST_TRIAL else None,
        published={name: known[key] for name, known in PUBLISHED.items() if key in known}
        if family.in_print
        else {},
        curves={name: tally.curve() for name, tally in tallies.items()},
        seconds={name: tally.seconds for name, tally in tallies.items()},
    )


def interactions(n: int, trials: int, baselines: int, greedy: bool) -> int:
    """How many interactions an evaluation beside so many baselines plays, all players together."""
    return n * trials * (baselines + (1 if greedy else 2))


def refuse_misfit(policy: OnnxPolicy, *, n: int, k: int, trials: int, family: Family) -> None:
    """Raises ValueError naming the field of what cannot be evaluated."""
    refuse_impossible_trials(
        k=k, n=n, trials=trials, drift=family.drift, delay=family.delay, batch=family.batch
    )
    if trials < 2:
        raise ValueError(f"trials: expected at least 2, for a standard error, got {trials}")
    manifest = policy.manifest
    if manifest.task_family == MdpCurriculum.name:
        raise ValueError(
            f"policy: expected one that plays bandits, got {manifest.policy}, which was trained on "
            f"{manifest.task_family}"
        )
    if not manifest.actions.min <= k <= manifest.actions.max:
        raise ValueError(
            f"k: policy {manifest.policy} takes {manifest.actions.min} to {manifest.actions.max} "
            f"arms, got {k}"
        )


def recurrent(
    policy: OnnxPolicy,
    *,
    n: int,
    greedy: bool = False,
    shown: Callable[[Array], Float32] = lambda reward: encode_reward(reward, 0.0, 1.0),
) -> Algorithm:
    """The bundle as a bandit algorithm for one batch of trials of n pulls: it holds the memory.

    As served: it folds what has been fed back, in order, and knows of nothing else. `shown` encodes
    rewards.
    """
    parts: list[_Part] = []
    folded = 0

    def choose(history: History, rng: np.random.Generator) -> Actions:
        nonlocal folded
        batch, k = history.pulls.shape
        if not parts:
            starts = range(0, batch, _ROWS_AT_ONCE)
            parts.extend(_Part(policy, slice(i, min(i + _ROWS_AT_ONCE, batch)), k) for i in starts)
        for actions, rewards in history.log[folded : history.position]:
            encoded = shown(rewards)
            for part in parts:
                part.learn(actions, encoded)
        folded = history.position
        left = horizon_left(history.position, n)
        probabilities = np.concatenate([part.decide(left) for part in parts])
        if greedy:
            most_probable: Actions = probabilities.argmax(axis=1)
            return most_probable
        return sample(probabilities, rng.random(batch))

    return choose


class _Part:
    """The memories of a part of the trials, and the inputs that never change."""

    def __init__(self, policy: OnnxPolicy, trials: slice, k: int) -> None:
        rows = trials.stop - trials.start
        manifest = policy.manifest
        self._policy = policy
        self._trials = trials
        self._memory: Memory = policy.blank(rows, k)
        self._context = np.zeros((rows, manifest.context_size), np.float32)
        self._features = np.zeros((rows, k, manifest.action_feature_size), np.float32)
        self._mask = np.ones((rows, k), bool)
        self._done = np.ones(rows, np.float32)

    def learn(self, actions: Actions, rewards: Float32) -> None:
        """Folds one interaction of all trials, `[B]` each, as far as they are this part's."""
        self._memory = self._policy.learn(
            self._memory,
            context=self._context,
            action=actions[self._trials],
            reward=rewards[self._trials],
            done=self._done,
            action_features=self._features,
        )

    def decide(self, left: Float32) -> Array:
        """Probabilities of this part's trials, `[rows, K]`; left `[2]`."""
        probabilities, _ = self._policy.decide(
            self._memory,
            context=self._context,
            action_mask=self._mask,
            horizon_left=np.tile(left, (self._done.size, 1)),
            action_features=self._features,
        )
        return probabilities


def play_trials(
    player: Algorithm,
    bandits: BanditTrials,
    rng: np.random.Generator,
    on_step: Callable[[int], None] = lambda interactions: None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What a player earns, and the means of the arms it pulls, at each pull `[T, B]` both."""
    bandits.reset()
    history = History.blank(bandits.num_envs, bandits.k)
    earned = np.empty((bandits.n, bandits.num_envs))
    expected = np.empty_like(earned)
    pulled: list[Actions] = []
    for t, known in enumerate(bandits.known):
        while history.position < known:
            i = history.position
            history.observe(pulled[i], earned[i])
        history.decisions = t
        actions = player(history, rng)
        expected[t] = bandits.expected(actions)
        _, earned[t], _, _, _ = bandits.step(actions)
        pulled.append(actions)
        on_step(bandits.num_envs)
    return earned, expected


class _Tally:
    """What becomes of one player's rewards, batch of trials after batch."""

    def __init__(self, n: int) -> None:
        self.totals: list[Array] = []
        self.seconds = 0.0
        self._trials = 0
        self._expected = np.zeros(n)
        self._ahead = np.zeros(n)
        self._ahead_squares = np.zeros(n)

    def add(self, policy: Array, earned: Array, expected: Array, seconds: float) -> None:
        """Rewards of the policy and of this player, and its arms' means, `[T, B]` each."""
        ahead = np.cumsum(policy - earned, axis=0)
        self.totals.append(earned.sum(axis=0))
        self.seconds += seconds
        self._trials += earned.shape[1]
        self._expected += expected.sum(axis=1)
        self._ahead += ahead.sum(axis=1)
        self._ahead_squares += (ahead**2).sum(axis=1)

    def curve(self) -> Curve:
        mean = self._ahead / self._trials
        variance = np.maximum(self._ahead_squares / self._trials - mean**2, 0.0)
        return Curve(
            reward=self._expected / self._trials,
            ahead=mean,
            ahead_se=np.sqrt(variance / (self._trials - 1)),
        )


def to_json(cells: Sequence[Cell]) -> dict[str, Any]:
    """The evaluation as plain numbers."""
    return {
        "cells": [
            {
                "n": cell.n,
                "k": cell.k,
                "trials": cell.trials,
                "policy": cell.policy,
                "policy_se": cell.policy_se,
                **({"greedy_play": asdict(cell.greedy_play)} if cell.greedy_play else {}),
                **({} if cell.optimum is None else {"optimum": cell.optimum}),
                "published": cell.published,
                "baselines": {name: asdict(one) for name, one in cell.baselines.items()},
            }
            for cell in cells
        ]
    }


def rows(cell: Cell) -> list[tuple[str, float, Comparison | None, float | None]]:
    """(player, total reward, policy − player, figure in print) of everyone but the policy."""
    compared: Mapping[str, Comparison] = cell.baselines
    if cell.greedy_play:
        compared = {"greedy play": cell.greedy_play} | cell.baselines
    measured = [(name, one.reward, one, cell.published.get(name)) for name, one in compared.items()]
    optimum = [] if cell.optimum is None else [("optimum, exact", cell.optimum, None, None)]
    return [*measured, *optimum]
