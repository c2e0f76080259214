"""`gru`: the flat recurrent policy of Duan et al. 2016, for a fixed number of actions.

Kept for reproduction. Both functions run h' = GRU(h, φ(context, a⁻, r⁻, d⁻)); `decide` reads the
head off h', `learn` stores h' with the new (a, r, d). It must never be given more actions than it
was built for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.bounds import refuse_below
from training.policies.cells import step
from training.policies.flat_memory import FlatMemory
from training.policies.flat_pass import Weights
from training.policies.flat_tangent import FlatTangent
from training.record import Record
from training.trust_region import Linearised, differentiated


@dataclass(frozen=True)
class GruSizes:
    """What it takes to build the network again."""

    actions: int
    hidden: int = 256
    context: int = 0
    action_features: int = 0

    def __post_init__(self) -> None:
        refuse_below(self, 2, "actions")
        refuse_below(self, 1, "hidden")
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

    def linearised(
        self, records: Sequence[Record], times: Tensor, parameters: Mapping[str, nn.Parameter]
    ) -> Linearised:
        """The logits of these steps, with their derivatives by these parameters."""
        if any(one.known is not None for one in records):
            return differentiated(self, (records, times), parameters)
        return _Linearised(self, records, times, list(parameters))

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
        seen = seen_before(record, self.sizes.actions)
        hidden: Tensor = FlatMemory.apply(seen, *self.recurrence())  # type: ignore[no-untyped-call]
        if record.known is None:
            return hidden if times is None else hidden[times]
        learned = record.known if times is None else record.known[times]
        context = record.context if times is None else record.context[times]
        stored = torch.cat([torch.zeros_like(hidden[:1]), hidden])[learned]
        before = seen[learned][..., self.sizes.context :]
        observed = self.observed(torch.cat([context, before], -1))
        advanced, _ = step(observed, self.recurrent(stored), stored)
        return advanced

    def recurrence(self) -> Weights:
        """The recurrent cell's weights."""
        observed, recurrent = self.observed, self.recurrent
        return Weights(observed.weight, observed.bias, recurrent.weight, recurrent.bias)


def seen_before(record: Record, actions: int) -> Tensor:
    """What each step folds in: the context and the interaction before, `[T, B, C + A + 2]`."""
    served = functional.one_hot(record.action, actions).to(record.reward.dtype)
    new = torch.cat([served, record.reward[..., None], record.done[..., None]], -1)
    before = torch.cat([torch.zeros_like(new[:1]), new[:-1]])
    return torch.cat([record.context, before], -1)


class _Linearised:
    """`Linearised` for the flat network: recurrence and score by hand, the value left out."""

    def __init__(
        self, network: Gru, records: Sequence[Record], times: Tensor, names: list[str]
    ) -> None:
        self._names = names
        self._times = times
        self._score = network.score.weight.detach()
        with torch.no_grad():
            self._tangents = [
                FlatTangent(
                    seen_before(one, network.sizes.actions),
                    Weights(*(w.detach() for w in network.recurrence())),
                )
                for one in records
            ]
            self.logits = [
                network.score(at.hidden[times]).masked_fill(~one.action_mask, -torch.inf)
                for at, one in zip(self._tangents, records, strict=True)
            ]

    @torch.no_grad()
    def push(self, tangents: list[Tensor]) -> list[Tensor]:
        """The logits' tangents `[T', B, A]`."""
        named = dict(zip(self._names, tangents, strict=True))
        weights = Weights(*(named[name] for name in _RECURRENCE))
        return [
            functional.linear(at.push(weights)[self._times], self._score)
            + functional.linear(at.hidden[self._times], named["score.weight"], named["score.bias"])
            for at in self._tangents
        ]

    @torch.no_grad()
    def pull(self, cotangents: list[Tensor]) -> list[Tensor]:
        """The parameters' cotangents, summed over the records."""
        total: dict[str, Tensor] = {}
        for at, cotangent in zip(self._tangents, cotangents, strict=True):
            into = torch.zeros_like(at.hidden)
            into[self._times] = cotangent @ self._score
            found = dict(zip(_RECURRENCE, at.pull(into), strict=True))
            flat = cotangent.flatten(0, 1)
            found["score.weight"] = flat.T @ at.hidden[self._times].flatten(0, 1)
            found["score.bias"] = flat.sum(0)
            total = {name: total.get(name, 0.0) + part for name, part in found.items()}
        return [total[name] for name in self._names]


_RECURRENCE = ("observed.weight", "observed.bias", "recurrent.weight", "recurrent.bias")
