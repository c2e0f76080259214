"""A workflow's rewards as its log tells them, in place of a simulator. Numpy only.

Accounts are drawn from a fitted mixture of linear models over learned features
(`training.policies.learned_belief`), contexts from the log, account by account and in their order.
An account stays of its kind; what a choice does to later contexts is not in it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.encode import Float32, encode_reward, horizon_left
from training.tasks.feedback import known_before

Array = NDArray[Any]


@dataclass(frozen=True)
class FittedModel:
    """Everything that is drawn from, as plain arrays; d features, M components, L layers."""

    inputs: tuple[Array, ...]
    """Weights and biases of the features' layers, in turn."""
    weight: Array
    """Share of accounts that are of each component, `[M]`."""
    mean: Array
    """Of the account's weights, `[M, d]`."""
    factor: Array
    """Lower triangular, of their covariance, `[M, d, d]`."""
    kept: Array
    """Share of its own that an account of each component keeps an interaction, `[M]`."""
    deviation: float
    """Of an encoded reward around its mean."""
    is_binary: bool
    """Whether rewards are at the ends of their range alone."""
    reward_range: tuple[float, float]
    action_features: Float32
    """`[K, F]`."""
    horizon: tuple[float, float]
    """Interactions that the policy is told of, and the floor of the share that is left."""
    context: Float32
    """Of all logged decisions, an account's one after another, `[N, C]`."""
    mask: Array
    """`[N, K]`; what was certain is the only action allowed."""
    done: Array
    """Whether the episode ended there, `[N]`."""
    start: Array
    """Where each account's decisions begin, and N, `[A + 1]`."""

    @property
    def actions(self) -> int:
        """K."""
        return int(self.mask.shape[1])

    def features(self, context: Array) -> NDArray[np.float64]:
        """f of each action in contexts `[B, C]`, `[B, K, d]`; the first is 1."""
        K = self.actions
        described = np.concatenate([self.action_features, np.eye(K)], 1)
        shape = (len(context), K)
        x = np.concatenate(
            [
                np.broadcast_to(context[:, None], (*shape, context.shape[1])),
                np.broadcast_to(described, (*shape, described.shape[1])),
            ],
            -1,
        ).astype(np.float64)
        layers = list(zip(self.inputs[::2], self.inputs[1::2], strict=True))
        for n, (weight, bias) in enumerate(layers):
            x = x @ weight.T + bias
            if n + 1 < len(layers):
                x = np.tanh(x)
        return np.concatenate([np.ones((*shape, 1)), x], -1)

    def save(self, path: Path) -> None:
        """Writes it whole."""
        arrays: dict[str, Any] = {k: v for k, v in asdict(self).items() if k != "inputs"}
        arrays |= {f"inputs_{i}": layer for i, layer in enumerate(self.inputs)}
        draft = path.with_name(f".{path.name}.part.npz")
        np.savez_compressed(draft, **arrays)
        draft.replace(path)

    @classmethod
    def load(cls, path: Path) -> FittedModel:
        """The model in a file. Raises ValueError when it cannot be read."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                found = {name: stored[name] for name in stored.files}
            layers = [found.pop(f"inputs_{i}") for i in range(6)]
            for name in ("deviation", "is_binary"):
                found[name] = found[name].item()
            for name in ("reward_range", "horizon"):
                found[name] = tuple(map(float, found[name]))
            return cls(inputs=tuple(layers), **found)
        except Exception as error:  # zipfile, zlib and numpy each raise their own types
            raise ValueError(f"model: expected {path} as a run with --ledger wrote it") from error


class FittedTrials:
    """B accounts of T decisions, drawn from the model: `training.tasks.task.Situated`."""

    def __init__(
        self, model: FittedModel, trials: int, n: int, rng: np.random.Generator, *, delay: int = 0
    ) -> None:
        self.model, self.num_envs, self.steps = model, trials, n
        self.actions, self.reward_range = model.actions, model.reward_range
        self.known = known_before(n, delay)
        self.action_features = model.action_features
        self.told_horizon: Float32 = horizon_left(self.known, *model.horizon)
        self._rng = rng

    def reset(self) -> tuple[Float32, dict[str, Any]]:
        """New accounts; their first context `[B, C]`."""
        model, rng, B = self.model, self._rng, self.num_envs
        self._kind = rng.choice(len(model.weight), size=B, p=model.weight)
        self._own = self._deviate()
        account = rng.integers(0, len(model.start) - 1, B)
        self._first = model.start[account]
        self._length = model.start[account + 1] - self._first
        self._t = 0
        return self._look(), {}

    def step(self, actions: Array) -> tuple[Float32, Array, Array, Array, dict[str, Any]]:
        """Actions `[B]`: the next context, reward, terminated, truncated, each `[B]`, and info."""
        model, B = self.model, self.num_envs
        mean = self._encoded[np.arange(B), actions]
        if model.is_binary:
            reward = np.where(self._rng.random(B) < (mean + 1.0) / 2.0, 1.0, -1.0)
        else:
            reward = np.clip(mean + model.deviation * self._rng.normal(size=B), -1.0, 1.0)
        done = model.done[self._at]
        kept = model.kept[self._kind][:, None]
        self._own = kept * self._own + np.sqrt(1.0 - kept * kept) * self._deviate()
        self._t += 1
        return self._look(), self._raw(reward), done, np.zeros_like(done), {}

    def shown(self, reward: Array) -> Float32:
        """Rewards of any shape in [−1, 1]."""
        return encode_reward(reward, *self.reward_range)

    def expected(self, actions: Array) -> NDArray[np.float64]:
        """The mean reward of these actions `[B]` at the decision to come."""
        found: NDArray[np.float64] = self.means[np.arange(self.num_envs), actions]
        return found

    def bounds(self) -> tuple[Array, Array]:
        """What random play and the best action earn at the decision to come, `[B]` each."""
        allowed = np.where(self.mask, self.means, np.nan)
        return np.nanmean(allowed, 1), np.nanmax(allowed, 1)

    def _look(self) -> Float32:
        """Takes in the decision to come; its context. A log that is too short begins again."""
        self._at = self._first + self._t % self._length
        context: Float32 = self.model.context[self._at]
        self.mask = self.model.mask[self._at]
        weights = self.model.mean[self._kind] + self._own
        encoded = (self.model.features(context) @ weights[..., None])[..., 0]
        self._encoded = np.clip(encoded, -1.0, 1.0)
        self.means = self._raw(self._encoded)
        return context

    def _deviate(self) -> NDArray[np.float64]:
        """How far accounts of these kinds are from their kind's mean, `[B, d]`."""
        factor = self.model.factor[self._kind]
        drawn: NDArray[np.float64] = (
            factor @ self._rng.normal(size=(self.num_envs, factor.shape[1], 1))
        )[..., 0]
        return drawn

    def _raw(self, encoded: Array) -> NDArray[np.float64]:
        low, high = self.reward_range
        raw: NDArray[np.float64] = low + (encoded + 1.0) / 2.0 * (high - low)
        return raw
