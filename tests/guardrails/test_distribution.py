"""What came out of a network is used only when it is a distribution over what is allowed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrails.distribution import are_sound, point_mass

ALL = [True, True, True]


@pytest.mark.parametrize(
    ("probabilities", "mask", "sound"),
    [
        ([0.2, 0.3, 0.5], ALL, True),
        ([0.0, 0.0, 1.0], ALL, True),
        ([0.0, 0.4, 0.6], [False, True, True], True),
        ([0.2, 0.3, 0.50005], ALL, True),  # float32 sums over many actions are off by less
        ([0.2, 0.3, 0.5002], ALL, False),
        ([0.2, 0.3, 0.4998], ALL, False),
        ([0.2, 0.3, 0.4], ALL, False),
        ([0.0, 0.0, 0.0], ALL, False),
        ([0.1, 0.4, 0.5], [False, True, True], False),
        ([1e-30, 0.5, 0.5], [False, True, True], False),
        ([0.5, 0.5, 0.0], [False, False, False], False),
        ([0.0, 0.0, 0.0], [False, False, False], False),
        ([-0.1, 0.6, 0.5], ALL, False),
        ([-0.1, 0.5, 0.6], [False, True, True], False),
        ([np.nan, 0.5, 0.5], ALL, False),
        ([np.nan, 0.5, 0.5], [False, True, True], False),
        ([np.nan, np.nan, np.nan], ALL, False),
        ([np.inf, 0.0, 0.0], ALL, False),
        ([np.inf, -np.inf, 1.0], ALL, False),
    ],
)
def test_a_distribution_is_sound_or_not(
    probabilities: list[float], mask: list[bool], sound: bool
) -> None:
    assert are_sound(np.array([probabilities]), np.array([mask])).tolist() == [sound]


@pytest.mark.parametrize("size", [2, 50, 1000])
def test_a_softmax_in_float32_is_sound_at_every_size(size: int) -> None:
    logits = np.random.default_rng(size).normal(0, 5, (50, size)).astype(np.float32)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    masks = np.ones(odds.shape, bool)
    assert are_sound(odds / odds.sum(axis=1, keepdims=True), masks).all()


def test_what_one_account_got_does_not_touch_another() -> None:
    rows = np.array([[0.2, 0.8], [np.nan, 1.0], [np.inf, -np.inf], [0.0, 1.0], [1.0, 0.0]])
    masks = np.array([[True, True]] * 3 + [[False, True]] * 2)
    assert are_sound(rows, masks).tolist() == [True, False, False, True, False]


@given(st.integers(1, 20).flatmap(lambda k: st.tuples(st.integers(0, k - 1), st.just(k))))
def test_a_point_mass_is_sound_where_its_action_alone_is_allowed(place: tuple[int, int]) -> None:
    row, size = place
    mask = np.arange(size) == row
    probabilities = point_mass(row, size)
    assert probabilities.shape == (size,)
    assert are_sound(probabilities[None], mask[None]).all()
    assert not are_sound(probabilities[None], ~mask[None]).any()
