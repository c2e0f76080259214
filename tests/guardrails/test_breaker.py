"""A circuit breaker opens after failures in a row, rests, and is tried by one alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from guardrails.breaker import Breaker, Fuse, ask, failed

FUSE = Fuse(failures=3, rest_us=100)


def after(failures: int, now_us: int = 0) -> Breaker:
    breaker = Breaker()
    for _ in range(failures):
        breaker = failed(breaker, FUSE, now_us)
    return breaker


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    for failures in range(3):
        assert ask(after(failures), FUSE, 0)[0]
    assert not ask(after(3), FUSE, 0)[0]
    assert not ask(after(3), FUSE, 99)[0]


def test_once_rested_one_alone_tries_it() -> None:
    may, trying = ask(after(3), FUSE, 100)
    assert may
    assert not ask(trying, FUSE, 100)[0]
    assert not ask(trying, FUSE, 199)[0]
    assert ask(trying, FUSE, 200)[0]  # nothing has come of the first


def test_a_trial_that_fails_opens_it_at_once() -> None:
    _, trying = ask(after(3), FUSE, 100)
    again = failed(trying, FUSE, 150)
    assert not ask(again, FUSE, 249)[0]
    assert ask(again, FUSE, 250)[0]


@given(st.lists(st.tuples(st.integers(0, 60), st.booleans()), max_size=60))
def test_it_is_never_used_more_often_than_the_fuse_allows(steps: list[tuple[int, bool]]) -> None:
    """Against failures alone: three in a row, then one a rest; and a success closes it."""
    breaker, now, in_row, last = Breaker(), 0, 0, 0
    for passed, works in steps:
        now += passed
        may, breaker = ask(breaker, FUSE, now)
        assert may == (in_row < 3 or now - last >= 100)
        if may and works:
            breaker, in_row = Breaker(), 0
        elif may:
            breaker, in_row, last = failed(breaker, FUSE, now), in_row + 1, now
