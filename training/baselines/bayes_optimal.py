"""What the best possible player earns on Bernoulli bandits, exactly, where that can be computed.

Backward induction over what is known of the arms, their means uniform(0, 1). Arms are exchangeable,
so a state is the multiset of the (successes, failures) of the arms touched, and at most n arms can
be touched: a few thousand states at n = 10, ever more beyond.
"""

from __future__ import annotations

from functools import cache

LONGEST_TRIAL = 14
"""Pulls at which it still takes seconds."""

_Arm = tuple[int, int]


def bayes_optimal(n: int, k: int) -> float:
    """The expected total reward of the Bayes-optimal player of n pulls on k arms."""
    if not 1 <= n <= LONGEST_TRIAL:
        raise ValueError(f"n: expected 1 to {LONGEST_TRIAL} pulls, got {n}")
    if k < 1:
        raise ValueError(f"k: expected at least 1 arm, got {k}")

    @cache
    def value(touched: tuple[_Arm, ...], left: int) -> float:
        if left == 0:
            return 0.0
        options = [pull(touched, place, left) for place in first_of_equals(touched)]
        if len(touched) < k:
            options.append(pull((*touched, (0, 0)), len(touched), left))
        return max(options)

    def pull(arms: tuple[_Arm, ...], place: int, left: int) -> float:
        s, f = arms[place]
        others = arms[:place] + arms[place + 1 :]
        p = (s + 1) / (s + f + 2)
        won, lost = (tuple(sorted((*others, arm))) for arm in ((s + 1, f), (s, f + 1)))
        return p * (1 + value(won, left - 1)) + (1 - p) * value(lost, left - 1)

    return value((), n)


def first_of_equals(arms: tuple[_Arm, ...]) -> list[int]:
    """The places in a sorted tuple of arms where another kind of arm begins."""
    return [i for i, arm in enumerate(arms) if i == 0 or arms[i - 1] != arm]
