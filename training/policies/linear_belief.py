"""What is known of each action's reward in a context: linear models, by Kalman steps.

One model is shared by all actions and sees the context and the action's features; each action adds
one of its own over the context, in its row. Their weights are Gaussian, and after every reward both
posteriors take the Kalman step of their sum, after which their covariance is dropped (assumed
density filtering; Opper 1998), so that only the served row and the shared part are written.

Covariances are in units of the account's noise, which is estimated as rewards come (the conjugate
normal-inverse-gamma model; Bishop 2006): what a workflow declares as its rewards' range says little
about how far they differ. All of it is kept under several *hypotheses* of how fast an account
changes: under each, weights return to the prior at its own rate an interaction, and the evidence of
its predictions says how much it is to be believed (a multiple-model filter; Blom & Bar-Shalom
1988). A row remembers the position at which it was last written. The prior knows nothing of which
slot or which action is which, so neither does a policy that reads it. What there is to learn are a
dozen numbers, fitted by likelihood (after ALPaCA: Harrison, Sharma & Pavone 2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.policies.account_noise import STATISTICS, AccountNoise
from training.policies.same_bits import dot, log, product

HYPOTHESES = 2
"""The first is that nothing ever changes."""
_FIRST_RATE = 0.03
"""At which the others start, an interaction."""


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


def triangle(size: int) -> int:
    """Numbers of a symmetric matrix."""
    return size * (size + 1) // 2


class Prediction(NamedTuple):
    """What is believed of each action's encoded reward: each `[..., K]`."""

    mean: Tensor
    constant_deviation: Tensor
    """Of the action's constant, whatever the context: what only choosing it tells. Contexts vary
    by themselves, so what they bring needs no bonus (Bastani, Bayati & Khosravi 2021)."""
    own_deviation: Tensor
    """Of what sets the action apart from the others in this context."""
    deviation: Tensor
    """Of the mean, all told."""
    changed_mean: Tensor
    """The mean if the account changes fast."""


class Shared(NamedTuple):
    """The shared part, taken apart."""

    position: Tensor
    """`[B, 1]`."""
    statistics: Tensor
    evidence: Tensor
    """Log-weights `[B, V]`."""
    mean: Tensor
    """`[B, V, D]`."""
    covariance: Tensor
    """`[B, V, D, D]`."""


class LinearBelief(nn.Module):
    """The models, over memories `shared [B, G]` and rows `[B, K, H]`.

    Shared: position, statistics of the account; evidence, mean and upper triangle of the covariance
    a hypothesis. A row: position when last written; mean and covariance a hypothesis.
    """

    def __init__(self, sizes: BeliefSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.noise = AccountNoise()
        self.prior_mean = nn.Parameter(torch.tensor(-0.2))
        self.own_log_variance = nn.Parameter(torch.tensor([-1.0, -3.0]))
        self.common_log_variance = nn.Parameter(torch.tensor([0.0, -3.6, -2.7, -3.3]))
        """Logarithms of the prior's variances, in units of the noise."""
        self.rate_log = nn.Parameter(torch.full((HYPOTHESES - 1,), _FIRST_RATE).log())
        self.doubt = nn.Parameter(torch.tensor([2.0, -3.5]))
        """Log-odds of the first hypothesis at first; logit of how much evidence fades."""
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
        V = HYPOTHESES
        common = self._pack(torch.diag(self._common_variance()), "common").repeat(V)
        own = self._pack(torch.diag(self._own_variance()), "own").repeat(V)
        means = self._first_mean().repeat(V)
        zeros = own.new_zeros
        shared = torch.cat([zeros(1 + STATISTICS), self._first_evidence(), means, common])
        return shared, torch.cat([zeros(1 + V * self.sizes.own), own])

    def predict(
        self, shared: Tensor, rows: Tensor, context: Tensor, action_features: Tensor
    ) -> Prediction:
        """What each action would earn in this context `[B, C]`; features `[B, K, F]`."""
        size, V = self.sizes.own, HYPOTHESES
        parts = self._split_shared(shared)
        written, own_mean, packed = torch.split(rows, [1, V * size, V * triangle(size)], -1)
        own_mean = torch.unflatten(own_mean, -1, (V, size))
        packed = torch.unflatten(packed, -1, (V, triangle(size)))
        kept = self._kept(parts.position[:, None] - written)
        x = self._own_inputs(context)
        z = self._common_inputs(context, action_features)
        # What is forgotten of a quadratic form needs no matrix: kept² xᵀPx + (1 − kept²) xᵀΛx.
        seen = functional.relu(dot(packed, self._squares(x)[:, None, None]))
        prior = ((x * x) @ self._own_variance())[:, None, None]
        share = kept * kept
        own_variance = share * seen + (1.0 - share) * prior
        common = functional.relu(dot(z[:, None] @ parts.covariance, z[:, None]))
        each = kept * (own_mean * x[:, None, None]).sum(-1)
        each = each + z @ parts.mean.transpose(1, 2)
        weight = torch.softmax(parts.evidence, -1)[:, None]
        mean = (weight * each).sum(-1)
        apart = (weight * (each - mean[..., None]).square()).sum(-1)
        noise = self.noise.variance(parts.statistics)
        own = noise * (weight * own_variance).sum(-1) + apart
        total = own + noise * (weight * common.transpose(1, 2)).sum(-1)
        # The first number of a packed covariance is the constant's own variance.
        constant = share * packed[..., 0] + (1.0 - share) * self._own_variance()[0]
        constant = noise * (weight * functional.relu(constant)).sum(-1)
        return Prediction(
            mean, torch.sqrt(constant), torch.sqrt(own), torch.sqrt(total), each[..., -1]
        )

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

        `row` `[B, H]` and `features` `[B, F]` are the served action's.
        """
        position, statistics, evidence, mean, covariance = self._split_shared(shared)
        own_mean, own_covariance = self._own_now(row, position)
        x = self._own_inputs(context)[:, None]
        z = self._common_inputs(context, features[:, None])
        own_gain, gain = product(own_covariance, x), product(covariance, z)
        own_variance = functional.relu(dot(own_gain, x))
        variance = functional.relu(dot(gain, z))
        total = 1.0 + own_variance + variance
        each = dot(own_mean, x) + dot(mean, z)
        spread = self.noise.variance(statistics) * total
        told, evidence, loss, surprise = weigh(evidence, each, spread, reward)
        step = ((reward[:, None] - each) / total)[..., None]
        own_mean, mean = own_mean + own_gain * step, mean + gain * step
        own_covariance = own_covariance - _outer(own_gain) / total[..., None, None]
        covariance = covariance - _outer(gain) / total[..., None, None]
        evidence = faded(evidence, self._first_evidence(), self.doubt[1])
        kept = self._kept(torch.ones_like(position))
        mean, covariance = towards(
            mean, covariance, kept, self._first_mean(), torch.diag(self._common_variance())
        )
        position = position + 1.0
        next_row = torch.cat(
            [position, own_mean.flatten(1), self._pack(own_covariance, "own").flatten(1)], -1
        )
        next_shared = torch.cat(
            [
                position,
                self.noise.observe(statistics, surprise),
                evidence,
                mean.flatten(1),
                self._pack(covariance, "common").flatten(1),
            ],
            -1,
        )
        return next_shared, next_row, told, loss

    def account(self, shared: Tensor) -> Tensor:
        """What a head is told of the account, `[B, 4]`."""
        statistics = shared[:, 1 : 1 + STATISTICS]
        evidence = shared[:, 1 + STATISTICS : 1 + STATISTICS + HYPOTHESES]
        steady = torch.softmax(evidence, -1)[:, :1]
        return torch.cat([self.noise.features(statistics), steady], -1)

    def _own_now(self, row: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """An action's models at a position: means `[B, V, D]`, covariances `[B, V, D, D]`."""
        size, V = self.sizes.own, HYPOTHESES
        written, mean, packed = torch.split(row, [1, V * size, V * triangle(size)], -1)
        mean = torch.unflatten(mean, -1, (V, size))
        covariance = self._unpack(torch.unflatten(packed, -1, (V, triangle(size))), "own", size)
        kept = self._kept(position - written)
        prior = torch.diag(self._own_variance())
        return towards(mean, covariance, kept, torch.zeros_like(mean[0, 0]), prior)

    def _kept(self, age: Tensor) -> Tensor:
        """What is left after `age` `[..., 1]` interactions under each hypothesis, `[..., V]`."""
        moving = torch.exp(-functional.relu(age) * torch.exp(self.rate_log))
        return torch.cat([torch.ones_like(age), moving], -1)

    def _first_evidence(self) -> Tensor:
        first = torch.cat([self.doubt[:1], self.doubt.new_zeros(HYPOTHESES - 1)])
        return torch.log_softmax(first, -1)

    def _first_mean(self) -> Tensor:
        return torch.cat([self.prior_mean[None], torch.zeros(self.sizes.common - 1)])

    def _own_variance(self) -> Tensor:
        one = torch.exp(self.own_log_variance)
        return torch.cat([one[:1], one[1:].expand(self.sizes.context)])

    def _common_variance(self) -> Tensor:
        one = torch.exp(self.common_log_variance)
        C, F = self.sizes.context, self.sizes.action_features
        return torch.cat([one[:1], one[1:2].expand(C), one[2:3].expand(F), one[3:].expand(F)])

    def _own_inputs(self, context: Tensor) -> Tensor:
        return torch.cat([torch.ones_like(context[:, :1]), context], -1)

    def _common_inputs(self, context: Tensor, features: Tensor) -> Tensor:
        """`[B, K, common]`."""
        inputs = self._own_inputs(context)[:, None].expand(-1, features.shape[1], -1)
        return torch.cat([inputs, features, features * features], -1)

    def _split_shared(self, shared: Tensor) -> Shared:
        size, V = self.sizes.common, HYPOTHESES
        position, statistics, evidence, mean, packed = torch.split(
            shared, [1, STATISTICS, V, V * size, V * triangle(size)], -1
        )
        whole = self._unpack(torch.unflatten(packed, -1, (V, triangle(size))), "common", size)
        return Shared(position, statistics, evidence, torch.unflatten(mean, -1, (V, size)), whole)

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


def weigh(
    evidence: Tensor, each: Tensor, total: Tensor, reward: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a mixture of predictions makes of a reward `[B]`.

    From log-weights, means and variances, each `[B, V]`: (surprise, prediction, its deviation)
    `[B, 3]`, the new log-weights, the negative log-likelihood `[B]`, and the squared error over
    what it was expected to be, `[B, 1]`.
    """
    error = reward[:, None] - each
    joint = evidence - 0.5 * (error * error / total + log(total))
    weight = torch.softmax(evidence, -1)
    mean = dot(weight, each)[:, None]
    variance = dot(weight, total + (each - mean).square())[:, None]
    missed = reward[:, None] - mean
    deviation = torch.sqrt(variance)
    told = torch.cat([missed / deviation, mean, deviation], -1)
    return told, torch.log_softmax(joint, -1), -torch.logsumexp(joint, -1), missed**2 / variance


def faded(evidence: Tensor, first: Tensor, logit: Tensor) -> Tensor:
    """Log-weights `[B, V]` an interaction later: some of what spoke for one is forgotten."""
    lost = torch.sigmoid(logit)
    return torch.log_softmax((1.0 - lost) * evidence + lost * first, -1)


def towards(
    mean: Tensor, covariance: Tensor, kept: Tensor, first: Tensor, prior: Tensor
) -> tuple[Tensor, Tensor]:
    """Means `[B, V, D]` and covariances with a share `kept` `[B, V]` of what was known."""
    share = (kept * kept)[..., None, None]
    mean = first + kept[..., None] * (mean - first)
    return mean, share * covariance + (1.0 - share) * prior


def _outer(x: Tensor) -> Tensor:
    return x[..., :, None] * x[..., None, :]
