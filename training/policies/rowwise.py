"""What networks with a memory row an action share: two cells, and a head that compares the rows.

One cell writes the served action's row, the other the shared part; the head pools what the actions
were embedded as, and scores each by an index: mean + deviation · bonus. It must never see an
action's index.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from contract.encode import LONGEST_HORIZON
from training.policies.cells import step
from training.policies.same_bits import dot, softplus
from training.policies.sequence import RowMemory
from training.record import Record

MOST_ACTIONS = 50


class Cells(Protocol):
    """The weights of both cells, as a network names them."""

    blank_shared: nn.Parameter
    blank_row: nn.Parameter
    row_observed: nn.Linear
    row_from_shared: nn.Linear
    row_from_row: nn.Linear
    shared_observed: nn.Linear
    shared_from_new: nn.Linear
    shared_from_old: nn.Linear
    shared_from_shared: nn.Linear


@torch.no_grad()
def begin(cells: Cells) -> None:
    """First weights of what a memory goes through: orthogonal, and inclined to keep what it is."""
    for cell in (cells.row_from_row, cells.shared_from_shared):
        size = cell.in_features
        for gate in cell.weight.chunk(3):
            nn.init.orthogonal_(gate)
        cell.bias[size : 2 * size] = 1.0


def advance(
    cells: Cells, of_row: Tensor, of_shared: Tensor, old: Tensor, shared: Tensor
) -> tuple[Tensor, Tensor]:
    """The served row `[B, H]` and the shared part `[B, G]` after one interaction.

    `of_row` and `of_shared` are what each cell observes of it.
    """
    new, _ = step(
        cells.row_observed(of_row) + cells.row_from_shared(shared), cells.row_from_row(old), old
    )
    into = cells.shared_observed(of_shared)
    next_shared, _ = step(
        into + cells.shared_from_new(new) + cells.shared_from_old(old),
        cells.shared_from_shared(shared),
        shared,
    )
    return new, next_shared


def memories(
    cells: Cells,
    of_row: Tensor,
    of_shared: Tensor,
    records: Sequence[Record],
    written: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:
    """Rows as written `[T+1, ΣB, H]` and the shared part `[T+1, ΣB, G]` of recorded trials.

    What the cells observe of them is side by side, `[T, ΣB, …]`; `written` as
    `sequence.last_written` gives it.
    """
    previous = [
        when.gather(2, one.action[..., None]).squeeze(-1)
        for one, when in zip(records, written, strict=True)
    ]
    rows, shared = RowMemory.apply(  # type: ignore[no-untyped-call]
        cells.row_observed(of_row),
        cells.shared_observed(of_shared),
        cells.row_from_shared.weight,
        cells.row_from_row.weight,
        cells.row_from_row.bias,
        cells.shared_from_new.weight,
        cells.shared_from_old.weight,
        cells.shared_from_shared.weight,
        cells.shared_from_shared.bias,
        cells.blank_row,
        cells.blank_shared,
        torch.cat(previous, 1),
    )
    return rows, shared


def present(rows: Tensor, written: Tensor) -> Tensor:
    """Every action's row `[T', B, K, …]` of rows as written `[T+1, B, …]`, by when each was."""
    trials = written.shape[1]
    at = written * trials + torch.arange(trials)[:, None]
    return rows.flatten(0, 1).index_select(0, at.flatten()).view(*at.shape, -1)


def how_many(action_mask: Tensor) -> Tensor:
    """How many actions are allowed, on a log scale, `[..., 1]`."""
    count = action_mask.sum(-1, keepdim=True).float()
    return torch.log(count) / math.log(MOST_ACTIONS)


def urgency(horizon_left: Tensor) -> Tensor:
    """1 / (1 + left) and its root `[..., 2]`: with few interactions left every one counts.

    The last column is log(1 + left) in the unit of `contract.encode.horizon_left`.
    """
    root = torch.exp(-0.5 * math.log1p(LONGEST_HORIZON) * horizon_left[..., 1:])
    return torch.cat([root * root, root], -1)


def pool(embedded: Tensor, action_mask: Tensor) -> Tensor:
    """Mean and maximum over the actions allowed, `[..., 2D]`; embeddings lie in (−1, 1)."""
    if not torch.compiler.is_exporting() and bool(action_mask.all()):
        return torch.cat([embedded.mean(-2), embedded.amax(-2)], -1)
    allowed = action_mask.unsqueeze(-1)
    count = action_mask.sum(-1, keepdim=True).to(embedded.dtype)
    mean = embedded.masked_fill(~allowed, 0.0).sum(-2) / count
    return torch.cat([mean, embedded.masked_fill(~allowed, -1.0).amax(-2)], -1)


def index(
    steer: Tensor, mean: Tensor, deviation: Tensor, bonus: Tensor, log_sharpest: float
) -> Tensor:
    """sharpness · Σ weight · (mean + deviation · bonus), `[..., K]`, of views `[..., K, V]`.

    `steer` `[..., 1 + V]` is the logarithm of the sharpness, which stays below `log_sharpest`, and
    the log-odds of the weights.
    """
    sharpness = torch.exp(log_sharpest - softplus(log_sharpest - steer[..., :1]))
    weight = torch.softmax(steer[..., 1:], -1).unsqueeze(-2)
    return sharpness * dot(weight, mean + deviation * bonus)
