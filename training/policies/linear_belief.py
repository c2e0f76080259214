"""What is known of each action's reward in a context: linear models, by Kalman steps.

One model is shared by all actions and sees the context and the action's features; each action adds
one of its own over the context, in its row. Their weights are Gaussian, and after every reward both
posteriors take the Kalman step of their sum, after which their covariance is dropped (assumed
density filtering; Opper 1998), so that only the served row and the shared part are written. Weights
are forgotten towards the prior as an account's *clock* advances, which runs faster when rewards
surprise; a row remembers what the clock said when it was last written. The prior knows nothing of
which slot or which action is which, so neither does a policy that reads it. What it has to learn is
a dozen numbers, fitted by likelihood (after ALPaCA: Harrison, Sharma & Pavone 2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.policies.account_clock import STATISTICS, AccountClock


@dataclass(frozen=True)
class BeliefSizes:
    """What the models see."""

    context: int
    action_features: int

    @property
    def own(self) -> int:
        """Weights of an action's own model: a constant and one a slot."""
        return 1 + self.context

    @property
    def common(self) -> int:
        """Weights of the shared model; features enter as they are and squared."""
        return 1 + self.context + 2 * self.action_features

    @property
    def row_floats(self) -> int:
        """Clock when last written, mean, upper triangle of the covariance."""
        return 1 + self.own + triangle(self.own)

    @property
    def shared_floats(self) -> int:
        """Statistics of the account, mean, upper triangle of the covariance."""
        return STATISTICS + self.common + triangle(self.common)


def triangle(size: int) -> int:
    """Numbers of a symmetric matrix."""
    return size * (size + 1) // 2


class Prediction(NamedTuple):
    """What the models say of each action, of encoded rewards."""

    mean: Tensor
    """`[..., K]`."""
    own_deviation: Tensor
    """Of what the action's own model adds, `[..., K]`."""
    deviation: Tensor
    """Of the mean, all told, `[..., K]`."""


class LinearBelief(nn.Module):
    """The models. Memories are `shared [B, shared_floats]`, rows `[B, K, row_floats]`."""

    def __init__(self, sizes: BeliefSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.prior_mean = nn.Parameter(torch.tensor(-0.2))
        own = torch.tensor([-1.0, -2.0])
        self.own_log_variance = nn.Parameter(own)
        self.common_log_variance = nn.Parameter(torch.tensor([-1.0, -3.0, -2.0, -3.0]))
        self.clock = AccountClock()
        for name, size in (("own", sizes.own), ("common", sizes.common)):
            upper = torch.triu_indices(size, size)
            whole = torch.zeros(size, size, dtype=torch.int64)
            whole[upper[0], upper[1]] = torch.arange(upper.shape[1])
            whole = torch.maximum(whole, whole.T)
            self.register_buffer(f"{name}_whole", whole.flatten(), persistent=False)
            packed = upper[0] * size + upper[1]
            self.register_buffer(f"{name}_packed", packed, persistent=False)

    def blank(self) -> tuple[Tensor, Tensor]:
        """The memory of an account that nothing is known of, and of one action."""
        own, common = self._own_variance(), self._common_variance()
        mean = torch.zeros(self.sizes.common)
        mean = torch.cat([self.prior_mean[None], mean[1:]])
        shared = torch.cat(
            [torch.zeros(STATISTICS), mean, self._pack(torch.diag(common), "common")]
        )
        row = torch.cat([torch.zeros(1 + self.sizes.own), self._pack(torch.diag(own), "own")])
        return shared, row

    def predict(
        self, shared: Tensor, rows: Tensor, context: Tensor, action_features: Tensor
    ) -> Prediction:
        """What each action would earn in this context `[B, C]`."""
        size = self.sizes.own
        statistics, mean, covariance = self._split_shared(shared)
        written, own_mean, own_packed = torch.split(rows, [1, size, triangle(size)], -1)
        kept = torch.exp(-functional.relu(statistics[:, None, :1] - written)).squeeze(-1)
        x = self._own_inputs(context)
        z = self._common_inputs(context, action_features)
        # What is forgotten of a quadratic form needs no matrix: kept² xᵀPx + (1 − kept²) xᵀΛx.
        seen = functional.relu((own_packed @ self._squares(x)[..., None]).squeeze(-1))
        prior = ((x * x) @ self._own_variance())[:, None]
        share = kept * kept
        own_variance = share * seen + (1.0 - share) * prior
        variance = own_variance + functional.relu((z @ covariance * z).sum(-1))
        expected = kept * (own_mean @ x[..., None]).squeeze(-1) + (z @ mean[..., None]).squeeze(-1)
        return Prediction(expected, torch.sqrt(own_variance), torch.sqrt(variance))

    def update(
        self,
        shared: Tensor,
        row: Tensor,
        context: Tensor,
        reward: Tensor,
        features: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Shared part, served row, (surprise, prediction, its deviation) `[B, 3]`, and the negative
        log-likelihood of the reward `[B]`.

        `row` `[B, row_floats]` and `features` `[B, F]` are the served action's.
        """
        statistics, mean, covariance = self._split_shared(shared)
        now = statistics[:, :1]
        written, own_mean, own_covariance = self._split_rows(row)
        own_mean, own_covariance = self._decayed(own_mean, own_covariance, now - written)
        x = self._own_inputs(context)
        z = self._common_inputs(context, features[:, None])[:, 0]
        own_gain, gain = _product(own_covariance, x), _product(covariance, z)
        own_variance = functional.relu((own_gain * x).sum(-1, keepdim=True))
        variance = functional.relu((gain * z).sum(-1, keepdim=True))
        noise = self.clock.noise(statistics)
        total = own_variance + variance + noise
        expected = (own_mean * x).sum(-1, keepdim=True) + (mean * z).sum(-1, keepdim=True)
        error = reward[:, None] - expected
        own_mean = own_mean + own_gain * (error / total)
        mean = mean + gain * (error / total)
        own_covariance = own_covariance - _outer(own_gain) / total[..., None]
        covariance = covariance - _outer(gain) / total[..., None]
        statistics, advance = self.clock.observe(statistics, error * error / total, noise)
        next_row = torch.cat([now, own_mean, self._pack(own_covariance, "own")], -1)
        mean, covariance = self._decayed_common(mean, covariance, advance)
        next_shared = torch.cat([statistics, mean, self._pack(covariance, "common")], -1)
        deviation = torch.sqrt(total)
        told = torch.cat([error / deviation, expected, deviation], -1)
        loss = 0.5 * told[:, 0].square() + torch.log(told[:, 2])
        return next_shared, next_row, told, loss

    def _own_variance(self) -> Tensor:
        one = torch.exp(self.own_log_variance)
        return torch.cat([one[:1], one[1:].expand(self.sizes.context)])

    def _common_variance(self) -> Tensor:
        one = torch.exp(self.common_log_variance)
        C, F = self.sizes.context, self.sizes.action_features
        return torch.cat([one[:1], one[1:2].expand(C), one[2:3].expand(F), one[3:].expand(F)])

    def _decayed(self, mean: Tensor, covariance: Tensor, age: Tensor) -> tuple[Tensor, Tensor]:
        """An action's model after `age` `[..., 1]` on the clock."""
        kept = torch.exp(-functional.relu(age))
        prior = torch.diag(self._own_variance())
        share = (kept * kept)[..., None]
        return kept * mean, share * covariance + (1.0 - share) * prior

    def _decayed_common(
        self, mean: Tensor, covariance: Tensor, age: Tensor
    ) -> tuple[Tensor, Tensor]:
        kept = torch.exp(-age)
        first = torch.cat([self.prior_mean[None], torch.zeros(self.sizes.common - 1)])
        share = (kept * kept)[..., None]
        prior = torch.diag(self._common_variance())
        return first + kept * (mean - first), share * covariance + (1.0 - share) * prior

    def _own_inputs(self, context: Tensor) -> Tensor:
        return torch.cat([torch.ones_like(context[:, :1]), context], -1)

    def _common_inputs(self, context: Tensor, features: Tensor) -> Tensor:
        """`[B, K, common]`."""
        inputs = self._own_inputs(context)[:, None].expand(-1, features.shape[1], -1)
        return torch.cat([inputs, features, features * features], -1)

    def _split_shared(self, shared: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        size = self.sizes.common
        statistics, mean, packed = torch.split(shared, [STATISTICS, size, triangle(size)], -1)
        return statistics, mean, self._unpack(packed, "common", size)

    def _split_rows(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        size = self.sizes.own
        written, mean, packed = torch.split(rows, [1, size, triangle(size)], -1)
        return written, mean, self._unpack(packed, "own", size)

    def _unpack(self, packed: Tensor, name: str, size: int) -> Tensor:
        whole = packed.index_select(-1, self._index(f"{name}_whole"))
        return whole.view(*packed.shape[:-1], size, size)

    def _squares(self, x: Tensor) -> Tensor:
        """`[B, triangle]` whose product with an action's packed P is xᵀPx."""
        size = self.sizes.own
        packed = self._index("own_packed")
        first, second = packed // size, packed % size
        times = torch.where(first == second, 1.0, 2.0)
        return x.index_select(-1, first) * x.index_select(-1, second) * times

    def _pack(self, whole: Tensor, name: str) -> Tensor:
        return whole.flatten(-2).index_select(-1, self._index(f"{name}_packed"))

    def _index(self, name: str) -> Tensor:
        """A buffer, as the tensor that it is."""
        return self.get_buffer(name)


def _product(covariance: Tensor, x: Tensor) -> Tensor:
    """P x, `[..., D]`."""
    return (covariance * x[..., None, :]).sum(-1)


def _outer(x: Tensor) -> Tensor:
    return x[..., :, None] * x[..., None, :]
