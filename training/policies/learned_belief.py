"""What is known of an account of one workflow: mixtures of linear models over learned features.

For a workflow whose actions are known beforehand. Features f(context, action) are learned; their
weights have a prior that is a mixture of Gaussians, one for each kind of account there may be, and
the posterior is exact: a Kalman step in each component, and its evidence (ALPaCA of Harrison,
Sharma & Pavone 2018, with a mixture in place of one Gaussian). Everything is in the shared part of
a memory; rows stay empty. Forgetting towards the prior follows the account's clock, as in
`linear_belief`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.policies.account_clock import STATISTICS, AccountClock
from training.policies.linear_belief import Prediction, triangle


@dataclass(frozen=True)
class LearnedBeliefSizes:
    """What it takes to build the belief again."""

    inputs: int
    """Slots of the context and of an action's description together."""
    features: int = 16
    kinds: int = 4
    hidden: int = 48

    @property
    def row_floats(self) -> int:
        """Nothing."""
        return 0

    @property
    def shared_floats(self) -> int:
        """Statistics of the account, and evidence, mean and covariance of each kind."""
        return STATISTICS + self.kinds * (1 + self.features + triangle(self.features))


class LearnedBelief(nn.Module):
    """The features and the mixture. Memories are `shared [B, shared_floats]`, rows `[B, K, 0]`."""

    def __init__(self, sizes: LearnedBeliefSizes) -> None:
        super().__init__()
        self.sizes = sizes
        d, M = sizes.features, sizes.kinds
        self.clock = AccountClock()
        self.first = nn.Linear(sizes.inputs, sizes.hidden)
        self.second = nn.Linear(sizes.hidden, sizes.hidden)
        self.last = nn.Linear(sizes.hidden, d - 1)
        self.prior_weight = nn.Parameter(torch.zeros(M))
        self.prior_mean = nn.Parameter(0.3 * torch.randn(M, d))
        self.prior_factor = nn.Parameter(0.3 * torch.eye(d).expand(M, d, d).clone())
        upper = torch.triu_indices(d, d)
        whole = torch.zeros(d, d, dtype=torch.int64)
        whole[upper[0], upper[1]] = torch.arange(upper.shape[1])
        self.register_buffer("whole", torch.maximum(whole, whole.T).flatten(), persistent=False)
        self.register_buffer("packed", upper[0] * d + upper[1], persistent=False)

    def blank(self) -> tuple[Tensor, Tensor]:
        """The memory of an account that nothing is known of, and of one action."""
        evidence = torch.log_softmax(self.prior_weight, -1)
        packed = self._pack(self._prior_covariance())
        shared = torch.cat(
            [evidence.new_zeros(STATISTICS), evidence, self.prior_mean.flatten(), packed.flatten()]
        )
        return shared, evidence.new_zeros(0)

    def predict(
        self, shared: Tensor, rows: Tensor, context: Tensor, described: Tensor
    ) -> Prediction:
        """What each action would earn in this context `[B, C]`; `described` `[B, K, F]`."""
        _, evidence, mean, covariance = self._split(shared)
        features = self._features(context, described)
        weight = torch.softmax(evidence, -1)[:, None]
        each = features @ mean.transpose(1, 2)
        expected = (weight * each).sum(-1)
        spread = self._spread(features, covariance)
        variance = (weight * (spread + each * each)).sum(-1) - expected * expected
        apart = features - features.mean(1, keepdim=True)
        between = apart @ mean.transpose(1, 2)
        centre = (weight * between).sum(-1)
        own = (weight * (self._spread(apart, covariance) + between * between)).sum(-1)
        own = own - centre * centre
        return Prediction(
            expected, torch.sqrt(functional.relu(own)), torch.sqrt(functional.relu(variance))
        )

    def update(
        self, shared: Tensor, row: Tensor, context: Tensor, reward: Tensor, described: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Shared part, the row as it is, (surprise, prediction, deviation) `[B, 3]`, and the
        negative log-likelihood of the reward `[B]`. `described` `[B, F]` is the served action's."""
        statistics, evidence, mean, covariance = self._split(shared)
        features = self._features(context, described[:, None])
        x = features[:, 0]
        noise = self.clock.noise(statistics)
        gain = (covariance @ x[:, None, :, None]).squeeze(-1)
        variance = functional.relu((gain * x[:, None]).sum(-1))
        each = (mean * x[:, None]).sum(-1)
        total = variance + noise
        error = reward[:, None] - each
        weight = torch.softmax(evidence, -1)
        log_density = -0.5 * (error * error / total + torch.log(total))
        loss = -torch.logsumexp(torch.log_softmax(evidence, -1) + log_density, -1)
        expected = (weight * each).sum(-1, keepdim=True)
        overall = (weight * (total + each * each)).sum(-1, keepdim=True) - expected * expected
        missed = reward[:, None] - expected
        statistics, advance = self.clock.observe(statistics, missed * missed / overall, noise)
        mean = mean + gain * (error / total)[..., None]
        outer = gain[..., :, None] * gain[..., None, :]
        covariance = covariance - outer / total[..., None, None]
        evidence = torch.log_softmax(evidence + log_density, -1)
        kept = torch.exp(-advance)
        share = (kept * kept)[:, None, None]
        mean = self.prior_mean + kept[..., None] * (mean - self.prior_mean)
        covariance = share * covariance + (1.0 - share) * self._prior_covariance()
        before = torch.log_softmax(self.prior_weight, -1)
        evidence = before + kept * (evidence - before)
        told = torch.cat([missed / torch.sqrt(overall), expected, torch.sqrt(overall)], -1)
        packed = self._pack(covariance)
        after = torch.cat([statistics, evidence, mean.flatten(1), packed.flatten(1)], -1)
        return after, row, told, loss

    def _features(self, context: Tensor, described: Tensor) -> Tensor:
        """`[B, K, d]`, the first of them 1."""
        wide = context[:, None].expand(-1, described.shape[1], -1)
        inner = torch.tanh(self.first(torch.cat([wide, described], -1)))
        inner = torch.tanh(self.second(inner))
        return torch.cat([torch.ones_like(inner[..., :1]), self.last(inner)], -1)

    def _spread(self, features: Tensor, covariance: Tensor) -> Tensor:
        """fᵀ P f of each kind, `[B, K, M]`."""
        form = (features[:, None] @ covariance * features[:, None]).sum(-1)
        return functional.relu(form).transpose(1, 2)

    def _prior_covariance(self) -> Tensor:
        """`[M, d, d]`, positive by construction."""
        factor = torch.tril(self.prior_factor)
        eye = torch.eye(self.sizes.features, device=factor.device)
        return factor @ factor.transpose(1, 2) + 1e-3 * eye

    def _split(self, shared: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        d, M = self.sizes.features, self.sizes.kinds
        statistics, evidence, mean, packed = torch.split(
            shared, [STATISTICS, M, M * d, M * triangle(d)], -1
        )
        covariance = packed.reshape(-1, M, triangle(d)).index_select(-1, self.get_buffer("whole"))
        return (
            statistics,
            evidence,
            mean.reshape(-1, M, d),
            covariance.reshape(-1, M, d, d),
        )

    def _pack(self, covariance: Tensor) -> Tensor:
        return covariance.flatten(-2).index_select(-1, self.get_buffer("packed"))
