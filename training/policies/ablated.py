"""The flat network with another memory, for ablations: a plain RNN, an LSTM, or none that lasts.

All else is the GRU's: what is seen, head, value, training. It must never be exported: a bundle's
flat network is the GRU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from training.policies.cells import step
from training.policies.gru import Gru, GruSizes, seen_before
from training.record import Record
from training.trust_region import Linearised, differentiated

CELLS = {"lstm": (2, 4), "rnn": (1, 1), "reset": (1, 3)}
"""By name: numbers a unit keeps, and numbers it reads off each input.

`reset` is the GRU whose memory is blank again after every episode, the last interaction forgotten
with it: plain reinforcement learning in place of RL².
"""


class Ablated(Gru):
    """`shared` packs (state, a⁻ one-hot, r⁻, d⁻), as in the GRU."""

    name = "ablated"

    def __init__(self, sizes: GruSizes, cell: str) -> None:
        super().__init__(sizes)
        if cell not in CELLS:
            raise ValueError(f"cell: expected one of {', '.join(CELLS)}, got {cell}")
        self.cell = cell
        kept, read = CELLS[cell]
        H = sizes.hidden
        self.kept = kept * H
        self.observed = nn.Linear(sizes.context + sizes.actions + 2, read * H)
        self.recurrent = nn.Linear(H, read * H)
        with torch.no_grad():
            for gate in self.recurrent.weight.chunk(read):
                nn.init.orthogonal_(gate)
            if cell == "lstm":
                self.recurrent.bias[H : 2 * H] += 1.0  # forget little at first (Gers et al. 2000)

    def blank(self, batch: int, actions: int) -> tuple[Tensor, Tensor]:
        """Shared `[B, S + A + 2]`, all zero, and no rows `[B, K, 0]`."""
        return torch.zeros(batch, self.kept + self.sizes.actions + 2), torch.zeros(
            batch, actions, 0
        )

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
        hidden = self._advance(shared, context)[..., : self.sizes.hidden]
        scores = self.score(hidden).masked_fill(~action_mask, -torch.inf)
        return torch.softmax(scores, -1), self.value_of(hidden)

    def linearised(
        self, records: Sequence[Record], times: Tensor, parameters: Mapping[str, nn.Parameter]
    ) -> Linearised:
        """The logits of these steps, with their derivatives by these parameters."""
        return differentiated(self, (records, times), parameters)

    def _advance(self, shared: Tensor, context: Tensor) -> Tensor:
        """The next state `[B, S]` from a packed memory and the present context."""
        state, before = torch.split(shared, [self.kept, self.sizes.actions + 2], -1)
        return self._fold(state, torch.cat([context, before], -1))

    def _recall(self, record: Record, times: Tensor | None) -> Tensor:
        """h' at each decision, step by step."""
        if record.known is not None:
            raise ValueError("known: expected a task that feeds back at once")
        state = record.reward.new_zeros(record.trials, self.kept)
        hidden = []
        for seen in seen_before(record, self.sizes.actions).unbind(0):
            state = self._fold(state, seen)
            hidden.append(state[..., : self.sizes.hidden])
        chosen = range(record.steps) if times is None else times.tolist()
        return torch.stack([hidden[t] for t in chosen])

    def _fold(self, state: Tensor, seen: Tensor) -> Tensor:
        """The next state `[B, S]`, h' first; seen `[B, C + A + 2]`."""
        H = self.sizes.hidden
        if self.cell == "reset":
            lasting = 1.0 - seen[..., -1:]
            state, before = state * lasting, seen[..., self.sizes.context :] * lasting
            seen = torch.cat([seen[..., : self.sizes.context], before], -1)
        hidden = state[..., :H]
        observed, recurrent = self.observed(seen), self.recurrent(hidden)
        if self.cell == "rnn":
            return torch.tanh(observed + recurrent)
        if self.cell == "lstm":
            write, keep, new, show = (observed + recurrent).chunk(4, -1)
            cell = torch.sigmoid(keep) * state[..., H:] + torch.sigmoid(write) * torch.tanh(new)
            return torch.cat([torch.sigmoid(show) * torch.tanh(cell), cell], -1)
        advanced, _ = step(observed, recurrent, hidden)
        return advanced


class FeedForwardCritic(nn.Module):
    """A critic of the present alone: the interaction before, and what is left. No memory."""

    name = "feed-forward"

    def __init__(self, sizes: GruSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.first = nn.Linear(sizes.context + sizes.actions + 4, sizes.hidden)
        self.second = nn.Linear(sizes.hidden, sizes.hidden)
        self.value = nn.Linear(sizes.hidden, 1)

    def pools(self, records: Sequence[Record], times: Tensor | None = None) -> list[Tensor]:
        """What the value is read from, `[T', B, C + A + 4]` for each record."""
        pools = [
            torch.cat([seen_before(one, self.sizes.actions), one.horizon_left], -1)
            for one in records
        ]
        return pools if times is None else [pool[times] for pool in pools]

    def value_of(self, pool: Tensor) -> Tensor:
        """The value `[...]` read from a pool."""
        inner = torch.tanh(self.second(torch.tanh(self.first(pool))))
        return torch.as_tensor(self.value(inner).squeeze(-1))
