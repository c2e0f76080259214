"""What is known of an account of one workflow: a mixture of linear models over learned features.

For a workflow whose actions are known beforehand. Features f(context, action) are learned; their
weights have a prior that is a mixture of Gaussians, one for each *kind* of account there may be,
and the posterior is exact: a Kalman step in each component, and its evidence (ALPaCA of Harrison,
Sharma & Pavone 2018, with a mixture in place of one Gaussian). Every kind is kept twice, as an
account that stays what it is and as one that returns to its kind's prior at a learned rate, and
evidence fades, so an account may turn into another kind. Everything is in the shared part of a
memory; rows stay empty.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.policies.account_noise import STATISTICS, AccountNoise
from training.policies.linear_belief import (
    HYPOTHESES,
    Prediction,
    Shared,
    faded,
    towards,
    triangle,
    weigh,
)
from training.policies.same_bits import dot, product

_FIRST_RATE = 0.03


@dataclass(frozen=True)
class LearnedBeliefSizes:
    """What it takes to build the belief again."""

    inputs: int
    """Slots of the context and of an action's description together."""
    features: int = 16
    kinds: int = 4
    hidden: int = 48

    @property
    def components(self) -> int:
        """Every kind under every hypothesis of change."""
        return self.kinds * HYPOTHESES


class LearnedBelief(nn.Module):
    """The features and the mixture. Memories are `shared [B, …]`, rows `[B, K, 0]`."""

    def __init__(self, sizes: LearnedBeliefSizes) -> None:
        super().__init__()
        self.sizes = sizes
        d, M = sizes.features, sizes.kinds
        self.noise = AccountNoise()
        self.first = nn.Linear(sizes.inputs, sizes.hidden)
        self.second = nn.Linear(sizes.hidden, sizes.hidden)
        self.last = nn.Linear(sizes.hidden, d - 1)
        self.prior_weight = nn.Parameter(torch.zeros(M))
        self.prior_mean = nn.Parameter(0.3 * torch.randn(M, d))
        self.prior_factor = nn.Parameter(0.3 * torch.eye(d).expand(M, d, d).clone())
        self.rate_log = nn.Parameter(torch.full((HYPOTHESES - 1,), _FIRST_RATE).log())
        self.doubt = nn.Parameter(torch.tensor([2.0, -3.5]))
        """Log-odds that an account stays as it is; logit of how much evidence fades."""
        upper = torch.triu_indices(d, d)
        whole = torch.zeros(d, d, dtype=torch.int64)
        whole[upper[0], upper[1]] = torch.arange(upper.shape[1])
        self.register_buffer("whole", torch.maximum(whole, whole.T).flatten(), persistent=False)
        self.register_buffer("packed", upper[0] * d + upper[1], persistent=False)

    def blank(self) -> tuple[Tensor, Tensor]:
        """The memory of an account that nothing is known of, and of one action."""
        evidence = self._first_evidence()
        packed = self._pack(self._prior_covariance())
        zeros = evidence.new_zeros
        shared = [zeros(1 + STATISTICS), evidence, self._first_mean().flatten(), packed.flatten()]
        return torch.cat(shared), zeros(0)

    def predict(
        self, shared: Tensor, rows: Tensor, context: Tensor, described: Tensor
    ) -> Prediction:
        """What each action would earn in this context `[B, C]`; `described` `[B, K, F]`."""
        parts = self._split(shared)
        features = self._features(context, described)
        weight = torch.softmax(parts.evidence, -1)[:, None]
        each = features @ parts.mean.transpose(1, 2)
        mean = (weight * each).sum(-1)
        total = self._spread(features, parts.covariance) + (each - mean[..., None]).square()
        apart = features - features.mean(1, keepdim=True)
        between = apart @ parts.mean.transpose(1, 2)
        centre = (weight * between).sum(-1, keepdim=True)
        own = self._spread(apart, parts.covariance) + (between - centre).square()
        moving = torch.unflatten(parts.evidence, -1, (-1, HYPOTHESES))[..., -1]
        changed = torch.unflatten(each, -1, (-1, HYPOTHESES))[..., -1]
        changed_mean = (torch.softmax(moving, -1)[:, None] * changed).sum(-1)
        own_deviation = torch.sqrt((weight * own).sum(-1))
        return Prediction(
            mean,
            own_deviation,
            own_deviation,
            torch.sqrt((weight * total).sum(-1)),
            changed_mean,
        )

    def update(
        self, shared: Tensor, row: Tensor, context: Tensor, reward: Tensor, described: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Shared part, the row as it is, (surprise, prediction, its deviation) `[B, 3]`, and the
        negative log-likelihood of the reward `[B]`. `described` `[B, F]` is the served action's."""
        position, statistics, evidence, mean, covariance = self._split(shared)
        x = self._features(context, described[:, None])
        gain = product(covariance, x)
        total = functional.relu(dot(gain, x)) + self.noise.variance(statistics)
        each = dot(mean, x)
        told, evidence, loss, surprise = weigh(evidence, each, total, reward)
        mean = mean + gain * ((reward[:, None] - each) / total)[..., None]
        outer = gain[..., :, None] * gain[..., None, :]
        covariance = covariance - outer / total[..., None, None]
        kept = torch.cat([torch.ones_like(position), self._moving().expand(row.shape[0], -1)], -1)
        kept = kept.repeat(1, self.sizes.kinds)
        mean, covariance = towards(
            mean, covariance, kept, self._first_mean(), self._prior_covariance()
        )
        after = [
            position + 1.0,
            self.noise.observe(statistics, surprise),
            faded(evidence, self._first_evidence(), self.doubt[1]),
            mean.flatten(1),
            self._pack(covariance).flatten(1),
        ]
        return torch.cat(after, -1), row, told, loss

    def account(self, shared: Tensor) -> Tensor:
        """What a head is told of the account, `[B, 4]`."""
        statistics = shared[:, 1 : 1 + STATISTICS]
        evidence = shared[:, 1 + STATISTICS : 1 + STATISTICS + self.sizes.components]
        weight = torch.unflatten(torch.softmax(evidence, -1), -1, (-1, HYPOTHESES))
        steady = weight[..., 0].sum(-1, keepdim=True)
        return torch.cat([self.noise.features(statistics), steady], -1)

    def _moving(self) -> Tensor:
        return torch.exp(-torch.exp(self.rate_log))

    def _features(self, context: Tensor, described: Tensor) -> Tensor:
        """`[B, K, d]`, the first of them 1."""
        wide = context[:, None].expand(-1, described.shape[1], -1)
        inner = torch.tanh(self.first(torch.cat([wide, described], -1)))
        inner = torch.tanh(self.second(inner))
        return torch.cat([torch.ones_like(inner[..., :1]), self.last(inner)], -1)

    def _spread(self, features: Tensor, covariance: Tensor) -> Tensor:
        """fᵀ P f of each component, `[B, K, V]`."""
        form = dot(features[:, None] @ covariance, features[:, None])
        return functional.relu(form).transpose(1, 2)

    def _first_evidence(self) -> Tensor:
        """`[V]`, the hypotheses of a kind side by side."""
        stays = torch.cat([self.doubt[:1], self.doubt.new_zeros(HYPOTHESES - 1)])
        return torch.log_softmax((self.prior_weight[:, None] + stays).flatten(), -1)

    def _first_mean(self) -> Tensor:
        """`[V, d]`."""
        return self.prior_mean.repeat_interleave(HYPOTHESES, 0)

    def _prior_covariance(self) -> Tensor:
        """`[V, d, d]`, positive by construction."""
        factor = torch.tril(self.prior_factor)
        eye = torch.eye(self.sizes.features)
        each = factor @ factor.transpose(1, 2) + 1e-3 * eye
        return each.repeat_interleave(HYPOTHESES, 0)

    def _split(self, shared: Tensor) -> Shared:
        d, V = self.sizes.features, self.sizes.components
        position, statistics, evidence, mean, packed = torch.split(
            shared, [1, STATISTICS, V, V * d, V * triangle(d)], -1
        )
        whole = torch.unflatten(packed, -1, (V, triangle(d))).index_select(
            -1, self.get_buffer("whole")
        )
        covariance = torch.unflatten(whole, -1, (d, d))
        return Shared(position, statistics, evidence, torch.unflatten(mean, -1, (V, d)), covariance)

    def _pack(self, covariance: Tensor) -> Tensor:
        return covariance.flatten(-2).index_select(-1, self.get_buffer("packed"))
