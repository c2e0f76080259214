"""`contextual`: the actionwise network with a belief cell, for any actions and any context.

Its memory rows hold, beside a small recurrent part, the exact state of linear models of the reward
(`linear_belief`) and the statistics of each action's rewards whatever the context (`belief`). The
head never sees a raw context or an action's index: only what the beliefs say of each action. So one
policy serves every order of features and actions. A logit is that of `actionwise`:
sharpness · Σ weight · (posterior mean + deviation · bonus) + score.

The beliefs are fitted by likelihood (`training.likelihood`) and stand still while TRPO trains the
rest, so what they say of a recorded trial is computed once (`recorded`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.policies import belief
from training.policies.belief import Belief
from training.policies.believed import FEATURES, VIEWS, Believed, fold, nothing_yet, read, views
from training.policies.learned_belief import LearnedBelief, LearnedBeliefSizes
from training.policies.linear_belief import BeliefSizes, LinearBelief
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

_LOG_SHARPNESS = (4.5, 6.0)
"""Where the logarithm of the sharpness starts, and what it stays below."""
_FIRST_BONUS = (1.5, 0.0, 2.0, *[0.0] * (belief.VIEWS - 1))
"""Deviations that the first policy adds to the mean of each view: the model's, the one of an
account that changes, and those of the rewards whatever the context."""
_FIRST_WEIGHT = (3.0, 0.0, 3.0, *[0.0] * (belief.VIEWS - 1))
"""Log-odds of each view at first. Of what was tried by hand, the first policy does best on the
family it is trained on: docs/workflow-policies.md."""
_ACCOUNT = 4
"""Noise, two running means of surprise, how likely it is that nothing changes."""
_OBSERVED = 5
"""Reward, done, surprise, what was expected, and how surely."""


@dataclass(frozen=True)
class ContextualSizes:
    """What it takes to build the network again."""

    shared: int = 24
    row: int = 12
    width: int = 48
    context: int = 16
    action_features: int = 4
    actions: int = 0
    """How many there are, where the network is one workflow's and knows which is which; 0: any."""
    features: int = 16
    """Learned features of a workflow's belief."""
    kinds: int = 4
    """Kinds of accounts that a workflow's belief tells apart."""

    def __post_init__(self) -> None:
        if self.shared < 1 or self.row < 1 or self.width < 1 or self.context < 1:
            raise ValueError("shared, row, width and context: expected at least 1 each")
        if self.action_features < 1 and not self.actions:
            raise ValueError("action_features: expected at least 1 where actions may be any")
        if self.actions and not 2 <= self.actions <= MOST_ACTIONS:
            raise ValueError(f"actions: expected 0, or 2 to {MOST_ACTIONS}, got {self.actions}")

    def belief(self) -> LinearBelief | LearnedBelief:
        """New models of the reward."""
        if not self.actions:
            return LinearBelief(BeliefSizes(self.context, self.action_features))
        inputs = self.context + self.action_features + self.actions
        return LearnedBelief(LearnedBeliefSizes(inputs, self.features, self.kinds))


class Contextual(nn.Module):
    """The network. `decide` and `learn` are pure; everything remembered is in their arguments.

    Shared memory: recurrent part, position, state of the linear models. A row: recurrent part,
    statistics, the action's linear model.
    """

    name = "contextual"
    unused_inputs: frozenset[str] = frozenset()

    def __init__(self, sizes: ContextualSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.action_range = (sizes.actions or 2, sizes.actions or MOST_ACTIONS)
        G, H, D = sizes.shared, sizes.row, sizes.width
        self.counts = Belief()
        self.models = sizes.belief()
        self.blank_shared = nn.Parameter(torch.zeros(G))
        self.blank_row = nn.Parameter(torch.zeros(H))
        self.row_observed = nn.Linear(_OBSERVED, 3 * H)
        self.row_from_shared = nn.Linear(G, 3 * H, bias=False)
        self.row_from_row = nn.Linear(H, 3 * H)
        self.shared_observed = nn.Linear(_OBSERVED, 3 * G)
        self.shared_from_new = nn.Linear(H, 3 * G, bias=False)
        self.shared_from_old = nn.Linear(H, 3 * G, bias=False)
        self.shared_from_shared = nn.Linear(G, 3 * G)
        self.embed_row = nn.Linear(H, D, bias=False)
        self.embed_belief = nn.Linear(FEATURES, D, bias=False)
        self.embed_common = nn.Linear(G + _ACCOUNT + 5, D)
        self.score_row = nn.Linear(D, D)
        self.score_pool = nn.Linear(2 * D, D, bias=False)
        self.score = nn.Linear(D, 1, bias=False)
        self.bonus = nn.Linear(D, VIEWS)
        self.steer = nn.Linear(2 * D, 1 + VIEWS)
        self.value_pool = nn.Linear(2 * D, D)
        self.value = nn.Linear(D, 1)
        with torch.no_grad():
            self.bonus.weight.mul_(0.1)
            self.bonus.bias.copy_(torch.tensor(_FIRST_BONUS))
            self.steer.weight.mul_(0.1)
            steer = [_LOG_SHARPNESS[0], *_FIRST_WEIGHT]
            self.steer.bias.copy_(torch.tensor(steer))
            self.score.weight.mul_(0.1)
            self.value.weight.mul_(0.1)
            self.value.bias.zero_()
        begin(self)

    def blank(self, batch: int, actions: int) -> tuple[Tensor, Tensor]:
        """The blank memory of `batch` accounts: shared `[B, G]`, rows `[B, K, H]`."""
        known, own = self.models.blank()
        shared = torch.cat([self.blank_shared, known.new_zeros(1), known])
        row = torch.cat([self.blank_row, own.new_zeros(belief.SIZE), own])
        return shared.expand(batch, -1), row.expand(batch, actions, -1)

    def belief_parameters(self) -> list[nn.Parameter]:
        """What is fitted by likelihood, and stands still while TRPO trains the rest."""
        return [*self.counts.parameters(), *self.models.parameters()]

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
        shared, position, known = self._split_shared(shared)
        rows, statistics, own = self._split_rows(rows)
        now = Believed(self._described(action_features), known, own, statistics, position)
        reading = read(self.models, self.counts, now, context)
        told = torch.cat([shared, self._account(known)], -1)
        embedded = self._embed(self.embed_row(rows), reading, told, action_mask, horizon_left)
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
        served = action[:, None, None]
        row = rows.gather(1, served.expand(-1, 1, rows.shape[2])).squeeze(1)
        described = self._described(action_features)
        wide = served.expand(-1, 1, described.shape[2])
        described = described.gather(1, wide).squeeze(1)
        shared, before, known = self._split_shared(shared)
        old, statistics, own = self._split_rows(row)
        known, own, seen, _ = self.models.update(known, own, context, reward, described)
        position = before + 1.0
        statistics = self.counts.update(statistics, reward, position)
        observed = torch.cat([reward[:, None], done[:, None], seen], -1)
        new, next_shared = advance(self, observed, observed, old, shared)
        row = torch.cat([new, statistics, own], -1)
        return (
            torch.cat([next_shared, position[:, None], known], -1),
            rows.scatter(1, served.expand(-1, 1, rows.shape[2]), row[:, None]),
        )

    def surprise(self, record: Record) -> Tensor:
        """Mean negative log-likelihood of a record's rewards before they were learned."""
        B, K = record.trials, record.action_features.shape[1]
        known, own = self.models.blank()
        known, own = known.expand(B, -1), own.expand(B, K, -1)
        each = torch.arange(B)
        everything = self._described(record.action_features)
        losses = []
        for t in range(record.steps):
            action = record.action[t]
            served = action[:, None, None].expand(-1, 1, own.shape[2])
            described = everything[each, action]
            known, row, _, loss = self.models.update(
                known, own.gather(1, served)[:, 0], record.context[t], record.reward[t], described
            )
            own = own.scatter(1, served, row[:, None])
            losses.append(loss.mean())
        return torch.stack(losses).mean()

    @torch.no_grad()
    def recorded(self, record: Record) -> Record:
        """The record with what the beliefs say before every decision and of every interaction."""
        now = nothing_yet(self.models, self._described(record.action_features))
        readings: list[Tensor] = []
        accounts: list[Tensor] = []
        seen: list[Tensor] = []

        def learn_until(position: int) -> None:
            ahead = range(len(seen), position)
            seen.extend(fold(self.models, self.counts, now, record, t) for t in ahead)

        for t in range(record.steps):
            learn_until(t if record.known is None else int(record.known[t]))
            readings.append(read(self.models, self.counts, now, record.context[t]))
            accounts.append(self._account(now.known))
        learn_until(record.steps)
        return replace(
            record,
            reading=torch.stack(readings),
            account=torch.stack(accounts),
            seen=torch.stack(seen),
        )

    def logits(self, records: Sequence[Record], times: Tensor | None = None) -> list[Tensor]:
        """Log-probabilities up to a constant, `[T', B, K]` for each record."""
        return [
            self._logits(embedded, reading, pool(embedded, mask), mask)
            for embedded, reading, mask in self._recall(records, times)
        ]

    forward = logits

    def linearised(
        self, records: Sequence[Record], times: Tensor, parameters: Mapping[str, nn.Parameter]
    ) -> Linearised:
        """The logits of these steps, with their derivatives by these parameters."""
        return differentiated(self, (records, times), parameters)

    def pools(self, records: Sequence[Record], times: Tensor | None = None) -> list[Tensor]:
        """What the value is read from, `[T', B, 2D]` for each record."""
        return [pool(embedded, mask) for embedded, _, mask in self._recall(records, times)]

    def value_of(self, pool: Tensor) -> Tensor:
        """The value `[...]` read from a pool `[..., 2D]`."""
        return torch.as_tensor(self.value(torch.tanh(self.value_pool(pool))).squeeze(-1))

    def value_parameters(self) -> list[nn.Parameter]:
        """The value head alone: trained apart from the policy, by regression."""
        return [*self.value_pool.parameters(), *self.value.parameters()]

    def _split_shared(self, shared: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        G = self.sizes.shared
        return shared[:, :G], shared[:, G], shared[:, G + 1 :]

    def _split_rows(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        H = self.sizes.row
        return (
            rows[..., :H],
            rows[..., H : H + belief.SIZE],
            rows[..., H + belief.SIZE :],
        )

    def _described(self, action_features: Tensor) -> Tensor:
        """Actions as the models see them `[B, K, F]`: by name too, where names are known."""
        if not self.sizes.actions:
            return action_features
        names = torch.eye(self.sizes.actions).expand(action_features.shape[0], -1, -1)
        return torch.cat([action_features, names], -1)

    def _account(self, known: Tensor) -> Tensor:
        """What the beliefs say of the account, `[B, _ACCOUNT]`."""
        told: Tensor = self.models.account(known)
        return told

    def _recall(
        self, records: Sequence[Record], times: Tensor | None
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Embeddings `[T', B, K, D]`, readings and masks, for each record."""
        written = [last_written(one.action, one.action_features.shape[1]) for one in records]
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
    ) -> tuple[Tensor, Tensor, Tensor]:
        if record.reading is None or record.account is None:
            raise ValueError("reading: expected a record that the network's beliefs have read")
        horizon, reading, account = record.horizon_left, record.reading, record.account
        mask = record.action_mask
        if mask.dim() == 2:
            mask = mask.expand(record.steps, *mask.shape)
        if (learned := record.learned(times)) is not None:
            written, shared = written[learned], shared[learned]
        if times is not None:
            horizon, reading, account = horizon[times], reading[times], account[times]
            mask = mask[times]
        told = torch.cat([shared, account], -1)
        embedded = self._embed(present(projected, written), reading, told, mask, horizon)
        return embedded, reading, mask

    def _memories(
        self, records: Sequence[Record], written: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Recurrent rows as written `[T+1, ΣB, H]` and shared part `[T+1, ΣB, G]`."""
        observed = []
        for one in records:
            if one.seen is None:
                raise ValueError("seen: expected a record that the network's beliefs have read")
            outcome = torch.stack([one.reward, one.done], -1)
            observed.append(torch.cat([outcome, one.seen], -1))
        whole = torch.cat(observed, 1)
        return memories(self, whole, whole, records, written)

    def _embed(
        self,
        projected: Tensor,
        reading: Tensor,
        told: Tensor,
        action_mask: Tensor,
        horizon_left: Tensor,
    ) -> Tensor:
        """Embeddings `[..., K, D]` from recurrent rows already projected to `[..., K, D]`."""
        known = [told, horizon_left, how_many(action_mask), urgency(horizon_left)]
        common = torch.cat(known, -1)
        return torch.tanh(
            projected + self.embed_belief(reading) + self.embed_common(common).unsqueeze(-2)
        )

    def _logits(
        self, embedded: Tensor, reading: Tensor, pooled: Tensor, action_mask: Tensor
    ) -> Tensor:
        inner = torch.tanh(self.score_row(embedded) + self.score_pool(pooled).unsqueeze(-2))
        scores = functional.linear(inner, self.score.weight).squeeze(-1)
        mean, deviation = views(reading)
        steer, bonus = self.steer(pooled), self.bonus(inner)
        scores = scores + index(steer, mean, deviation, bonus, _LOG_SHARPNESS[1])
        masked: Tensor = scores.masked_fill(~action_mask, -torch.inf)
        return masked
