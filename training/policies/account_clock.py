"""How noisy an account's rewards are, and how fast it changes: what sets the pace of forgetting.

The clock advances a little at every interaction and faster while rewards surprise; what a belief
knows decays by exp(−age) on that clock. It keeps five numbers of an account and touches no belief.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

STATISTICS = 5
"""Of an account: clock, interactions, squared surprise, and two running means of it."""
_PACES = (0.75, 0.93)
"""Share kept an interaction of the running means of surprise."""
_MEMORY = 1.0 - 1.0 / 200.0
"""Share kept an interaction of what the noise is estimated from."""
_LARGEST_SURPRISE = 12.0
_LEAST_NOISE = 1e-3


class AccountClock(nn.Module):
    """Statistics `[B, STATISTICS]`, all zero for an account that nothing is known of."""

    def __init__(self) -> None:
        super().__init__()
        self.noise_guess = nn.Parameter(torch.tensor([-0.7, 1.5]))
        self.bias = nn.Parameter(torch.tensor(-6.0))
        self.slope = nn.Parameter(torch.tensor([0.5, 0.5]))

    def noise(self, statistics: Tensor) -> Tensor:
        """Variance of a reward around its mean, `[B, 1]`: a learned guess, and what was seen."""
        _, count, squares, *_ = torch.split(statistics, 1, -1)
        guess, weight = torch.exp(self.noise_guess[0]), torch.exp(self.noise_guess[1])
        return torch.clamp((weight * guess + squares) / (weight + count), min=_LEAST_NOISE)

    def observe(self, statistics: Tensor, surprise: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The statistics one interaction later, and how far the clock went, `[B, 1]`.

        `surprise` `[B, 1]` is the squared error over what it was expected to be.
        """
        clock, count, squares, *running = torch.split(statistics, 1, -1)
        surprise = torch.clamp(surprise, max=_LARGEST_SURPRISE)
        felt = torch.cat(
            [
                keep * one + (1.0 - keep) * (surprise - 1.0)
                for keep, one in zip(_PACES, running, strict=True)
            ],
            -1,
        )
        advance = functional.softplus(self.bias + felt @ self.slope)[:, None]
        squares = _MEMORY * squares + noise * surprise
        count = _MEMORY * count + 1.0
        return torch.cat([clock + advance, count, squares, felt], -1), advance

    def features(self, statistics: Tensor) -> Tensor:
        """What a head is told of the account, `[B, 4]`: noise, clock, and surprise twice."""
        clock, *_, fast, slow = statistics.unbind(-1)
        noise = torch.sqrt(self.noise(statistics)).squeeze(-1)
        return torch.stack([noise, torch.log1p(clock), 0.3 * fast, 0.3 * slow], -1)
