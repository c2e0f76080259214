"""`actionwise`: one memory row an action, one GRU for all of them, any number of actions.

The flagship network. Permutation-equivariant over actions; `learn` touches the served action's row
and the shared part alone, bit for bit. It must never see an action's index.

With `belief`, a row also holds the exact statistics of its action's reward, and the shared part the
position; a logit is then sharpness · Σ weight · (posterior mean + deviation · bonus) + score, where
bonus and score are read from the row, and sharpness and weights from the pool. An index policy is
one setting of that, so exploration is what is left to learn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.policies.belief import FEATURES, SIZE, VIEWS, Belief, Reading
from training.policies.rowwise import (
    MOST_ACTIONS,
    advance,
    begin,
    how_many,
    index,
    memories,
    pool,
    present,
    urgency,
)
from training.policies.sequence import last_written
from training.record import Record
from training.trust_region import Linearised, differentiated

_MEMORY_FLOATS = 480
_BELIEF_FLOATS = 152

_LOG_SHARPNESS = (2.0, 6.0)
"""Where the logarithm of the sharpness starts, and what it stays below: probabilities of torch and
onnxruntime drift apart in proportion."""


@dataclass(frozen=True)
class ActionwiseSizes:
    """What it takes to build the network again."""

    shared: int = 32
    row: int = 32
    width: int = 48
    context: int = 0
    action_features: int = 0
    belief: bool = False
    """Whether rows hold the statistics of their action's reward beside the recurrent part."""

    def __post_init__(self) -> None:
        if self.shared < 1 or self.row < 1 or self.width < 1:
            raise ValueError("shared, row and width: expected at least 1 each")
        shared, row = self.shared_floats, self.row_floats
        if 8 * row + shared + _BELIEF_FLOATS > _MEMORY_FLOATS:
            raise ValueError(
                f"shared and row: expected 8·row + shared + {_BELIEF_FLOATS} to be at most "
                f"{_MEMORY_FLOATS} floats (a memory of 8 actions in 2 KB), "
                f"got row {row} and shared {shared}"
            )

    @property
    def shared_floats(self) -> int:
        """The shared part, position included where there is one."""
        return self.shared + int(self.belief)

    @property
    def row_floats(self) -> int:
        """A row, statistics included where there are some."""
        return self.row + SIZE * int(self.belief)


Recalled = tuple[Tensor, Reading | None]
"""Embeddings `[T', B, K, D]`, and what the belief says of the same actions."""


class Actionwise(nn.Module):
    """The network. `decide` and `learn` are pure; everything remembered is in their arguments."""

    name = "actionwise"
    action_range = (2, MOST_ACTIONS)
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
        self.embed_common = nn.Linear(G + 3 + 2 * int(sizes.belief) + sizes.context, D)
        self.score_row = nn.Linear(D, D)
        self.score_pool = nn.Linear(2 * D, D, bias=False)
        self.score = nn.Linear(D, 1, bias=False)
        self.value_pool = nn.Linear(2 * D, D)
        self.value = nn.Linear(D, 1)
        if sizes.belief:
            self.belief = Belief()
            self.embed_belief = nn.Linear(FEATURES, D, bias=False)
            self.bonus = nn.Linear(D, VIEWS)
            self.steer = nn.Linear(2 * D, 1 + VIEWS)
        with torch.no_grad():
            if sizes.belief:
                self.bonus.weight.mul_(0.1)
                self.bonus.bias.zero_()
                self.steer.weight.mul_(0.1)
                self.steer.bias.copy_(torch.tensor([_LOG_SHARPNESS[0], 1.0, *[0.0] * (VIEWS - 1)]))
            self.score.weight.mul_(0.1)
            self.value.weight.mul_(0.1)
            self.value.bias.zero_()
        begin(self)

    def blank(self, batch: int, actions: int) -> tuple[Tensor, Tensor]:
        """The blank memory of `batch` accounts: shared `[B, G]`, rows `[B, K, H]`."""
        shared: Tensor = self.blank_shared
        row: Tensor = self.blank_row
        if self.sizes.belief:
            shared = torch.cat([shared, shared.new_zeros(1)])
            row = torch.cat([row, row.new_zeros(SIZE)])
        return shared.expand(batch, -1), row.expand(batch, actions, -1)

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
        reading = None
        if self.sizes.belief:
            shared, position = shared[:, :-1], shared[:, -1]
            rows, statistics = torch.split(rows, [self.sizes.row, SIZE], -1)
            reading = self.belief.read(self.belief.now(statistics, position))
        embedded = self._embed(
            self.embed_row(rows),
            reading,
            shared,
            context,
            action_mask,
            horizon_left,
            action_features,
        )
        pooled = pool(embedded, action_mask)
        logits = self._logits(embedded, reading, pooled, action_mask)
        return torch.softmax(logits, -1), self.value_of(pooled)

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
        if self.sizes.belief:
            shared, before = shared[:, :-1], shared[:, -1]
            old, statistics = torch.split(old, [self.sizes.row, SIZE], -1)
        observed = [seen, context]
        if self.sizes.action_features:
            wide = served.expand(-1, 1, action_features.shape[2])
            observed.append(action_features.gather(1, wide).squeeze(1))
        of_row, of_shared = torch.cat(observed, -1), torch.cat([seen, context], -1)
        new, next_shared = advance(self, of_row, of_shared, old, shared)
        if self.sizes.belief:
            position = before + 1.0
            next_shared = torch.cat([next_shared, position[:, None]], -1)
            new = torch.cat([new, self.belief.update(statistics, reward, position)], -1)
        return next_shared, rows.scatter(1, served.expand(-1, 1, rows.shape[2]), new[:, None])

    def logits(self, records: Sequence[Record], times: Tensor | None = None) -> list[Tensor]:
        """Log-probabilities up to a constant, `[T', B, K]` for each record.

        The records are of one length; `times` int64 `[T']` are the steps wanted, all by default.
        """
        return [
            self._logits(embedded, reading, pool(embedded, record.action_mask), record.action_mask)
            for record, (embedded, reading) in zip(
                records, self._recall(records, times), strict=True
            )
        ]

    forward = logits

    def linearised(
        self, records: Sequence[Record], times: Tensor, parameters: Mapping[str, nn.Parameter]
    ) -> Linearised:
        """The logits of these steps, with their derivatives by these parameters."""
        return differentiated(self, (records, times), parameters)

    def pools(self, records: Sequence[Record], times: Tensor | None = None) -> list[Tensor]:
        """What the value is read from, `[T', B, 2D]` for each record."""
        return [
            pool(embedded, record.action_mask)
            for record, (embedded, _) in zip(records, self._recall(records, times), strict=True)
        ]

    def value_of(self, pool: Tensor) -> Tensor:
        """The value `[...]` read from a pool `[..., 2D]`."""
        return torch.as_tensor(self.value(torch.tanh(self.value_pool(pool))).squeeze(-1))

    def value_parameters(self) -> list[nn.Parameter]:
        """The value head alone: trained apart from the policy, by regression."""
        return [*self.value_pool.parameters(), *self.value.parameters()]

    def _recall(self, records: Sequence[Record], times: Tensor | None) -> list[Recalled]:
        """Every action's embedding `[T', B, K, D]`, and the belief's reading, for each record.

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
    ) -> Recalled:
        reading = None
        if self.sizes.belief:
            reading = self.belief.read(self.belief.replay(record, written, times))
        context, horizon = record.context, record.horizon_left
        if (learned := record.learned(times)) is not None:
            written, shared = written[learned], shared[learned]
        if times is not None:
            context, horizon = context[times], horizon[times]
        embedded = self._embed(
            present(projected, written),
            reading,
            shared,
            context,
            record.action_mask,
            horizon,
            record.action_features,
        )
        return embedded, reading

    def _memories(
        self, records: Sequence[Record], written: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Rows as written `[T+1, ΣB, H]` and the shared part `[T+1, ΣB, G]`."""
        seen = torch.cat([torch.stack([one.reward, one.done], -1) for one in records], 1)
        context = torch.cat([one.context for one in records], 1)
        observed = [seen, context]
        if self.sizes.action_features:
            of_served = [
                one.action_features[torch.arange(one.trials), one.action] for one in records
            ]
            observed.append(torch.cat(of_served, 1))
        return memories(
            self, torch.cat(observed, -1), torch.cat([seen, context], -1), records, written
        )

    def _embed(
        self,
        projected: Tensor,
        reading: Reading | None,
        shared: Tensor,
        context: Tensor,
        action_mask: Tensor,
        horizon_left: Tensor,
        action_features: Tensor,
    ) -> Tensor:
        """Embeddings `[..., K, D]` from rows already projected to `[..., K, D]`."""
        count = how_many(action_mask).expand(*shared.shape[:-1], 1)
        told = [shared, horizon_left, count, context]
        if self.sizes.belief:
            told.append(urgency(horizon_left))
        common = self.embed_common(torch.cat(told, -1))
        before = projected + common.unsqueeze(-2)
        if reading is not None:
            before = before + self.embed_belief(reading.features)
        if self.sizes.action_features:
            before = before + self.embed_features(action_features)
        return torch.tanh(before)

    def _logits(
        self, embedded: Tensor, reading: Reading | None, pooled: Tensor, action_mask: Tensor
    ) -> Tensor:
        inner = torch.tanh(self.score_row(embedded) + self.score_pool(pooled).unsqueeze(-2))
        scores = functional.linear(inner, self.score.weight).squeeze(-1)
        if reading is not None:
            scores = scores + index(
                self.steer(pooled),
                reading.mean,
                reading.deviation,
                self.bonus(inner),
                _LOG_SHARPNESS[1],
            )
        return scores.masked_fill(~action_mask, -torch.inf)
