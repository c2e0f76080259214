"""Paired evaluation of a bundle on households' real purchases, through its graphs. Never torch.

Every player meets the same households under the same label permutations. It measures prediction of
the next purchase under bandit feedback, not persuasion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.policy import OnnxPolicy
from contract.spec import WorkflowSpec
from training.household_baselines import BASELINES, permutation_seeds, play_baselines
from training.household_scores import FamilyScore, PlayerScore, cohort_target, score_family
from training.served import ServedPolicy
from training.tasks.households import (
    BRANDS,
    FAMILIES,
    Panel,
    label_permutations,
    labelled_choices,
    outcomes,
)

Array = NDArray[Any]

POOLED = "pooled"
"""All test households of all families together: each purchase counts the same, and so, in the
figures of `household_…`, does each household."""


def evaluate_households(
    policy: OnnxPolicy,
    spec: WorkflowSpec,
    panels: Mapping[str, Panel],
    *,
    permutations: int,
    seed: int,
    greedy: bool = False,
    on_purchases: Callable[[int], None] = lambda count: None,
) -> list[FamilyScore]:
    """The policy beside every baseline on the test households: a score a family, then POOLED.

    Every household is met under `permutations` label permutations. `on_purchases` hears how many
    purchases were just played, of `purchases(…)` in all.
    """
    refuse_misfit(policy, spec)
    played: dict[str, dict[str, Array]] = {}
    bought = {}
    for family, panel in panels.items():
        first = label_permutations(family, panel.test, permutation_seeds(seed, permutations)[0])
        bought[family] = labelled_choices(panel.test, first)
        count = int((bought[family] >= 0).sum()) * permutations
        rng = np.random.default_rng([seed, FAMILIES.index(family)])
        rewards = play_policy(
            policy, spec, panel, permutations=permutations, seed=seed, rng=rng, greedy=greedy
        )
        on_purchases(count)
        played[family] = {"policy": rewards} | play_baselines(
            panel, panel.test, permutations, _each(on_purchases, count), seed
        )
    longest = max(len(each) for each in bought.values())
    together = np.concatenate([_lengthened(one, longest, 0, -1) for one in bought.values()], axis=1)
    everyone = {
        name: np.concatenate([_lengthened(one[name], longest, 1, 0) for one in played.values()], 2)
        for name in ("policy", *BASELINES)
    }
    groups = [(family, bought[family], played[family]) for family in panels]
    return [
        score_family(
            family,
            purchases >= 0,
            rewards["policy"],
            {name: rewards[name] for name in BASELINES},
            cohort_target(purchases, BRANDS),
        )
        for family, purchases, rewards in [*groups, (POOLED, together, everyone)]
    ]


def play_policy(
    policy: OnnxPolicy,
    spec: WorkflowSpec,
    panel: Panel,
    *,
    permutations: int,
    seed: int,
    rng: np.random.Generator,
    greedy: bool = False,
) -> NDArray[np.float64]:
    """What the policy earns, `[S, T, B]`, zero past a household's last purchase."""
    households = panel.test
    bought = np.concatenate(
        [
            labelled_choices(households, label_permutations(panel.family, households, s))
            for s in permutation_seeds(seed, permutations)
        ],
        axis=1,
    )
    known = outcomes(bought)  # [T, S·B, K]
    steps, accounts, k = known.shape
    player = ServedPolicy(policy, spec, accounts, rng, greedy=greedy)
    mask, nothing = np.ones((accounts, k), bool), np.zeros((accounts, 0), np.float32)
    earned = np.zeros((steps, accounts))
    for t in range(steps):
        buying = np.flatnonzero(bought[t] >= 0)
        actions = player.choose(nothing, mask)[buying]
        rewards = known[t, buying, actions]
        earned[t, buying] = rewards
        player.learn(buying, nothing[buying], actions, rewards, np.ones(buying.size, bool))
    return np.moveaxis(earned.reshape(steps, permutations, len(households)), 0, 1)


def purchases(panels: Mapping[str, Panel], permutations: int) -> int:
    """How many purchases an evaluation plays, all players together."""
    once = sum(household.choices.size for panel in panels.values() for household in panel.test)
    return once * permutations * (len(BASELINES) + 1)


def refuse_misfit(policy: OnnxPolicy, spec: WorkflowSpec) -> None:
    """Raises ValueError or BundleError for a workflow or a policy that cannot play the panels."""
    reward = (spec.reward.min, spec.reward.max)
    if len(spec.actions) != BRANDS or reward != (0.0, 1.0) or spec.context:
        raise ValueError(
            f"workflow {spec.workflow}: expected {BRANDS} actions, no context and rewards in "
            f"[0, 1], got {len(spec.actions)}, {len(spec.context)} features and "
            f"[{reward[0]:g}, {reward[1]:g}]"
        )
    policy.manifest.refuse_misfit(spec)


def to_json(scores: Sequence[FamilyScore], policy: str) -> dict[str, Any]:
    """The evaluation as plain numbers. Differences are policy − peer."""
    return {
        "policy": policy,
        "families": [
            {
                "family": score.family,
                "households": score.households,
                "target": score.target,
                **_numbers(score.policy),
                "baselines": {
                    name: {
                        **_numbers(peer),
                        "difference": peer.difference.mean,
                        "difference_se": peer.difference.se,
                        "household_difference": peer.household_difference.mean,
                        "household_difference_se": peer.household_difference.se,
                    }
                    for name, peer in score.baselines.items()
                },
            }
            for score in scores
        ],
    }


def _each(on_purchases: Callable[[int], None], count: int) -> Callable[[str], None]:
    """Hears of so many purchases whenever a baseline has played."""
    return lambda name: on_purchases(count)


def _numbers(player: PlayerScore) -> dict[str, Any]:
    each = asdict(player.household_reward)
    return {
        "reward": player.reward.mean,
        "reward_se": player.reward.se,
        "household_reward": each["mean"],
        "household_reward_se": each["se"],
        "adaptation_interactions": player.adaptation_interactions,
    }


def _lengthened(values: Array, steps: int, axis: int, past: int) -> Array:
    """Values with so many steps along the axis, `past` where there were none."""
    widths = [(0, 0)] * values.ndim
    widths[axis] = (0, steps - values.shape[axis])
    return np.pad(values, widths, constant_values=past)
