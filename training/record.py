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
    """bool `[B, K]`: constant within a trial; `[T, B, K]` where it is not."""
    known: Tensor | None = None
    """int64 `[T]`: how many interactions had been learned before decision t, at most t. None: all
    of them, always."""
    told: Tensor | None = None
    """What only a simulator knows and an informed critic may see, never a policy, `[T, B, P]`."""
    reading: Tensor | None = None
    """What a network's beliefs, which stand still, say of each action before every decision,
    `[T, B, K, R]`."""
    account: Tensor | None = None
    """What they say of the account, `[T, B, A]`."""
    seen: Tensor | None = None
    """What they made of each interaction, `[T, B, S]`."""

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
            self.action_mask[..., trials, :],
            self.known,
            *(
                None if one is None else one[:, trials]
                for one in (self.told, self.reading, self.account, self.seen)
            ),
        )

    def learned(self, times: Tensor | None = None) -> Tensor | None:
        """At which position of the memory the decisions at `times` were made, int64 `[T']`.

        None: at every step's own, in order.
        """
        if self.known is None:
            return times
        return self.known if times is None else self.known[times]
