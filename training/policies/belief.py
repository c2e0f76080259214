"""What is known of each action's reward, kept exactly: counts and sums, no learned recurrence.

A network learns to count slowly and never exactly; sufficient statistics make it a matter of
reading (RL³ of Bhatia, Nashed & Zilberstein 2023 feeds a meta-learner such digests). Per action:
how often, the sum and the sum of squares of the encoded reward, and count and sum again under two
learned rates of forgetting, for rewards that drift. Must never touch an action that was not served:
a row remembers at which position it was last written, and what was forgotten since is taken off
when it is read.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from contract.encode import LONGEST_HORIZON
from training.record import Record

RATES = 2
SIZE = 4 + 2 * RATES
"""Floats an action: count, sum, sum of squares, (count, sum) a rate, position last written."""
VIEWS = 1 + RATES
"""One posterior without forgetting, one a rate."""
FEATURES = 3 + 2 * VIEWS

_SLOWEST_FORGETTING = (10.0, 50.0)
"""How many interactions back the memory of each rate reaches at first."""
_LEAST_KEPT = 0.5
"""The share kept an interaction is above this, so that a long trial's weights fit a double."""


class Reading(NamedTuple):
    """What the head is told of each action."""

    mean: Tensor
    """Posterior means of the encoded reward, `[..., K, VIEWS]`: a Beta(1, 1)'s for a coin."""
    deviation: Tensor
    """Posterior deviations of those means, `[..., K, VIEWS]`."""
    features: Tensor
    """All of it, counts on a log scale, of the order of 1, `[..., K, FEATURES]`."""


class Belief(nn.Module):
    """The statistics `[..., SIZE]` of actions; `position` counts the interactions learned."""

    def __init__(self) -> None:
        super().__init__()
        kept = 1.0 - 1.0 / torch.tensor(_SLOWEST_FORGETTING)
        self.kept_logit = nn.Parameter(torch.logit((kept - _LEAST_KEPT) / (1.0 - _LEAST_KEPT)))

    def update(self, statistics: Tensor, reward: Tensor, position: Tensor) -> Tensor:
        """The served action's statistics `[B, SIZE]` after one more reward `[B]`.

        `position` `[B]` is the one reached by this interaction. Discounted totals are stored times
        (1 − share kept), and so are of the order of 1.
        """
        exact, faded, written = torch.split(statistics, [3, 2 * RATES, 1], -1)
        one = torch.ones_like(reward)
        seen = torch.stack([one, reward, reward * reward], -1)
        share = self._kept()
        fresh = (1.0 - share)[:, None] * torch.stack([one, reward], -1)[:, None]
        fade = self._fade(position[:, None] - written)
        faded = (_by_rate(faded) * fade[..., None] + fresh).flatten(-2)
        return torch.cat([exact + seen, faded, position[:, None]], -1)

    def now(self, statistics: Tensor, position: Tensor) -> Tensor:
        """Statistics `[B, K, SIZE]` as they are at `position` `[B]`; their last column is age."""
        exact, faded, written = torch.split(statistics, [3, 2 * RATES, 1], -1)
        age = position[:, None, None] - written
        fade = self._fade(age)[..., None].expand(*age.shape[:-1], RATES, 2).flatten(-2)
        return torch.cat([exact, faded * fade, age], -1)

    def replay(self, record: Record, written: Tensor, times: Tensor | None) -> Tensor:
        """What `now` would give before the decisions at `times`, `[T', B, K, SIZE]`.

        `written` `[T, B, K]` as `sequence.last_written` gives it.
        """
        K = record.action_mask.shape[1]
        at = record.learned(times)
        if at is None:
            at = torch.arange(record.steps, device=record.action.device)
        served = functional.one_hot(record.action, K)
        reward = record.reward

        def before(summand: Tensor) -> Tensor:
            """Sums of `[T, B, K]` over the interactions learned by then, `[T', B, K]`."""
            total = torch.cumsum(summand, 0)
            return torch.cat([torch.zeros_like(total[:1]), total])[at]

        pulls = served.to(reward.dtype)
        columns = [before(pulls * x[..., None]) for x in (torch.ones_like(reward), reward)]
        columns.append(before(pulls * (reward * reward)[..., None]))
        share = self._kept().double()
        clock = torch.arange(record.steps, device=share.device, dtype=torch.float64)
        for rate in share.unbind():
            weight = torch.exp(-clock * torch.log(rate))[:, None, None] * served
            scale = (1.0 - rate) * torch.exp((at - 1) * torch.log(rate))[:, None, None]
            count, total = before(weight), before(weight * reward[..., None])
            columns += [(count * scale).to(reward.dtype), (total * scale).to(reward.dtype)]
        columns.append((at[:, None, None] - written[at]).to(reward.dtype))
        return torch.stack(columns, -1)

    def read(self, present: Tensor) -> Reading:
        """Posteriors and features of statistics as `now` and `replay` give them, `[..., SIZE]`.

        A weak prior of two rewards, −1 and 1, makes the mean and the deviation those of a coin's
        posterior (s + 1) / (n + 2), on the scale of encoded rewards.
        """
        exact, faded, age = torch.split(present, [3, 2 * RATES, 1], -1)
        faded = _by_rate(faded) / (1.0 - self._kept())[:, None]
        count = torch.cat([exact[..., :1], faded[..., 0]], -1).clamp(min=0.0)
        total = torch.cat([exact[..., 1:2], faded[..., 1]], -1)
        mean = total / (count + 2.0)
        square = (exact[..., 2:] + 2.0) / (exact[..., :1].clamp(min=0.0) + 2.0)
        variance = (square - mean * mean).clamp(min=1e-6)
        deviation = torch.sqrt(variance / (count + 3.0))
        size = torch.log1p(count[..., :1]) / math.log1p(LONGEST_HORIZON)
        never = 1.0 / (1.0 + count[..., :1])
        since = torch.log1p(age.clamp(min=0.0)) / math.log1p(LONGEST_HORIZON)
        features = torch.cat([mean, 2.0 * deviation, size, never, since], -1)
        return Reading(mean, deviation, features)

    def _kept(self) -> Tensor:
        """The share of the past kept at each interaction, `[RATES]`."""
        return _LEAST_KEPT + (1.0 - _LEAST_KEPT) * torch.sigmoid(self.kept_logit)

    def _fade(self, age: Tensor) -> Tensor:
        """What is left of `[..., 1]` interactions ago, `[..., RATES]`."""
        return torch.exp(age * torch.log(self._kept()))


def views(features: Tensor) -> tuple[Tensor, Tensor]:
    """Posterior means and deviations `[..., VIEWS]` in the features of a reading."""
    mean, spread, _ = torch.split(features, [VIEWS, VIEWS, FEATURES - 2 * VIEWS], -1)
    return mean, spread / 2.0


def _by_rate(faded: Tensor) -> Tensor:
    """Discounted counts and sums `[..., 2 · RATES]` as `[..., RATES, 2]`."""
    return torch.stack(torch.split(faded, 2, -1), -2)
