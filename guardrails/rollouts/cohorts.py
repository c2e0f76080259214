"""Cohorts compared at equal account age and in the same stage, the account being the unit.

What is kept of a cohort are sums over its accounts, so that one more account's outcome costs the
same whether ten or a million came before.
"""

from __future__ import annotations

import math
import zlib
from bisect import bisect_right
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

AGES = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500)
"""Where the strata of account age begin, in interactions."""


def strata(stages: int) -> int:
    """J: how many strata a rollout of so many stages has."""
    return stages * len(AGES)


def stratum(stage: int, age: int) -> int:
    """Of an interaction in this stage, of an account that had `age` interactions before. By stage
    as well: shares and seasons change from one to the next, and together would make a difference
    out of nothing (Simpson 1951)."""
    return stage * len(AGES) + bisect_right(AGES, age) - 1


class Comparison(NamedTuple):
    """How a candidate's accounts fared against the control's, in one measure."""

    difference: float
    """Candidate's minus control's mean per interaction, at the candidate's ages."""
    standard_error: float
    candidate_mean: float
    control_mean: float
    candidate_accounts: int
    control_accounts: int
    interactions: int
    """Of the candidate's accounts, at ages that the control has too."""


class Sums(Protocol):
    """What a comparison asks of a cohort."""

    accounts: int
    n: Array
    """Interactions by stratum, `[J]`."""
    y: Array
    """Sums of what was measured by stratum, `[J]`."""

    def squares(self, weights: Array, scaled: Array) -> float:
        """Σ_a (Σ_j w_j y_aj − v_j n_aj)², for weights w and v, `[J]`."""


@dataclass
class Cohort:
    """Sums over the accounts of one cohort, by J strata, of one measure.

    With n_aj the interactions of account a in stratum j and y_aj the sum of what was measured:
    Σ_a n_aj, Σ_a y_aj `[J]`, and Σ_a n_aj n_ak, Σ_a n_aj y_ak, Σ_a y_aj y_ak `[J, J]`.
    """

    accounts: int
    n: Array
    y: Array
    nn: Array
    ny: Array
    yy: Array

    @classmethod
    def empty(cls, strata: int) -> Cohort:
        """Nobody."""
        square = (strata, strata)
        return cls(0, np.zeros(strata), np.zeros(strata), *(np.zeros(square) for _ in range(3)))

    def replace(self, before: tuple[Array, Array], after: tuple[Array, Array]) -> None:
        """One account has now (n, y), each `[J]`, where it had others before."""
        had, has = bool(before[0].any()), bool(after[0].any())
        self.accounts += has - had
        (some,) = np.nonzero(before[0] + after[0])
        both = np.ix_(some, some)
        for sign, whole in ((-1, before), (1, after)):
            n, y = whole[0][some], whole[1][some]
            self.n[some] += sign * n
            self.y[some] += sign * y
            self.nn[both] += sign * np.outer(n, n)
            self.ny[both] += sign * np.outer(n, y)
            self.yy[both] += sign * np.outer(y, y)

    def squares(self, weights: Array, scaled: Array) -> float:
        """Σ_a (Σ_j w_j y_aj − v_j n_aj)², for weights w and v, `[J]`."""
        return float(
            weights @ self.yy @ weights - 2 * scaled @ self.ny @ weights + scaled @ self.nn @ scaled
        )

    def __add__(self, other: Cohort) -> Cohort:
        """Both, nobody being in both."""
        parts = zip(self._arrays(), other._arrays(), strict=True)
        return Cohort(self.accounts + other.accounts, *(a + b for a, b in parts))

    def to_bytes(self) -> bytes:
        """As little-endian doubles, squeezed: most strata are empty most of the time."""
        whole = np.concatenate([[self.accounts], *(one.ravel() for one in self._arrays())])
        return zlib.compress(whole.astype("<f8").tobytes(), 1)

    @classmethod
    def from_bytes(cls, data: bytes, strata: int) -> Cohort:
        """What `to_bytes` gave."""
        whole = np.frombuffer(zlib.decompress(data), "<f8").astype(float)
        n, y, squares = np.split(whole[1:], [strata, 2 * strata])
        nn, ny, yy = squares.reshape(3, strata, strata)
        return cls(int(whole[0]), n.copy(), y.copy(), nn.copy(), ny.copy(), yy.copy())

    def _arrays(self) -> tuple[Array, Array, Array, Array, Array]:
        return self.n, self.y, self.nn, self.ny, self.yy


def compare(candidate: Sums, control: Sums) -> Comparison | None:
    """The difference per interaction, standardised to the candidate's strata, with a standard error
    that takes whole accounts as units; None while there is nothing to compare."""
    shared = (candidate.n > 0) & (control.n > 0)
    n = np.where(shared, candidate.n, 0.0)
    total = float(n.sum())
    if total == 0 or min(candidate.accounts, control.accounts) < 2:
        return None
    of_control = np.where(shared, control.n, 1.0)
    means = np.where(shared, control.y, 0.0) / of_control
    candidate_mean = float(candidate.y[shared].sum()) / total
    control_mean = float(n @ means) / total
    difference = candidate_mean - control_mean
    even, weights = shared / total, n / (total * of_control)
    variance = sum(
        cohort.squares(w, w * m) * cohort.accounts / (cohort.accounts - 1)
        for cohort, w, m in ((candidate, even, means + difference), (control, weights, means))
    )
    # Accounts that all fared alike say little of the next: it could differ by the whole range.
    least = 1 / min(candidate.accounts, control.accounts)
    return Comparison(
        difference,
        max(math.sqrt(max(variance, 0.0)), least),
        candidate_mean,
        control_mean,
        candidate.accounts,
        control.accounts,
        round(total),
    )
