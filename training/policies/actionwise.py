"""`actionwise`: one memory row an action, one GRU for all of them, any number of actions.

The flagship network. Permutation-equivariant over actions; `learn` touches the served action's row
and the shared part alone, bit for bit. It must never see an action's index.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.policies.cells import step
from training.policies.sequence import RowMemory, last_written
from training.record import Record
from training.trust_region import Differentiated, Linearised

_MEMORY_FLOATS = 480
_BELIEF_FLOATS = 152
_MOST_ACTIONS = 50


@dataclass(frozen=True)
class ActionwiseSizes:
    """What it takes to build the network again."""

    shared: int = 32
    row: int = 32
    width: int = 48
    context: int = 0
    action_features: int = 0

    def __post_init__(self) -> None:
        if self.shared < 1 or self.row < 1 or self.width < 1:
            raise ValueError("shared, row and width: expected at least 1 each")
        if 8 * self.row + self.shared + _BELIEF_FLOATS > _MEMORY_FLOATS:
            raise ValueError(
                f"shared and row: expected 8·row + shared + {_BELIEF_FLOATS} to be at most "
                f"{_MEMORY_FLOATS} floats (a memory of 8 actions in 2 KB), "
                f"got row {self.row} and shared {self.shared}"
            )


class Actionwise(nn.Module):
    """The network. `decide` and `learn` are pure; everything remembered is in their arguments."""

    name = "actionwise"
    action_range = (2, _MOST_ACTIONS)
    unused_inputs: frozenset[str] = frozenset()

    def __init__(self, sizes: ActionwiseSizes) -> None:
        super().__init__()
        self.sizes = sizes
        G, H, D = sizes.shared, sizes.row, sizes.width
        observed = 2 + sizes.context + sizes.action_features
        self.blank_shared = nn.Parameter(torch.zeros(G))
        self.blank_row = nn.Parameter(torch.zeros(H))
        self.row_observed = nn.Linear(observed, 3 * H)
        self.row_from_shared = nn.Linear(G, 3 * H, bias=False)
        self.row_from_row = nn.Linear(H, 3 * H)
        self.shared_observed = nn.Linear(2 + sizes.context, 3 * G)
        self.shared_from_new = nn.Linear(H, 3 * G, bias=False)
        self.shared_from_old = nn.Linear(H, 3 * G, bias=False)
        self.shared_from_shared = nn.Linear(G, 3 * G)
        self.embed_row = nn.Linear(H, D, bias=False)
        if sizes.action_features:
            self.embed_features = nn.Linear(sizes.action_features, D, bias=False)
        self.embed_common = nn.Linear(G + 3 + sizes.context, D)
        self.score_row = nn.Linear(D, D)
        self.score_pool = nn.Linear(2 * D, D, bias=False)
        self.score = nn.Linear(D, 1, bias=False)
        self.value_pool = nn.Linear(2 * D, D)
        self.value = nn.Linear(D, 1)
        with torch.no_grad():
            self.score.weight.mul_(0.1)
            self.value.weight.mul_(0.1)
            self.value.bias.zero_()
            for cell in (self.row_from_row, self.shared_from_shared):
                size = cell.in_features
                for gate in cell.weight.chunk(3):
                    nn.init.orthogonal_(gate)
                cell.bias[size : 2 * size] = 1.0

    def blank(self, batch: int, actions: int) -> tuple[Tensor, Tensor]:
        """The blank memory of `batch` accounts: shared `[B, G]`, rows `[B, K, H]`."""
        return self.blank_shared.expand(batch, -1), self.blank_row.expand(batch, actions, -1)

    def decide(
        self,
        shared: Tensor,
        rows: Tensor,
        context: Tensor,
        action_mask: Tensor,
        horizon_left: Tensor,
        action_features: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Probabilities `[B, K]`, exactly 0 where masked, and value `[B]`. Writes nothing."""
        embedded = self._embed(
            self.embed_row(rows), shared, context, action_mask, horizon_left, action_features
        )
        pool = _pool(embedded, action_mask)
        logits = self._logits(embedded, pool, action_mask)
        return torch.softmax(logits, -1), self.value_of(pool)

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
        """The memory with one interaction folded in; only the served action's row is written."""
        seen = torch.stack([reward, done], -1)
        served = action[:, None, None]
        old = rows.gather(1, served.expand(-1, 1, rows.shape[2])).squeeze(1)
        observed = [seen, context]
        if self.sizes.action_features:
            wide = served.expand(-1, 1, action_features.shape[2])
            observed.append(action_features.gather(1, wide).squeeze(1))
        new, _ = step(
            self.row_observed(torch.cat(observed, -1)) + self.row_from_shared(shared),
            self.row_from_row(old),
            old,
        )
        into = self.shared_observed(torch.cat([seen, context], -1))
        next_shared, _ = step(
            into + self.shared_from_new(new) + self.shared_from_old(old),
            self.shared_from_shared(shared),
            shared,
        )
        return next_shared, rows.scatter(1, served.expand(-1, 1, rows.shape[2]), new[:, None])

    def logits(self, records: Sequence[Record], times: Tensor | None = None) -> list[Tensor]:
        """Log-probabilities up to a constant, `[T', B, K]` for each record.

        The records are of one length; `times` int64 `[T']` are the steps wanted, all by default.
        """
        return [
            self._logits(embedded, _pool(embedded, record.action_mask), record.action_mask)
            for record, embedded in zip(records, self._recall(records, times), strict=True)
        ]

    forward = logits

    def linearised(
        self, records: Sequence[Record], times: Tensor, parameters: Mapping[str, nn.Parameter]
    ) -> Linearised:
        """The logits of these steps, with their derivatives by these parameters."""

        def logits(named: Mapping[str, Tensor]) -> list[Tensor]:
            called: list[Tensor] = torch.func.functional_call(self, dict(named), (records, times))
            return called

        return Differentiated(logits, parameters)

    def pools(self, records: Sequence[Record], times: Tensor | None = None) -> list[Tensor]:
        """What the value is read from, `[T', B, 2D]` for each record."""
        return [
            _pool(embedded, record.action_mask)
            for record, embedded in zip(records, self._recall(records, times), strict=True)
        ]

    def value_of(self, pool: Tensor) -> Tensor:
        """The value `[...]` read from a pool `[..., 2D]`."""
        return torch.as_tensor(self.value(torch.tanh(self.value_pool(pool))).squeeze(-1))

    def value_parameters(self) -> list[nn.Parameter]:
        """The value head alone: trained apart from the policy, by regression."""
        return [*self.value_pool.parameters(), *self.value.parameters()]

    def _recall(self, records: Sequence[Record], times: Tensor | None) -> list[Tensor]:
        """Every action's embedding `[T', B, K, D]` for each record.

        A memory does not depend on how many actions there are, so records of different K share
        one pass through time.
        """
        written = [last_written(one.action, one.action_mask.shape[1]) for one in records]
        rows, shared = self._memories(records, written)
        sizes = [one.trials for one in records]
        projected = torch.split(self.embed_row(rows), sizes, 1)
        parts = zip(records, written, projected, torch.split(shared[:-1], sizes, 1), strict=True)
        return [self._recall_one(*part, times) for part in parts]

    def _recall_one(
        self,
        record: Record,
        written: Tensor,
        projected: Tensor,
        shared: Tensor,
        times: Tensor | None,
    ) -> Tensor:
        context, horizon = record.context, record.horizon_left
        if (learned := record.learned(times)) is not None:
            written, shared = written[learned], shared[learned]
        if times is not None:
            context, horizon = context[times], horizon[times]
        at = written * record.trials + torch.arange(record.trials)[:, None]
        found = projected.flatten(0, 1).index_select(0, at.flatten())
        return self._embed(
            found.view(*at.shape, -1),
            shared,
            context,
            record.action_mask,
            horizon,
            record.action_features,
        )

    def _memories(
        self, records: Sequence[Record], written: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Rows as written `[T+1, ΣB, H]` and the shared part `[T+1, ΣB, G]`."""
        previous = [
            when.gather(2, one.action[..., None]).squeeze(-1)
            for one, when in zip(records, written, strict=True)
        ]
        seen = torch.cat([torch.stack([one.reward, one.done], -1) for one in records], 1)
        context = torch.cat([one.context for one in records], 1)
        observed = [seen, context]
        if self.sizes.action_features:
            of_served = [
                one.action_features[torch.arange(one.trials), one.action] for one in records
            ]
            observed.append(torch.cat(of_served, 1))
        rows, shared = RowMemory.apply(  # type: ignore[no-untyped-call]
            self.row_observed(torch.cat(observed, -1)),
            self.shared_observed(torch.cat([seen, context], -1)),
            self.row_from_shared.weight,
            self.row_from_row.weight,
            self.row_from_row.bias,
            self.shared_from_new.weight,
            self.shared_from_old.weight,
            self.shared_from_shared.weight,
            self.shared_from_shared.bias,
            self.blank_row,
            self.blank_shared,
            torch.cat(previous, 1),
        )
        return rows, shared

    def _embed(
        self,
        projected: Tensor,
        shared: Tensor,
        context: Tensor,
        action_mask: Tensor,
        horizon_left: Tensor,
        action_features: Tensor,
    ) -> Tensor:
        """Embeddings `[..., K, D]` from rows already projected to `[..., K, D]`."""
        count = action_mask.sum(-1, keepdim=True).to(projected.dtype)
        count = (torch.log(count) / math.log(_MOST_ACTIONS)).expand(*shared.shape[:-1], 1)
        common = self.embed_common(torch.cat([shared, horizon_left, count, context], -1))
        before = projected + common.unsqueeze(-2)
        if self.sizes.action_features:
            before = before + self.embed_features(action_features)
        return torch.tanh(before)

    def _logits(self, embedded: Tensor, pool: Tensor, action_mask: Tensor) -> Tensor:
        inner = torch.tanh(self.score_row(embedded) + self.score_pool(pool).unsqueeze(-2))
        scores = functional.linear(inner, self.score.weight).squeeze(-1)
        return scores.masked_fill(~action_mask, -torch.inf)


def _pool(embedded: Tensor, action_mask: Tensor) -> Tensor:
    """Mean and maximum over the actions allowed, `[..., 2D]`; embeddings lie in (−1, 1)."""
    allowed = action_mask.unsqueeze(-1)
    count = action_mask.sum(-1, keepdim=True).to(embedded.dtype)
    mean = embedded.masked_fill(~allowed, 0.0).sum(-2) / count
    return torch.cat([mean, embedded.masked_fill(~allowed, -1.0).amax(-2)], -1)
