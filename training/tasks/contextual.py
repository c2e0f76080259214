"""A very broad family of contextual decisions, B accounts at once. Numpy only; it knows no policy.

What workflows have in common, and nothing of any one of them: contexts of numbers, flags and
one-hots that change from decision to decision or stay with the account; actions whose worth depends
on them, more or less alike, with or without features of their own; coins, shares and values as
rewards, common or rare; accounts that drift or change at once; feedback that comes late. How a
batch of accounts looks is drawn with it (`draw_layout`); what an account is like is drawn for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from contract.encode import Float32, encode_reward, horizon_left
from training.tasks.drift import log_uniform
from training.tasks.feedback import known_before

Array = NDArray[Any]

SLOTS = 16
"""Slots of an encoded context; those that a layout does not use are 0."""
ACTION_FEATURES = 4
"""Slots of an action's features."""

Kind = Literal["number", "flag", "one-hot"]
Pays = Literal["coin", "share", "value"]

_CHANGE = (0.003, 0.04)
_PACE = (0.01, 0.08)


@dataclass(frozen=True)
class Feature:
    """One feature of the context, in consecutive slots."""

    kind: Kind
    slots: int
    moves: Literal["anew", "slowly", "never"]
    """Between decisions: drawn anew, a slow walk, or the account's own for ever."""


@dataclass(frozen=True)
class Layout:
    """What all accounts of a batch share, as all accounts of a workflow do."""

    features: tuple[Feature, ...]
    action_features: Float32
    """`[K, ACTION_FEATURES]` in [−1, 1]."""
    pays: Pays
    base: float
    """Typical logit of an action's worth: low where rewards are rare."""
    drift: Literal["none", "change-points", "slow"]
    masked: float
    """Share of decisions that may use only some of the actions."""
    mirrored: bool = False
    """Whether what is drawn is a loss: the reward is 1 less it."""
    span: tuple[float, float] = (0.0, 1.0)
    """Where rewards really lie within the range that is declared."""

    @property
    def slots(self) -> int:
        """Slots in use."""
        return sum(feature.slots for feature in self.features)


def draw_layout(rng: np.random.Generator, k: int) -> Layout:
    """A layout for k actions."""
    features: list[Feature] = []
    wanted = 0 if rng.random() < 0.15 else int(rng.integers(1, SLOTS + 1))
    while (left := wanted - sum(one.slots for one in features)) > 0:
        kind: Kind = rng.choice(["number", "flag", "one-hot"], p=[0.45, 0.2, 0.35])
        slots = int(rng.integers(2, 6)) if kind == "one-hot" else 1
        if slots > left:
            kind, slots = "number", 1
        moves = rng.choice(["anew", "slowly", "never"], p=[0.6, 0.15, 0.25])
        features.append(Feature(kind, slots, moves))
    described = np.zeros((k, ACTION_FEATURES), np.float32)
    if rng.random() < 0.5:
        count = int(rng.integers(1, ACTION_FEATURES + 1))
        if rng.random() < 0.5:
            described[:, :count] = rng.uniform(-1, 1, (k, count))
        else:  # a ladder, such as discounts, of which several actions may share a rung
            rungs = np.sort(rng.integers(0, max(2, k), k))
            described[:, 0] = 2.0 * rungs / max(1, rungs.max()) - 1.0
            described[:, 1:count] = rng.choice([-1.0, 1.0], (k, count - 1))
    return Layout(
        features=tuple(features),
        action_features=described,
        pays=rng.choice(["coin", "share", "value"], p=[0.55, 0.2, 0.25]),
        base=float(rng.normal(-0.5, 1.4)),
        drift=rng.choice(["none", "change-points", "slow"], p=[0.6, 0.25, 0.15]),
        masked=float(rng.choice([0.0, 0.3])) if k > 2 else 0.0,
        mirrored=bool(rng.random() < 0.25),
        span=_draw_span(rng),
    )


def _draw_span(rng: np.random.Generator) -> tuple[float, float]:
    """Most workflows use the range they declare; some only a part of it."""
    if rng.random() < 0.6:
        return (0.0, 1.0)
    width = float(np.exp(rng.uniform(np.log(0.2), 0.0)))
    low = float(rng.uniform(0.0, 1.0 - width))
    return (low, low + width)


class ContextualTrials:
    """B accounts of one layout, T decisions each; every decision ends its episode.

    The logit of an action's worth is: a base, what the account likes in general (by context), a
    constant of the action, a slope of the action by context (sparse, of low rank or free), a taste
    for the action's features (linear, or peaked at the account's own optimum), and at times a
    product of two slots. How strong each is differs from account to account.
    """

    reward_range = (0.0, 1.0)

    def __init__(
        self,
        trials: int,
        n: int,
        layout: Layout,
        rng: np.random.Generator,
        *,
        delay: int = 0,
        batch: int = 1,
        horizon: int | None = None,
        floor: float = 0.0,
    ) -> None:
        self.num_envs, self.n, self.layout = trials, n, layout
        self.horizon, self.floor = horizon or n, floor
        self.k = len(layout.action_features)
        self._known = known_before(n, delay, batch)
        self._task_rng, self._luck_rng = rng.spawn(2)
        self._t = 0

    @property
    def actions(self) -> int:
        """K."""
        return self.k

    @property
    def steps(self) -> int:
        """T."""
        return self.n

    @property
    def known(self) -> NDArray[np.int64]:
        """How many interactions have been fed back before decision t, `[T]`."""
        return self._known

    @property
    def told_horizon(self) -> Float32:
        """As a service tells it, `[T, 2]`: by a horizon that need not be the trial's end."""
        return horizon_left(self._known, self.horizon, self.floor)

    @property
    def action_features(self) -> Float32:
        """`[K, F]`, the same for all accounts."""
        return self.layout.action_features

    def reset(self) -> tuple[Float32, dict[str, Any]]:
        """New accounts; their first context `[B, C]`."""
        rng, B = self._task_rng, self.num_envs
        self._t = 0
        self._draw_accounts(np.arange(B), first=True)
        self._rate = {
            "none": np.zeros(B),
            "change-points": log_uniform(rng, _CHANGE, B),
            "slow": log_uniform(rng, _PACE, B),
        }[self.layout.drift]
        self._context = self._first_context()
        self._look()
        return self._context, {}

    def step(self, actions: Array) -> tuple[Float32, Array, Array, Array, dict[str, Any]]:
        """Actions `[B]`: the next context, reward, terminated, truncated, each `[B]`, and info."""
        rows = np.arange(self.num_envs)
        drawn = self._pay(self._worth[rows, actions], self.value[rows, actions])
        reward = self._as_paid(drawn).astype(np.float32)
        self._t += 1
        self._move()
        self._look()
        ended = np.ones(self.num_envs, np.bool_)
        return self._context, reward, ended, np.zeros_like(ended), {}

    def shown(self, reward: Array) -> Float32:
        """Rewards of any shape in [−1, 1]."""
        return encode_reward(reward, *self.reward_range)

    def expected(self, actions: Array) -> NDArray[np.float64]:
        """The mean reward of these actions `[B]` at the decision to come."""
        found: NDArray[np.float64] = self.means[np.arange(self.num_envs), actions]
        return found

    def bounds(self) -> tuple[Array, Array]:
        """What random play and the best play earn at the decision to come, `[B]` each."""
        allowed = np.where(self.mask, self.means, np.nan)
        return np.nanmean(allowed, 1), np.nanmax(allowed, 1)

    def _draw_accounts(self, which: Array, first: bool = False) -> None:
        """The latent parameters of these accounts, drawn anew."""
        rng, k, count = self._task_rng, self.k, which.size
        if first:
            B, C, F = self.num_envs, self.layout.slots, ACTION_FEATURES
            self._strength = {
                "constant": log_uniform(rng, (0.3, 2.5), B),
                "slope": log_uniform(rng, (0.2, 2.5), B) * (rng.random(B) < 0.8),
                "shared": log_uniform(rng, (0.05, 1.0), B),
                "feature": log_uniform(rng, (0.2, 2.5), B),
                "product": log_uniform(rng, (0.2, 2.0), B) * (rng.random(B) < 0.3),
            }
            self._base = self.layout.base + 0.5 * rng.standard_normal(B)
            self._spread = log_uniform(rng, (2.0, 60.0), B)
            keep = rng.uniform(0.2, 1.0, (B, 1))
            self._used = (rng.random((B, C)) < keep) / np.sqrt(np.maximum(keep * C / 4.0, 1.0))
            self._alike = rng.random(B) < 0.5
            self._peaked = rng.random(B) < 0.5
            self._constant = np.empty((B, k))
            self._slope = np.empty((B, k, C))
            self._shared = np.empty((B, C))
            self._taste = np.empty((B, F))
            self._optimum = np.empty((B, F))
            self._pair = rng.integers(0, max(C, 1), (B, 2))
            self._product = np.empty((B, k))
            value = np.ones((B, k))
            if self.layout.pays == "value":
                value = rng.uniform(0.3, 1.0, (B, k))
                if self.layout.action_features.any():
                    cost = rng.uniform(0.1, 0.7) * (self.layout.action_features[:, 0] + 1.0) / 2.0
                    value = np.broadcast_to(1.0 - cost, (B, k)).copy()
            self.value = value
        C, F = self.layout.slots, ACTION_FEATURES
        strength = {name: one[which] for name, one in self._strength.items()}
        self._constant[which] = strength["constant"][:, None] * rng.standard_normal((count, k))
        free = rng.standard_normal((count, k, C))
        rank = rng.standard_normal((count, k, 2)) @ rng.standard_normal((count, 2, C)) / np.sqrt(2)
        slope = np.where(self._alike[which][:, None, None], rank, free)
        self._slope[which] = strength["slope"][:, None, None] * slope * self._used[which][:, None]
        shared = rng.standard_normal((count, C))
        self._shared[which] = strength["shared"][:, None] * shared * self._used[which]
        self._taste[which] = strength["feature"][:, None] * rng.standard_normal((count, F))
        self._optimum[which] = rng.uniform(-1.2, 1.2, (count, F))
        self._product[which] = strength["product"][:, None] * rng.standard_normal((count, k))

    def _first_context(self) -> Float32:
        context = np.zeros((self.num_envs, SLOTS), np.float32)
        for feature, at in self._placed():
            context[:, at] = self._drawn(feature)
        return context

    def _move(self) -> None:
        """Contexts and accounts as they are at the next decision."""
        rng = self._task_rng
        context = self._context.copy()
        for feature, at in self._placed():
            match feature.moves:
                case "anew":
                    context[:, at] = self._drawn(feature)
                case "slowly":
                    if feature.kind == "number":
                        moved = context[:, at] + 0.1 * rng.standard_normal((self.num_envs, 1))
                        context[:, at] = np.clip(moved, -1.0, 1.0)
                    else:
                        fresh = rng.random((self.num_envs, 1)) < 0.05
                        context[:, at] = np.where(fresh, self._drawn(feature), context[:, at])
                case "never":
                    pass
        self._context = context
        match self.layout.drift:
            case "change-points":
                hit = np.flatnonzero(rng.random(self.num_envs) < self._rate)
                if hit.size:
                    self._draw_accounts(hit)
            case "slow":
                pace = self._rate[:, None]
                scale = self._strength["constant"][:, None]
                step = scale * rng.standard_normal(self._constant.shape)
                self._constant = np.sqrt(1 - pace**2) * self._constant + pace * step
            case "none":
                pass

    def _placed(self) -> list[tuple[Feature, slice]]:
        placed, start = [], 0
        for feature in self.layout.features:
            placed.append((feature, slice(start, start + feature.slots)))
            start += feature.slots
        return placed

    def _drawn(self, feature: Feature) -> Array:
        rng, B = self._task_rng, self.num_envs
        match feature.kind:
            case "number":
                return rng.uniform(-1, 1, (B, 1))
            case "flag":
                return rng.choice([-1.0, 1.0], (B, 1))
            case "one-hot":
                eye: Array = np.eye(feature.slots)
                return eye[rng.integers(0, feature.slots, B)]

    def _look(self) -> None:
        """The means `[B, K]` and the mask of the decision to come."""
        C = self.layout.slots
        x = self._context[:, :C].astype(np.float64)
        rows = np.arange(self.num_envs)
        logit = self._base[:, None] + self._constant
        if C:
            logit = logit + np.einsum("bkc,bc->bk", self._slope, x)
            logit += np.einsum("bc,bc->b", self._shared, x)[:, None]
            pair = x[rows, self._pair[:, 0]] * x[rows, self._pair[:, 1]]
            logit += self._product * pair[:, None]
        described = self.layout.action_features
        if described.any():
            used = described.any(0)
            linear = described @ (self._taste * used).T
            away = np.square(described[:, None] - self._optimum[None]) @ used / used.sum()
            peaked = -self._strength["feature"] * away
            logit += np.where(self._peaked, peaked, linear).T
        self._worth = self.value / (1.0 + np.exp(-logit))
        self.means = self._as_paid(self._worth)
        self.mask = np.ones((self.num_envs, self.k), np.bool_)
        if self.layout.masked:
            rng = self._task_rng
            some = rng.random(self.num_envs) < self.layout.masked
            mask = rng.random((self.num_envs, self.k)) < 0.6
            mask[rows, rng.integers(0, self.k, self.num_envs)] = True
            self.mask[some] = mask[some]

    def _as_paid(self, drawn: Array) -> NDArray[np.float64]:
        """What was drawn in [0, 1], as the layout pays it."""
        low, high = self.layout.span
        gain = 1.0 - drawn if self.layout.mirrored else drawn
        paid: NDArray[np.float64] = low + (high - low) * gain
        return paid

    def _pay(self, means: Array, value: Array) -> NDArray[np.float32]:
        rng = self._luck_rng
        if self.layout.pays == "share":
            share = np.clip(means, 1e-3, 1 - 1e-3)
            drawn = rng.beta(share * self._spread, (1 - share) * self._spread)
            return drawn.astype(np.float32)
        coins = rng.random(self.num_envs)
        return (value * (coins * value < means)).astype(np.float32)
