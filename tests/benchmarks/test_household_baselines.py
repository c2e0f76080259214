"""The households as the baselines play them: the reference figures, and who knows what."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.demo import accounts_of
from training.household_baselines import BASELINES, play_baselines
from training.household_scores import PlayerScore, score_family
from training.tasks.households import FAMILIES, label_permutations, labelled_choices, load_panels

PANELS = load_panels()
Rewards = dict[str, NDArray[np.float64]]


@pytest.fixture(scope="module")
def played() -> dict[str, Rewards]:
    return {family: play_baselines(panel, panel.test, 20) for family, panel in PANELS.items()}


def scores(family: str, rewards: Rewards) -> dict[str, PlayerScore]:
    households = PANELS[family].test
    active = labelled_choices(households, label_permutations(family, households, 0)) >= 0
    return score_family(family, active, rewards["uniform"], rewards, 0.5).baselines


@pytest.mark.parametrize("family", FAMILIES)
def test_every_named_baseline_plays(played: dict[str, Rewards], family: str) -> None:
    assert tuple(played[family]) == BASELINES


@pytest.mark.parametrize(
    ("family", "name", "reference"),
    [
        ("catsup", "best_fixed_brand_aware", 0.548),
        ("cracker", "best_fixed_brand_aware", 0.503),
        ("yogurt", "best_fixed_brand_aware", 0.337),
        ("catsup", "ts_flat", 0.457),
        ("cracker", "ts_flat", 0.603),
        ("yogurt", "ts_flat", 0.752),
        ("catsup", "ts_fitted_brand_aware", 0.572),
        ("cracker", "ts_fitted_brand_aware", 0.696),
        ("yogurt", "ts_fitted_brand_aware", 0.795),
    ],
)
def test_the_reference_figure_is_reproduced(
    played: dict[str, Rewards], family: str, name: str, reference: float
) -> None:
    """The households are the same ones, so only a player's own draws may move a figure."""
    score = scores(family, played[family])[name]
    assert score.reward.mean == pytest.approx(reference, abs=0.02)


@pytest.mark.parametrize("family", FAMILIES)
def test_where_labels_carry_nothing_the_best_fixed_arm_is_worth_a_guess(
    played: dict[str, Rewards], family: str
) -> None:
    score = scores(family, played[family])["best_fixed"]
    assert abs(score.household_reward.mean - 0.25) < 0.05


@pytest.mark.parametrize("family", FAMILIES)
def test_who_knows_the_brands_sees_through_every_permutation(
    played: dict[str, Rewards], family: str
) -> None:
    rewards = played[family]["best_fixed_brand_aware"]
    assert (rewards == rewards[0]).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_service_and_baselines_are_rewarded_for_the_same_labels(family: str) -> None:
    panel = PANELS[family]
    actions = ("brand_1", "brand_2", "brand_3", "brand_4")
    accounts = accounts_of(panel, 2, actions)
    assert len({account.account_id for account in accounts}) == len(accounts)
    for seed in range(2):
        labels = label_permutations(family, panel.test, seed)
        bought = labelled_choices(panel.test, labels)
        for b in range(len(panel.test)):
            account = accounts[seed * len(panel.test) + b]
            rewarded = [actions.index(action) for action in account.rewarded]
            assert rewarded == bought[bought[:, b] >= 0, b].tolist()


def test_the_first_seeds_are_the_same_however_many_are_played() -> None:
    panel = PANELS["yogurt"]
    few, many = (play_baselines(panel, panel.test[:5], seeds) for seeds in (2, 4))
    name = "best_fixed"
    assert np.array_equal(few[name], many[name][:2])
