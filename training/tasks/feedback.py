"""When feedback arrives: a schedule that is the same for all trials of a family. Numpy only.

A player is never shown a reward before the schedule says so: `known` is all that it may fold.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def known_before(n: int, delay: int = 0, batch: int = 1) -> NDArray[np.int64]:
    """How many of the first interactions have been fed back before decision t, `[T]`.

    With a `delay` the feedback of a decision is there `delay` decisions later than the next one;
    in batches, only whole batches of `batch` interactions are fed back, the last one together.
    """
    refuse_impossible_feedback(n=n, delay=delay, batch=batch)
    arrived = np.maximum(np.arange(n) - delay, 0)
    return arrived // batch * batch


def refuse_impossible_feedback(*, n: int, delay: int, batch: int) -> None:
    """Raises ValueError naming the field and what it expects."""
    if not 0 <= delay < n:
        raise ValueError(
            f"delay: expected 0 to {n - 1}, shorter than the trial of {n} pulls, got {delay}"
        )
    if not 1 <= batch <= n:
        raise ValueError(f"batch: expected 1 to {n}, at most the trial's pulls, got {batch}")
