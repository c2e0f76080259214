"""Fits a network's belief to an exported ledger by likelihood, and says how well it foretells.

Every reward counts by how rarely its action was served: weights towards uniform play over what was
allowed, tempered and clipped, so that what the logging policy liked does not crowd out the rest. It
must never touch what acts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from contract.encode import encode_action_features, encode_reward
from training.descent import at_rate, falling
from training.ledger_model import FittedModel
from training.ledger_records import Log, turns
from training.ledger_rows import LogError
from training.policies.contextual import Contextual
from training.policies.learned_belief import LearnedBelief

Array = NDArray[Any]

CORRECTION = 0.5
"""Power of the weights: 0 would count every reward alike, 1 correct in full. What the logging
policy went by is in the model as well, so a likelihood without weights is right where the model is;
with them it is less wrong where it is not, and varies more."""
HEAVIEST = 5.0
"""Weights above it, in units of the mean one, are cut."""
LONGEST = 200
"""Interactions of an account that are fitted to, from its first."""
FEWEST_ACCOUNTS = 20
_ACCOUNTS_AT_ONCE = 96
_CHECK_EVERY = 10
_HELD_OUT = 0.1
_LARGEST_GRADIENT = 5.0


@dataclass(frozen=True)
class Fit:
    """How well rewards of held-out accounts are foretold: weighted negative log-likelihood."""

    accounts: int
    held_out: int
    before: float
    after: float
    action_means: float
    """Of a model that knows the mean of each action alone."""


def fit_belief(
    network: Contextual,
    log: Log,
    *,
    iterations: int,
    rate: float,
    rng: np.random.Generator,
    on_iteration: Callable[[], None] = lambda: None,
) -> Fit:
    """Steps of Adam on accounts drawn at random; what foretold held-out accounts best is kept.

    Raises LogError when the log has too few accounts.
    """
    data = _Data.of(network, log)
    accounts = rng.permutation(np.flatnonzero(data.weight.sum(0).numpy() > 0))
    if len(accounts) < FEWEST_ACCOUNTS:
        raise LogError(
            f"expected at least {FEWEST_ACCOUNTS} accounts with feedback, found {len(accounts)}"
        )
    out = max(2, round(_HELD_OUT * len(accounts)))
    check, train = data.take(accounts[:out]), accounts[out:]
    _start_at_mean(network, data.take(train))
    optimiser = torch.optim.Adam(network.models.parameters(), lr=rate)
    before = best = _loss_now(network, check)
    kept = _copied(network)
    for n in range(1, iterations + 1):
        at_rate(optimiser, falling(rate, n / iterations))
        chosen = rng.choice(train, min(len(train), _ACCOUNTS_AT_ONCE), replace=False)
        loss = weighted_surprise(network, data.take(chosen))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.models.parameters(), _LARGEST_GRADIENT)
        optimiser.step()
        if n % _CHECK_EVERY == 0 or n == iterations:
            now = _loss_now(network, check)
            if now < best:
                best, kept = now, _copied(network)
        on_iteration()
    network.models.load_state_dict(kept)
    simple = _action_means(data.take(train), check, len(log.spec.actions))
    return Fit(len(accounts), out, before, best, simple)


def weighted_surprise(network: Contextual, data: _Data) -> Tensor:
    """Mean negative log-likelihood of each reward before it was learned, weighted."""
    T, B = data.action.shape
    models = network.models
    known, own = models.blank()
    known, own = known.expand(B, -1), own.expand(B, -1)
    whole = data.reward.new_zeros(())
    for t in range(T):
        described = data.described[data.action[t]]
        known, own, _, loss = models.update(known, own, data.context[t], data.reward[t], described)
        whole = whole + (data.weight[t] * loss).sum()
    return whole / data.weight.sum()


@torch.no_grad()
def foretell(network: Contextual, log: Log) -> NDArray[np.float64]:
    """What each action was expected to earn at each decision of a log, raw, `[N, K]`."""
    made, came, spec = log.decisions, log.interactions, log.spec
    described, context = _described(network, log), _contexts(network, log)
    rewards = torch.as_tensor(encode_reward(came.reward, spec.reward.min, spec.reward.max))
    known, own = network.models.blank()
    known, own = known.repeat(log.histories, 1), own.expand(log.histories, len(described), -1)
    expected = np.zeros(made.mask.shape)
    for turn in turns(log, np.arange(log.histories)):
        if (at := turn.decisions).size:
            rows = torch.as_tensor(made.history[at])
            wide = described.expand(len(at), -1, -1)
            told = network.models.predict(known[rows], own[rows], context[at], wide)
            expected[at] = told[0].numpy()
        if (at := turn.interactions).size:
            rows, decision = torch.as_tensor(came.history[at]), came.decision[at]
            served = described[torch.as_tensor(made.action[decision])]
            known[rows], _, _, _ = network.models.update(
                known[rows], own[rows, 0], context[decision], rewards[at], served
            )
    low, high = spec.reward.min, spec.reward.max
    raw: NDArray[np.float64] = low + (expected + 1.0) / 2.0 * (high - low)
    return raw


@torch.no_grad()
def model_of(network: Contextual, log: Log) -> FittedModel:
    """What a fitted belief says of accounts, with the contexts of the log, as a simulator."""
    models, spec, made = network.models, log.spec, log.decisions
    assert isinstance(models, LearnedBelief)
    weight = torch.softmax(models._first_evidence(), -1).double().numpy()
    kept = torch.cat([torch.ones(1), models._moving()]).repeat(models.sizes.kinds)
    layers = (models.first, models.second, models.last)
    low, high = spec.reward.min, spec.reward.max
    rewards = made.reward[~np.isnan(made.reward)]
    certain = ~made.drawn
    mask = made.mask.copy()
    mask[certain] = np.eye(mask.shape[1], dtype=bool)[made.action[certain]]
    done = np.full(made.count, spec.episodes == "single_step")
    done[log.interactions.decision[log.interactions.done]] = True
    return FittedModel(
        inputs=tuple(
            one.detach().double().numpy() for layer in layers for one in (layer.weight, layer.bias)
        ),
        weight=weight / weight.sum(),
        mean=models._first_mean().double().numpy(),
        factor=np.linalg.cholesky(models._prior_covariance().double().numpy()),
        kept=kept.double().numpy(),
        deviation=float(torch.sqrt(models.noise.variance(torch.zeros(1, 4)))),
        is_binary=bool(np.isin(rewards, (low, high)).all()),
        reward_range=(low, high),
        action_features=_action_features(network, log),
        horizon=(spec.horizon.interactions, spec.horizon.floor),
        context=_contexts(network, log).numpy(),
        mask=mask,
        done=done,
        start=np.searchsorted(made.account, np.arange(log.accounts + 1)),
    )


@dataclass(frozen=True)
class _Data:
    """The newest past of B accounts, T interactions at most; weight 0 after an account's last."""

    context: Tensor
    """`[T, B, C]`."""
    action: Tensor
    reward: Tensor
    """Encoded."""
    weight: Tensor
    """`[T, B]`, as the two above."""
    described: Tensor
    """`[K, F]`."""

    @classmethod
    def of(cls, network: Contextual, log: Log) -> _Data:
        came, made, spec = log.interactions, log.decisions, log.spec
        column = np.full(log.histories, -1)
        column[log.newest] = np.arange(log.accounts)
        rows = np.flatnonzero((column[came.history] >= 0) & (came.ordinal < LONGEST))
        at = came.ordinal[rows], column[came.history[rows]]
        decision = came.decision[rows]
        T, B = int(came.ordinal[rows].max(initial=-1)) + 1, log.accounts
        context = np.zeros((T, B, network.sizes.context), np.float32)
        context[at] = _contexts(network, log).numpy()[decision]
        action, reward = np.zeros((T, B), np.int64), np.zeros((T, B), np.float32)
        action[at] = made.action[decision]
        reward[at] = encode_reward(came.reward[rows], spec.reward.min, spec.reward.max)
        weight = np.zeros((T, B), np.float32)
        weight[at] = weights(log, decision)
        as_tensor = torch.as_tensor
        return cls(
            as_tensor(context),
            as_tensor(action),
            as_tensor(reward),
            as_tensor(weight),
            _described(network, log),
        )

    def take(self, accounts: Array) -> _Data:
        """Some of the accounts, no longer than the longest of them."""
        weight = self.weight[:, accounts]
        T = int((weight > 0).any(1).sum())
        return _Data(
            self.context[:T, accounts],
            self.action[:T, accounts],
            self.reward[:T, accounts],
            weight[:T],
            self.described,
        )


def weights(log: Log, decisions: Array) -> NDArray[np.float64]:
    """How much the rewards of these decisions count, 1 in the mean: probability under uniform play
    over probability logged, tempered and cut; what was certain, or logged no probability, had
    probability 1."""
    made = log.decisions
    given = made.probability[decisions]
    given = np.where(made.drawn[decisions] & (given > 0) & (given <= 1), given, 1.0)
    weight = (1.0 / made.mask[decisions].sum(1) / given) ** CORRECTION
    weight = np.minimum(weight / weight.mean(), HEAVIEST)
    settled: NDArray[np.float64] = weight / weight.mean()
    return settled


def _start_at_mean(network: Contextual, data: _Data) -> None:
    """Begins where nothing but the mean reward is known: the first feature is the constant one."""
    models = network.models
    assert isinstance(models, LearnedBelief)
    mean = (data.weight * data.reward).sum() / data.weight.sum()
    with torch.no_grad():
        models.prior_mean[:, 0] = mean


def _action_means(train: _Data, check: _Data, actions: int) -> float:
    """Negative log-likelihood of a Gaussian about each action's weighted mean."""
    served = functional.one_hot(train.action, actions) * train.weight[..., None]
    total = served.sum((0, 1)) + 1e-6
    mean = (served * train.reward[..., None]).sum((0, 1)) / total
    errors = (train.reward - mean[train.action]).square()
    variance = (errors * train.weight).sum() / train.weight.sum() + 1e-6
    missed = (check.reward - mean[check.action]).square()
    loss = 0.5 * (missed / variance + torch.log(variance))
    return float((loss * check.weight).sum() / check.weight.sum())


def _loss_now(network: Contextual, data: _Data) -> float:
    with torch.no_grad():
        return float(weighted_surprise(network, data))


def _copied(network: Contextual) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.models.state_dict().items()}


def _contexts(network: Contextual, log: Log) -> Tensor:
    found = torch.as_tensor(log.decisions.context)
    return functional.pad(found, (0, network.sizes.context - found.shape[1]))


def _action_features(network: Contextual, log: Log) -> NDArray[np.float32]:
    return encode_action_features(log.spec, network.sizes.action_features)


def _described(network: Contextual, log: Log) -> Tensor:
    """Actions as the belief sees them, `[K, F + K]`."""
    features = torch.as_tensor(_action_features(network, log))
    return torch.cat([features, torch.eye(len(features))], -1)
