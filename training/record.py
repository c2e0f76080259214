"""A group of recorded trials of one shape, as tensors. It holds what was seen and done, no policy.

What `decide` and `learn` were fed step by step, stacked over time.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Record:
    """B trials of T interactions on K actions."""

    action: Tensor
    """int64 `[T, B]`."""
    reward: Tensor
    """Encoded, `[T, B]`."""
    done: Tensor
    """1 where an episode ended, `[T, B]`."""
    horizon_left: Tensor
    """`[T, B, 2]`."""
    context: Tensor
    """`[T, B, C]`."""
    action_features: Tensor
    """`[B, K, F]`: constant within a trial."""
    action_mask: Tensor
    """bool `[B, K]`: constant within a trial."""
    known: Tensor | None = None
    """int64 `[T]`: how many interactions had been learned before decision t, at most t. None: all
    of them, always."""
    told: Tensor | None = None
    """What only a simulator knows and an informed critic may see, never a policy, `[T, B, P]`."""

    @property
    def steps(self) -> int:
        """T."""
        return self.action.shape[0]

    @property
    def trials(self) -> int:
        """B."""
        return self.action.shape[1]

    def take(self, trials: Tensor) -> Record:
        """The trials at these indices."""
        return Record(
            self.action[:, trials],
            self.reward[:, trials],
            self.done[:, trials],
            self.horizon_left[:, trials],
            self.context[:, trials],
            self.action_features[trials],
            self.action_mask[trials],
            self.known,
            None if self.told is None else self.told[:, trials],
        )

    def learned(self, times: Tensor | None = None) -> Tensor | None:
        """At which position of the memory the decisions at `times` were made, int64 `[T']`.

        None: at every step's own, in order.
        """
        if self.known is None:
            return times
        return self.known if times is None else self.known[times]
