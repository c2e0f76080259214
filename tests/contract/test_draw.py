"""One draw per decision: the same under retry, uniform, and nobody's to steer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from contract.draw import draw, sample

KEY = b"installation key"
IDS = ("tenant", "workflow", "account", "decision")
EDGE = 1 - 2.0**-53
"""The largest draw there is."""


def test_the_draw_is_the_one_that_ledgers_already_hold() -> None:
    assert draw(KEY, *IDS) == 0.906335487168587


def test_the_draw_is_the_same_under_retry() -> None:
    assert draw(KEY, *IDS) == draw(KEY, *IDS)


def test_another_key_or_another_id_of_any_kind_draws_another_number() -> None:
    draws = [draw(KEY, *IDS), draw(b"another key", *IDS)]
    draws += [
        draw(KEY, *(f"{one}2" if i == k else one for i, one in enumerate(IDS))) for k in range(4)
    ]
    assert len(set(draws)) == 6


@settings(max_examples=50)
@given(st.text(max_size=6), st.integers(0, 6), st.integers(0, 6), st.sampled_from([0, 1, 2]))
def test_ids_that_read_the_same_when_joined_are_told_apart(
    joined: str, cut: int, other: int, place: int
) -> None:
    assume(joined[:cut] != joined[:other])

    def cut_at(index: int) -> float:
        ids = list(IDS)
        ids[place : place + 2] = joined[:index], joined[index:]
        return draw(KEY, *ids)

    assert cut_at(cut) != cut_at(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("t", "w", "a", "bc"), ("t", "w", "ab", "c")),
        (("t", "w", "", "a"), ("t", "w", "a", "")),
        (("t", "w", "a|b", "c"), ("t", "w", "a", "b|c")),
        (("t", "w", "a\0", "b"), ("t", "w", "a", "\0b")),
        (("t", "w", "é", "b"), ("t", "w", "e\u0301", "b")),
    ],
)
def test_no_two_decisions_share_a_draw_by_the_spelling_of_their_ids(
    one: tuple[str, str, str, str], other: tuple[str, str, str, str]
) -> None:
    assert draw(KEY, *one) != draw(KEY, *other)


def test_draws_are_uniform() -> None:
    count, bins = 20_000, 100
    draws = np.sort([draw(KEY, "t", "w", f"account-{i % 50}", str(i)) for i in range(count)])
    assert draws[0] >= 0
    assert draws[-1] < 1
    steps = np.arange(count)
    distance = max(np.max(draws - steps / count), np.max((steps + 1) / count - draws))
    assert distance * np.sqrt(count) < 1.95  # Kolmogorov-Smirnov at 0.1 %
    found = np.histogram(draws, bins, (0, 1))[0]
    chi_square = np.sum((found - count / bins) ** 2) / (count / bins)
    assert chi_square < 148.2  # 99 degrees of freedom at 0.1 %


def test_draws_of_successive_decisions_are_not_correlated() -> None:
    draws = np.array([draw(KEY, "t", "w", "a", str(i)) for i in range(10_000)])
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.033  # 3.3 standard errors


# Sampling


@pytest.mark.parametrize(
    ("probabilities", "u", "action"),
    [
        ([0.25, 0.25, 0.5], 0.0, 0),
        ([0.25, 0.25, 0.5], 0.2499, 0),
        ([0.25, 0.25, 0.5], 0.25, 1),
        ([0.25, 0.25, 0.5], 0.5, 2),
        ([0.25, 0.25, 0.5], EDGE, 2),
        ([0.0, 0.0, 1.0], 0.0, 2),
        ([0.0, 1.0, 0.0], EDGE, 1),
        ([0.5, 0.0, 0.5], 0.5, 2),
        ([0.5, 0.5, 0.0, 0.0], EDGE, 1),
        ([1.0], EDGE, 0),
        ([0.1] * 10 + [0.0], EDGE, 9),  # sums to 1 − 2⁻⁵³
        ([0.3, 0.3, 0.3], 0.999, 2),
        ([0.3, 0.3, 0.3], 1 / 3 + 1e-9, 1),  # of what there is, a third each
        ([2.0, 2.0, 0.0], EDGE, 1),
        ([1.0, 1e-10], EDGE, 1),  # summed in float64
        ([5e-324, 0.0], EDGE, 0),  # u × sum rounds to the sum
    ],
)
def test_a_draw_picks_this_action(probabilities: list[float], u: float, action: int) -> None:
    assert sample(probabilities, u) == action


SHARES = st.sampled_from([0.0, 1e-300, 1e-17, 1e-3]) | st.floats(0, 1)


@given(
    st.lists(SHARES, min_size=1, max_size=8).filter(any),
    st.sampled_from([0.0, 0.5, EDGE]) | st.floats(0, 1, exclude_max=True),
    st.sampled_from([np.float32, np.float64]),
)
def test_an_action_of_probability_zero_is_never_picked(
    shares: list[float], u: float, dtype: type[np.floating]
) -> None:
    probabilities = np.array(shares, dtype)
    assume(probabilities.any())
    assert probabilities[sample(probabilities, u)] > 0


@given(
    arrays.arrays(np.float64, (3, 5), elements=st.integers(0, 9).map(float)),
    arrays.arrays(np.float64, 3, elements=st.floats(0, EDGE)),
)
def test_a_batch_picks_what_each_would_pick_alone(
    weights: np.ndarray[tuple[int, int], np.dtype[np.float64]],
    u: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> None:
    weights[:, 2] += 1
    batch = sample(weights / 7, u)
    assert batch.dtype == np.int64
    assert batch.tolist() == [
        int(sample(row / 7, one)) for row, one in zip(weights, u, strict=True)
    ]


def test_any_leading_axes_are_a_batch() -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(4), (5, 6))
    u = np.random.default_rng(1).random((5, 6))
    picked = sample(probabilities, u)
    assert picked.shape == (5, 6)
    assert picked[3, 2] == sample(probabilities[3, 2], u[3, 2])


def test_frequencies_are_the_probabilities() -> None:
    probabilities = np.array([0.1, 0.0, 0.2, 0.65, 0.05], np.float32)
    count = 10_000
    u = (np.arange(count) + 0.5) / count
    picked = np.bincount(sample(np.tile(probabilities, (count, 1)), u), minlength=5)
    np.testing.assert_allclose(picked, probabilities * count, atol=1)
