"""How noisy an account's rewards are, and how they surprise of late. It touches no belief."""

from __future__ import annotations

import torch
from torch import Tensor, nn

STATISTICS = 4
"""Of an account: interactions and squared errors, as shares of those that the estimate reaches back
to, and two running means of surprise."""
_PACES = (0.75, 0.93)
"""Share kept an interaction of the running means of surprise."""
_REACH = 200.0
"""Interactions that the estimate of the noise reaches back."""
_LARGEST_SURPRISE = 12.0
_LEAST_NOISE = 1e-3


class AccountNoise(nn.Module):
    """Statistics `[B, STATISTICS]`, all zero for an account that nothing is known of."""

    def __init__(self) -> None:
        super().__init__()
        self.guess = nn.Parameter(torch.tensor([-0.7, 1.5]))

    def variance(self, statistics: Tensor) -> Tensor:
        """Variance of a reward around its mean, `[B, 1]`: a learned guess, and what was seen."""
        count, squares, *_ = torch.split(statistics, 1, -1)
        guess, weight = torch.exp(self.guess[0]), torch.exp(self.guess[1])
        weight = weight / _REACH
        return torch.clamp((weight * guess + squares) / (weight + count), min=_LEAST_NOISE)

    def observe(self, statistics: Tensor, surprise: Tensor) -> Tensor:
        """The statistics one interaction later.

        `surprise` `[B, 1]` is the squared error over what it was expected to be.
        """
        noise = self.variance(statistics)
        count, squares, *running = torch.split(statistics, 1, -1)
        surprise = torch.clamp(surprise, max=_LARGEST_SURPRISE)
        felt = [
            keep * one + (1.0 - keep) * (surprise - 1.0)
            for keep, one in zip(_PACES, running, strict=True)
        ]
        count = count + (1.0 - count) / _REACH
        squares = squares + (noise * surprise - squares) / _REACH
        return torch.cat([count, squares, *felt], -1)

    def features(self, statistics: Tensor) -> Tensor:
        """What a head is told of the account, `[B, 3]`: noise, and surprise twice."""
        *_, fast, slow = statistics.unbind(-1)
        noise = torch.sqrt(self.variance(statistics)).squeeze(-1)
        return torch.stack([noise, 0.3 * fast, 0.3 * slow], -1)
