"""The household panels as played by the algorithms one would otherwise use. Never the policy.

Names ending in `_brand_aware` know which brand a label stands for, which the service does not: they
show what that knowledge is worth, and no claim compares against them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.baselines import (
    Algorithm,
    fixed,
    play,
    thompson,
    ucb1,
    ucb1_classic,
    uniform,
    win_stay,
)
from training.beta_prior import fit_beta_prior
from training.tasks.households import (
    BRANDS,
    FAMILIES,
    Household,
    Panel,
    brand_counts,
    label_permutations,
    labelled_choices,
    outcomes,
)

Array = NDArray[Any]

BASELINES = (
    "uniform",
    "best_fixed",
    "best_fixed_brand_aware",
    "ucb1",
    "ts_flat",
    "ts_fitted",
    "ts_fitted_brand_aware",
    "win_stay",
    "ucb1_tuned",
)

_MOST_PERMUTATIONS = 1_000


def play_baselines(
    panel: Panel,
    households: Sequence[Household],
    seeds: int,
    on_baseline: Callable[[str], None] = lambda name: None,
    seed: int = 0,
) -> dict[str, NDArray[np.float64]]:
    """The rewards `[S, T, B]` of every baseline on the households, under the permutations of
    `permutation_seeds`; S of them, and own draws, both of `seed`.

    Zero past a household's last purchase.
    """
    permuted = permutation_seeds(seed, seeds)
    labels = np.stack([label_permutations(panel.family, households, s) for s in permuted])
    bought = np.concatenate([labelled_choices(households, labels[s]) for s in range(seeds)], axis=1)
    known = outcomes(bought)  # [T, S·B, K]
    rewards = {}
    for name, algorithm in _algorithms(panel, labels, permuted).items():
        stream = [FAMILIES.index(panel.family), BASELINES.index(name), *([seed] if seed else [])]
        rng = np.random.default_rng(stream)
        earned = play(algorithm, known, rng)
        rewards[name] = np.moveaxis(earned.reshape(-1, seeds, len(households)), 0, 1)
        on_baseline(name)
    return rewards


def permutation_seeds(seed: int, count: int) -> range:
    """The seeds of so many label permutations; those of two seeds have none in common."""
    if not 0 < count <= _MOST_PERMUTATIONS:
        raise ValueError(f"permutations: expected 1 to {_MOST_PERMUTATIONS}, got {count}")
    return range(seed * _MOST_PERMUTATIONS, seed * _MOST_PERMUTATIONS + count)


def _algorithms(panel: Panel, labels: Array, permuted: range) -> dict[str, Algorithm]:
    """Every baseline, for the S·B accounts that labels `[S, B, K]` describe, seed-major.

    `best_fixed` is the arm that earned most on the fitting households *as labelled*: where labels
    carry nothing it learns nothing, and is worth what any fixed label is, one in K. `ts_fitted`
    has one prior for all arms, fitted on every (household, brand) pair; its brand-aware twin has
    one prior a brand, and `best_fixed_brand_aware` the brand bought most. `ucb1` is the textbook's
    (c = 1); `ucb1_tuned` explores a fifth as much, the constant that serves it best on bandits with
    uniform means, and is the strongest of them.
    """
    batch = labels.shape[1]
    counts = brand_counts(panel.fit)  # [F, K]
    purchases = np.broadcast_to(counts.sum(axis=1, keepdims=True), counts.shape)
    shared = fit_beta_prior(counts.ravel(), purchases.ravel())
    of_brand = np.array([fit_beta_prior(counts[:, j], purchases[:, j]) for j in range(BRANDS)])
    brand_of_label = labels.argsort(axis=2).reshape(-1, BRANDS)  # [S·B, K]
    best_labels = [_most_bought_label(panel, seed) for seed in permuted]
    return {
        "uniform": uniform,
        "best_fixed": fixed(np.repeat(best_labels, batch)),
        "best_fixed_brand_aware": fixed(labels[:, :, counts.sum(axis=0).argmax()].ravel()),
        "ucb1": ucb1_classic,
        "ts_flat": thompson(),
        "ts_fitted": thompson(*shared),
        "ts_fitted_brand_aware": thompson(of_brand[brand_of_label, 0], of_brand[brand_of_label, 1]),
        "win_stay": win_stay,
        "ucb1_tuned": ucb1(),
    }


def _most_bought_label(panel: Panel, seed: int) -> int:
    labels = label_permutations(panel.family, panel.fit, seed)
    bought = np.zeros(BRANDS)
    np.add.at(bought, labels, brand_counts(panel.fit))
    return int(bought.argmax())
