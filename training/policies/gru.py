"""`gru`: the flat recurrent policy of Duan et al. 2016, for a fixed number of actions.

Kept for reproduction. Both functions run h' = GRU(h, φ(context, a⁻, r⁻, d⁻)); `decide` reads the
head off h', `learn` stores h' with the new (a, r, d). It must never be given more actions than it
was built for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.policies.cells import step
from training.record import Record


@dataclass(frozen=True)
class GruSizes:
    """What it takes to build the network again."""

    actions: int
    hidden: int = 256
    context: int = 0
    action_features: int = 0

    def __post_init__(self) -> None:
        if self.actions < 2:
            raise ValueError(f"actions: expected at least 2, got {self.actions}")
        if self.hidden < 1:
            raise ValueError(f"hidden: expected at least 1, got {self.hidden}")
        if self.action_features:
            raise ValueError("action_features: the flat network takes none; use actionwise")


class Gru(nn.Module):
    """The network. `shared` packs (h, a⁻ one-hot, r⁻, d⁻); there are no rows."""

    name = "gru"
    unused_inputs: frozenset[str] = frozenset({"horizon_left"})

    def __init__(self, sizes: GruSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.action_range = (sizes.actions, sizes.actions)
        H = sizes.hidden
        self.observed = nn.Linear(sizes.context + sizes.actions + 2, 3 * H)
        self.recurrent = nn.Linear(H, 3 * H)
        self.score = nn.Linear(H, sizes.actions)
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
        hidden = self._advance(shared, context)
        scores = self.score(hidden).masked_fill(~action_mask, -torch.inf)
        return torch.softmax(scores, -1), self.value_of(hidden)

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
        served = functional.one_hot(action, self.sizes.actions).to(shared.dtype)
        hidden = self._advance(shared, context)
        return torch.cat([hidden, served, reward[:, None], done[:, None]], -1), rows

    def logits(self, records: Sequence[Record], times: Tensor | None = None) -> list[Tensor]:
        """Log-probabilities up to a constant, `[T', B, A]` for each record."""
        return [
            self.score(pool).masked_fill(~record.action_mask, -torch.inf)
            for record, pool in zip(records, self.pools(records, times), strict=True)
        ]

    forward = logits

    def pools(self, records: Sequence[Record], times: Tensor | None = None) -> list[Tensor]:
        """The hidden states that decisions were read from, `[T', B, H]` for each record."""
        return [self._recall(record, times) for record in records]

    def value_of(self, pool: Tensor) -> Tensor:
        """The value `[...]` read from hidden states `[..., H]`."""
        return torch.as_tensor(self.value(pool).squeeze(-1))

    def value_parameters(self) -> list[nn.Parameter]:
        """The value head alone: trained apart from the policy, by regression."""
        return list(self.value.parameters())

    def _advance(self, shared: Tensor, context: Tensor) -> Tensor:
        """h' from a packed memory and the present context."""
        hidden, before = torch.split(shared, [self.sizes.hidden, self.sizes.actions + 2], -1)
        observed = self.observed(torch.cat([context, before], -1))
        advanced, _ = step(observed, self.recurrent(hidden), hidden)
        return advanced

    def _recall(self, record: Record, times: Tensor | None) -> Tensor:
        """h' at each decision: a step of its own where feedback was still under way."""
        hidden, before = self._unroll(record)
        if record.known is None:
            return hidden if times is None else hidden[times]
        learned = record.known if times is None else record.known[times]
        context = record.context if times is None else record.context[times]
        stored = torch.cat([torch.zeros_like(hidden[:1]), hidden])[learned]
        observed = self.observed(torch.cat([context, before[learned]], -1))
        advanced, _ = step(observed, self.recurrent(stored), stored)
        return advanced

    def _unroll(self, record: Record) -> tuple[Tensor, Tensor]:
        """The chain of hidden states `[T, B, H]`, and the interaction before each `[T, B, A+2]`."""
        served = functional.one_hot(record.action, self.sizes.actions).to(record.reward.dtype)
        new = torch.cat([served, record.reward[..., None], record.done[..., None]], -1)
        before = torch.cat([torch.zeros_like(new[:1]), new[:-1]])
        observed = self.observed(torch.cat([record.context, before], -1))
        hidden = observed.new_zeros(record.trials, self.sizes.hidden)
        states = []
        for t in range(record.steps):
            hidden, _ = step(observed[t], self.recurrent(hidden), hidden)
            states.append(hidden)
        return torch.stack(states), before
