"""Buckets are even, independent between purposes, and nobody leaves when a percentage is raised."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from guardrails.rollouts.buckets import BUCKETS, bucket, is_below

ACCOUNTS = [f"account-{i}" for i in range(20_000)]
PERCENTS = st.floats(0, 100)


@given(st.text(), st.text(), st.text(), PERCENTS, PERCENTS)
def test_raising_a_percentage_moves_nobody_out(
    salt: str, tenant: str, account: str, one: float, other: float
) -> None:
    low, high = sorted((one, other))
    place = bucket(salt, tenant, account)
    assert place == bucket(salt, tenant, account)
    assert not is_below(place, low) or is_below(place, high)
    assert is_below(place, 100) and not is_below(place, 0)


def test_buckets_are_even_and_independent_from_salt_to_salt() -> None:
    one, other = (
        np.array([bucket(salt, "default", name) for name in ACCOUNTS]) for salt in ("a", "b")
    )
    counts = np.histogram(one, bins=20, range=(0, BUCKETS))[0]
    chi = float(((counts - 1_000) ** 2 / 1_000).sum())
    assert chi < 43.8  # the .999 quantile at 19 degrees of freedom
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.025


def test_names_that_run_together_are_told_apart() -> None:
    assert bucket("s", "ab", "c") != bucket("s", "a", "bc")
