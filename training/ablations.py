"""What each part of RL² is worth: small runs that differ in one thing and are otherwise equal.

Same task, number of interactions, seeds and hyperparameters in all of them; every run is judged on
the same fresh trials. It must never keep a run that saw more than the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from training.baselines import gittins_rule
from training.curriculum import BanditCurriculum
from training.evaluate import play_trials
from training.hyperparameters import Hyperparameters
from training.imitation import lesson
from training.paired import mean_and_se
from training.policies.ablated import Ablated, FeedForwardCritic
from training.policies.gru import Gru, GruSizes
from training.rollout import play
from training.tasks.bandits import BernoulliBandits
from training.teachers import build_teacher
from training.trpo import iterate, new_learner


@dataclass(frozen=True)
class Settings:
    """What all runs have in common."""

    n: int = 20
    k: int = 5
    width: int = 48
    iterations: int = 100
    steps: int = 8_000
    """Interactions of an iteration."""
    seeds: int = 2
    trials: int = 5_000
    """Fresh trials that every run is judged on."""


@dataclass(frozen=True)
class Variant:
    """One thing that is different."""

    name: str
    cell: str = "gru"
    feed_forward_critic: bool = False
    imitation: bool = False


VARIANTS = (
    Variant("GRU, TRPO"),
    Variant("vanilla RNN", cell="rnn"),
    Variant("LSTM", cell="lstm"),
    Variant("memory reset between episodes", cell="reset"),
    Variant("feed-forward critic", feed_forward_critic=True),
    Variant("supervised imitation of Gittins alone", imitation=True),
)


@dataclass(frozen=True)
class Row:
    """One variant's runs."""

    name: str
    rewards: list[float]
    """Mean expected reward of a trial, by seed."""
    reward: float
    """Their mean."""
    reward_se: float
    """Over the fresh trials, of the mean over seeds: what seeds differ by is in `rewards`."""
    difference: float
    """To the first variant, on the same trials."""
    difference_se: float
    curve: list[float]
    """Share of the gap from random to best arm closed, by iteration, mean over seeds."""


def run(
    settings: Settings,
    on_iteration: Callable[[str, int], None] = lambda name, iteration: None,
    variants: tuple[Variant, ...] = VARIANTS,
) -> dict[str, Any]:
    """All rows, with finite-horizon Gittins on the same trials beside them."""
    totals: dict[str, list[Any]] = {}
    curves: dict[str, list[list[float]]] = {}
    for variant in variants:
        for seed in range(1, settings.seeds + 1):
            policy, curve = trained(settings, variant, seed, on_iteration)
            task, rng = fresh_trials(settings)
            played = play(policy, task, rng)
            totals.setdefault(variant.name, []).append(played.expected.sum(0))
            curves.setdefault(variant.name, []).append(curve)
    task, rng = fresh_trials(settings)
    _, expected = play_trials(gittins_rule(settings.n), task, rng)
    first = np.mean(totals[variants[0].name], 0)
    rows = []
    for name, runs in totals.items():
        mean, se = mean_and_se(np.mean(runs, 0))
        difference, difference_se = mean_and_se(np.mean(runs, 0) - first)
        rewards = [float(one.mean()) for one in runs]
        curve = np.mean(curves[name], 0).tolist()
        rows.append(Row(name, rewards, mean, se, difference, difference_se, curve))
    return {
        "settings": settings,
        "gittins": mean_and_se(expected.sum(0)),
        "random": settings.n / 2,
        "rows": rows,
    }


def trained(
    settings: Settings,
    variant: Variant,
    seed: int,
    on_iteration: Callable[[str, int], None] = lambda name, iteration: None,
) -> tuple[Gru, list[float]]:
    """A policy after the budget, and its learning curve."""
    sizes = GruSizes(actions=settings.k, hidden=settings.width)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = Gru(sizes) if variant.cell == "gru" else Ablated(sizes, variant.cell)
        critic = FeedForwardCritic(sizes) if variant.feed_forward_critic else Gru(sizes)
    h = Hyperparameters(
        teacher="gittins" if variant.imitation else "none",
        lessons=settings.iterations if variant.imitation else 0,
        fisher_times=1.0,
    )
    curriculum = BanditCurriculum(
        horizons=1,
        groups=1,
        steps_per_group=settings.steps,
        arms=(settings.k, settings.k),
        pulls=(settings.n, settings.n),
        held_out_arms=(),
        growing=0,
    ).plain()
    learner = new_learner(policy, critic, seed, h)  # type: ignore[arg-type]
    teacher = build_teacher("gittins") if variant.imitation else None
    for iteration in range(settings.iterations):
        if teacher is not None:
            entry = lesson(learner, h, curriculum, teacher)
        else:
            entry = iterate(learner, h, curriculum)
        learner.history.append(entry)
        on_iteration(variant.name, iteration + 1)
    return policy, [entry["gap_closed"] for entry in learner.history]


def fresh_trials(settings: Settings) -> tuple[BernoulliBandits, np.random.Generator]:
    """Never trained on, the same for every run."""
    rng = np.random.default_rng([20_161_109, settings.n, settings.k])
    return BernoulliBandits(settings.trials, settings.k, settings.n, rng), rng


def quick(settings: Settings) -> Settings:
    """Every variant for a moment: no figures to keep."""
    return replace(settings, n=4, width=6, iterations=2, steps=80, seeds=1, trials=50)
