"""The Gittins table, held to enumeration, to a plain bisection and to what playing it earns."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from training.baselines import History, bayes_optimal, gittins_rule, gittins_table, play, thompson
from training.baselines.gittins import GittinsTable, compute

TOLERANCE = 1e-3
"""How much too high the module says that an index may be."""


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("ACCLIMATE_CACHE", str(directory))
    return directory


@pytest.fixture(scope="module")
def table() -> GittinsTable:
    return GittinsTable(100, compute(100))


def stopping_rules(s: int, f: int, left: int) -> NDArray[np.float64]:
    """(expected reward, expected pulls) of every rule that pulls at least once, `[rules, 2]`."""
    p = (s + 1) / (s + f + 2)
    first = np.array([[p, 1.0]])
    if left == 1:
        return first
    stop = np.zeros((1, 2))
    after_win = np.concatenate([stop, stopping_rules(s + 1, f, left - 1)])
    after_loss = np.concatenate([stop, stopping_rules(s, f + 1, left - 1)])
    return first + (p * after_win[:, None] + (1 - p) * after_loss[None]).reshape(-1, 2)


@pytest.mark.parametrize("state", [(0, 0), (1, 0), (0, 1), (3, 2), (2, 7)])
@pytest.mark.parametrize("left", [1, 2, 3, 4])
def test_the_index_is_the_best_rate_of_any_stopping_rule(
    table: GittinsTable, state: tuple[int, int], left: int
) -> None:
    """Gittins (1979): the largest expected reward per expected pull, over every stopping rule."""
    rules = stopping_rules(*state, left)
    best = (rules[:, 0] / rules[:, 1]).max()
    assert table.index(*state, left) == pytest.approx(best, abs=TOLERANCE)


def fair_price(s: int, f: int, left: int) -> float:
    """The price at which one is indifferent, by bisection, in Python's floats."""

    def option(price: float) -> float:
        @functools.cache
        def value(s: int, f: int, left: int) -> float:
            return max(0.0, pull(s, f, left)) if left else 0.0

        def pull(s: int, f: int, left: int) -> float:
            p = (s + 1) / (s + f + 2)
            won, lost = value(s + 1, f, left - 1), value(s, f + 1, left - 1)
            return p - price + p * won + (1 - p) * lost

        return pull(s, f, left)

    low, high = 0.0, 1.0
    for _ in range(22):
        middle = (low + high) / 2
        low, high = (middle, high) if option(middle) > 0 else (low, middle)
    return low


@pytest.mark.parametrize(
    ("s", "f", "left"), [(0, 0, 100), (0, 0, 40), (7, 1, 50), (1, 7, 60), (40, 10, 30), (0, 5, 25)]
)
def test_the_index_is_the_price_found_by_bisection(
    table: GittinsTable, s: int, f: int, left: int
) -> None:
    price = fair_price(s, f, left)
    assert price - 2e-5 < table.index(s, f, left) < price + TOLERANCE


def test_a_longer_table_gives_the_same_indices(table: GittinsTable) -> None:
    short = GittinsTable(30, compute(30))
    s, f, left = (grid.ravel() for grid in np.meshgrid(*[np.arange(30)] * 3))
    inside = (left >= 1) & (s + f + left <= 30)
    s, f, left = s[inside], f[inside], left[inside]
    np.testing.assert_array_equal(short.ranks(s, f, left), table.ranks(s, f, left))


def test_the_index_grows_with_success_and_with_what_is_left_and_never_falls_below_the_mean(
    table: GittinsTable,
) -> None:
    s, f = (grid.ravel() for grid in np.meshgrid(np.arange(20), np.arange(20)))
    index = table.index(s, f, 50)
    assert (table.index(s + 1, f, 50) > index).all()
    assert (table.index(s, f + 1, 50) < index).all()
    assert (table.index(s, f, 51) >= index).all()
    assert (index > (s + 1) / (s + f + 2)).all()


def test_a_teacher_gets_the_set_of_best_arms_of_any_counts(table: GittinsTable) -> None:
    successes = np.array([[0, 0, 0], [3, 0, 0], [0, 0, 1]])
    failures = np.array([[0, 0, 0], [0, 0, 1], [2, 2, 0]])
    best = table.best_arms(successes, failures, np.array([[10], [10], [5]]))
    assert best.tolist() == [[True, True, True], [True, False, False], [False, False, True]]


@pytest.mark.parametrize(
    ("s", "f", "left", "message"),
    [
        (60, 30, 11, "left: expected"),
        (0, 0, 0, "left: expected"),
        (-1, 2, 3, "successes, failures"),
    ],
)
def test_counts_outside_the_table_are_refused(
    table: GittinsTable, s: int, f: int, left: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        table.index(s, f, left)


@pytest.mark.parametrize("horizon", [0, 501])
def test_an_impossible_horizon_is_refused(horizon: int) -> None:
    with pytest.raises(ValueError, match="horizon: expected 1 to 500"):
        gittins_table(horizon)


def test_the_second_look_reads_the_cache_and_a_shorter_trial_reads_the_longer_table(
    cache: Path,
) -> None:
    heard: list[float] = []
    first = gittins_table(20, heard.append)
    assert heard[-1] == 1.0
    heard.clear()
    again, shorter = gittins_table(20, heard.append), gittins_table(12, heard.append)
    assert heard == []
    np.testing.assert_array_equal(first.entries, again.entries)
    assert shorter.horizon == 20
    assert [path.name for path in cache.iterdir()] == ["gittins-1-20.npz"]


@pytest.mark.parametrize("harm", ["cut", "flipped", "other"])
def test_a_broken_cache_is_computed_anew(cache: Path, harm: str) -> None:
    whole = gittins_table(20)
    path = cache / "gittins-1-20.npz"
    stored = bytearray(path.read_bytes())
    if harm == "cut":
        path.write_bytes(stored[: len(stored) // 2])
    elif harm == "flipped":
        stored[len(stored) // 2] ^= 1
        path.write_bytes(stored)
    else:
        np.savez(path, table=whole.entries[:-1])
    np.testing.assert_array_equal(gittins_table(20).entries, whole.entries)
    heard: list[float] = []
    gittins_table(20, heard.append)
    assert heard == [], "the broken file was not replaced"


def test_without_a_place_to_write_the_table_is_computed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ACCLIMATE_CACHE", str(tmp_path / "file" / "below"))
    with pytest.warns(UserWarning, match="gittins-1 is not kept"):
        assert gittins_table(3).index(0, 0, 2) == pytest.approx(5 / 9, abs=TOLERANCE)


def value_of_the_rule(table: GittinsTable, n: int, k: int) -> float:
    """What the index rule earns in n pulls on k arms, exactly: backward induction over states."""

    @functools.cache
    def value(arms: tuple[tuple[int, int], ...], left: int) -> float:
        if left == 0:
            return 0.0
        successes, failures = np.array(arms).T
        best = np.flatnonzero(table.best_arms(successes, failures, left))
        return float(np.mean([pull(arms, int(place), left) for place in best]))

    def pull(arms: tuple[tuple[int, int], ...], place: int, left: int) -> float:
        s, f = arms[place]
        others = arms[:place] + arms[place + 1 :]
        won, lost = (tuple(sorted((*others, arm))) for arm in ((s + 1, f), (s, f + 1)))
        p = (s + 1) / (s + f + 2)
        return p * (1 + value(won, left - 1)) + (1 - p) * value(lost, left - 1)

    return value(((0, 0),) * k, n)


@pytest.mark.parametrize(("n", "k"), [(10, 2), (10, 5), (10, 10), (7, 3)])
def test_playing_it_earns_the_optimum_but_for_a_tenth_of_a_percent(
    table: GittinsTable, n: int, k: int
) -> None:
    optimum = bayes_optimal(n, k)
    assert optimum * 0.999 < value_of_the_rule(table, n, k) < optimum + 1e-9


def outcomes(trials: int, n: int, k: int) -> NDArray[np.float64]:
    """`[n, B, k]`, arm means uniform(0, 1)."""
    rng = np.random.default_rng(0)
    means = rng.random((trials, k))
    return (rng.random((n, trials, 1)) < means).astype(np.float64)


def test_playing_it_earns_what_was_measured_with_other_code(table: GittinsTable) -> None:
    """78.58 ± 0.05 at n = 100, k = 5."""
    player, rng = gittins_rule(100, table), np.random.default_rng(1)
    earned = play(player, outcomes(4_000, 100, 5), rng).sum(axis=0)
    se = np.hypot(earned.std() / np.sqrt(earned.size), 0.05)
    assert abs(earned.mean() - 78.58) < 3 * se


def test_it_beats_thompson_sampling_on_the_same_outcomes(table: GittinsTable) -> None:
    same = outcomes(1_000, 100, 5)
    index, sampled = (
        play(player, same, np.random.default_rng(1)).sum(axis=0)
        for player in (gittins_rule(100, table), thompson())
    )
    assert index.mean() > sampled.mean() + 3


def test_ties_are_broken_at_random(table: GittinsTable) -> None:
    actions = gittins_rule(10, table)(History.blank(4_000, 4), np.random.default_rng(0))
    assert np.bincount(actions) == pytest.approx([1_000] * 4, abs=4 * np.sqrt(750))
