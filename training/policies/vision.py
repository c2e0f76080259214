"""`vision`: a policy that sees pictures, after Duan et al. (2016): two convolutions, dense, GRU.

Both functions run h' = GRU(h, φ(picture, a⁻, r⁻, d⁻)), as `gru` does; what the eyes make of a
picture is a narrow layer, so that eyes and memory can be taught apart. A picture comes as the
context, `[height · width · channels]` in [−1, 1], row by row. It must never be told a pose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.policies.cells import step
from training.policies.glance import Glance
from training.record import Record
from training.trust_region import Differentiated, Linearised

_FILTERS, _KERNEL, _STRIDE = 16, 5, 2
_WIDEST = 1.5
"""Glimpses are of rays in [−1, 1]: beyond, a picture is none that an engine shows."""
_FRAMES = 4_096
"""Pictures that are looked at together where nothing is to be differentiated."""


@dataclass(frozen=True)
class VisionSizes:
    """What it takes to build the network again."""

    actions: int = 3
    height: int = 30
    width: int = 40
    channels: int = 3
    dense: int = 256
    glimpse: int = 120
    """Numbers that the eyes hand to the memory."""
    hidden: int = 256
    head: int = 128
    rays: bool = False
    """Whether it is told rays in place of pictures: for training in the model of the engine."""

    def __post_init__(self) -> None:
        for name, least in (("actions", 2), ("height", 13), ("width", 13), ("channels", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")

    @property
    def context(self) -> int:
        """Numbers of a picture, or of rays."""
        if self.rays:
            return self.glimpse
        return self.height * self.width * self.channels

    @property
    def action_features(self) -> int:
        """It takes none."""
        return 0


class Eyes(nn.Module):
    """Pictures `[N, C]`, in [−1, 1] or bytes, to what a memory is told of them, `[N, glimpse]`."""

    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        self.shape = (sizes.height, sizes.width, sizes.channels)
        self.first = nn.Conv2d(sizes.channels, _FILTERS, _KERNEL, _STRIDE)
        self.second = nn.Conv2d(_FILTERS, _FILTERS, _KERNEL, _STRIDE)
        left = [(side - _KERNEL) // _STRIDE + 1 for side in self.shape[:2]]
        left = [(side - _KERNEL) // _STRIDE + 1 for side in left]
        self.left = tuple(left)
        """Height and width after both convolutions."""
        self.dense = nn.Linear(left[0] * left[1] * _FILTERS, sizes.dense)
        self.told = nn.Linear(sizes.dense, sizes.glimpse)

    def forward(self, pictures: Tensor) -> Tensor:
        """`[N, glimpse]`."""
        if pictures.dtype == torch.uint8:
            pictures = pictures.float().mul_(2 / 255).sub_(1)
        seen = pictures.reshape(-1, *self.shape).permute(0, 3, 1, 2)
        seen = torch.relu(self.first(seen))
        seen = torch.relu(self.second(seen))
        told = self.told(torch.relu(self.dense(seen.flatten(1))))
        return torch.clamp(told, -_WIDEST, _WIDEST)


class Vision(nn.Module):
    """The network. `shared` packs (h, a⁻ one-hot, r⁻, d⁻); there are no rows."""

    name = "vision"
    unused_inputs: frozenset[str] = frozenset({"horizon_left"})
    memory_tolerance = 1e-5
    """Sums of 400 terms, in another order in torch and in onnxruntime, a hundred steps long."""

    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.action_range = (sizes.actions, sizes.actions)
        H = sizes.hidden
        self.eyes = Eyes(sizes)
        self.observed = nn.Linear(sizes.glimpse + sizes.actions + 2, 3 * H)
        self.recurrent = nn.Linear(H, 3 * H)
        self.head = nn.Linear(H, sizes.head)
        self.score = nn.Linear(sizes.head, sizes.actions)
        self.value = nn.Linear(H, 1)
        with torch.no_grad():
            self.score.weight.mul_(0.1)
            self.value.weight.mul_(0.1)
            for gate in self.recurrent.weight.chunk(3):
                nn.init.orthogonal_(gate)

    def blank(self, batch: int, actions: int) -> tuple[Tensor, Tensor]:
        """Shared `[B, H + A + 2]`, all zero, and no rows `[B, K, 0]`."""
        packed = self.sizes.hidden + self.sizes.actions + 2
        return torch.zeros(batch, packed), torch.zeros(batch, actions, 0)

    def decide(
        self,
        shared: Tensor,
        rows: Tensor,
        context: Tensor,
        action_mask: Tensor,
        horizon_left: Tensor,
        action_features: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Probabilities `[B, A]`, exactly 0 where masked, and value `[B]`. Writes nothing."""
        return self.decide_from(self.look(shared, context), action_mask)

    def learn(
        self,
        shared: Tensor,
        rows: Tensor,
        context: Tensor,
        action: Tensor,
        reward: Tensor,
        done: Tensor,
        action_features: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The memory with one interaction folded in."""
        return self.learn_from(self.look(shared, context), action, reward, done), rows

    def ready(self) -> Glance:
        """The same two functions for many steps with the weights as they are now."""
        return Glance(self, _STRIDE, _WIDEST)

    def look(self, shared: Tensor, context: Tensor) -> Tensor:
        """h' `[B, H]` from a packed memory and a picture: both functions begin with it."""
        hidden, before = torch.split(shared, [self.sizes.hidden, self.sizes.actions + 2], -1)
        observed = self.observed(torch.cat([self.glimpses(context), before], -1))
        advanced, _ = step(observed, self.recurrent(hidden), hidden)
        return advanced

    def decide_from(self, hidden: Tensor, action_mask: Tensor) -> tuple[Tensor, Tensor]:
        """What `decide` answers where `look` gave `hidden`."""
        scores = self.scores(hidden).masked_fill(~action_mask, -torch.inf)
        return torch.softmax(scores, -1), self.value_of(hidden)

    def learn_from(self, hidden: Tensor, action: Tensor, reward: Tensor, done: Tensor) -> Tensor:
        """The packed memory that `learn` gives where `look` gave `hidden`."""
        served = functional.one_hot(action, self.sizes.actions).to(hidden.dtype)
        return torch.cat([hidden, served, reward[:, None], done[:, None]], -1)

    def logits(self, records: Sequence[Record], times: Tensor | None = None) -> list[Tensor]:
        """Log-probabilities up to a constant, `[T', B, A]` for each record."""
        found = []
        for record, pool in zip(records, self.pools(records, times), strict=True):
            mask = record.action_mask
            if mask.dim() == 3 and times is not None:
                mask = mask[times]
            found.append(self.scores(pool).masked_fill(~mask, -torch.inf))
        return found

    forward = logits

    def linearised(
        self, records: Sequence[Record], times: Tensor, parameters: Mapping[str, nn.Parameter]
    ) -> Linearised:
        """The logits of these steps, with their derivatives by these parameters."""
        return Differentiated(
            lambda named: torch.func.functional_call(self, dict(named), (records, times)),
            parameters,
        )

    def pools(self, records: Sequence[Record], times: Tensor | None = None) -> list[Tensor]:
        """The hidden states that decisions were read from, `[T', B, H]` for each record."""
        found = []
        for record in records:
            hidden = self.hidden(self.before(record))
            found.append(hidden if times is None else hidden[times])
        return found

    def before(self, record: Record) -> Tensor:
        """What each step folds in: the glimpse and the interaction before, `[T, B, X]`."""
        T, B, _ = record.context.shape
        glimpses = self.glimpses(record.context.flatten(0, 1)).reshape(T, B, -1)
        served = functional.one_hot(record.action, self.sizes.actions).to(record.reward.dtype)
        new = torch.cat([served, record.reward[..., None], record.done[..., None]], -1)
        return torch.cat([glimpses, torch.cat([torch.zeros_like(new[:1]), new[:-1]])], -1)

    def glimpses(self, pictures: Tensor) -> Tensor:
        """What the eyes tell of pictures `[N, C]`, `[N, glimpse]`; rays are that themselves."""
        if self.sizes.rays:
            return pictures
        if torch.is_grad_enabled() or len(pictures) <= _FRAMES:
            return cast(Tensor, self.eyes(pictures))
        return torch.cat([self.eyes(part) for part in torch.split(pictures, _FRAMES)])

    def hidden(self, seen: Tensor, first: Tensor | None = None) -> Tensor:
        """The states after each step of `[T, B, X]`, from `first` `[B, H]` or the blank one."""
        start = seen.new_zeros(1, seen.shape[1], self.sizes.hidden)
        start = start if first is None else first[None]
        observed, observed_bias, recurrent, recurrent_bias = self.recurrence()
        weights = [observed, recurrent, observed_bias, recurrent_bias]
        states, _ = torch.gru(seen, start, weights, True, 1, 0.0, False, False, False)
        return states

    def recurrence(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The memory's weights and biases: of what was seen, of the state before."""
        observed, recurrent = self.observed, self.recurrent
        return observed.weight, observed.bias, recurrent.weight, recurrent.bias

    def scores(self, hidden: Tensor) -> Tensor:
        """Scores of the actions `[..., A]` read from hidden states `[..., H]`."""
        return cast(Tensor, self.score(torch.relu(self.head(hidden))))

    def value_of(self, pool: Tensor) -> Tensor:
        """The value `[...]` read from hidden states `[..., H]`."""
        return torch.as_tensor(self.value(pool).squeeze(-1))

    def value_parameters(self) -> list[nn.Parameter]:
        """The value head alone: trained apart from the policy, by regression."""
        return list(self.value.parameters())


def told_rays(policy: Vision, rays: bool) -> Vision:
    """The same weights in a policy that is told rays, or, with the eyes it has, sees pictures."""
    other = Vision(replace(policy.sizes, rays=rays))
    other.load_state_dict(policy.state_dict())
    return other
