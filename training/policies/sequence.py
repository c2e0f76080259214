"""The memories of a recorded trial, all steps at once, with hand-written derivatives.

Rows of actions that were not served are never copied: a row is found by when it was last written.
Must give what `learn` gives step by step; the tests hold it to that, and to gradcheck.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from training.policies.cells import Gates, step, step_forward, step_reverse


def last_written(action: Tensor, actions: int) -> Tensor:
    """When each row was last written before step t, counted from 1, 0 for never: `[T, B, K]`.

    action int64 `[T, B]`. The answer indexes axis 0 of the rows that `RowMemory` returns.
    """
    steps, batch = action.shape
    written = torch.zeros(steps + 1, batch, actions, dtype=torch.int64)
    when = torch.arange(1, steps + 1)[:, None].expand(steps, batch)
    written[1:].scatter_(2, action[..., None], when[..., None])
    return torch.cummax(written, 0).values[:-1]


class RowMemory(torch.autograd.Function):
    """(rows `[T+1, B, H]`, shared `[T+1, B, G]`) over a trial; index 0 is the blank memory.

    rows[t + 1] is the row written at step t, shared[t + 1] the shared part after it. Inputs:
    the two cells' projections of what was observed, `row_input` `[T, B, 3H]` and `shared_input`
    `[T, B, 3G]` with their input biases; the two cells' weights; `previous` int64 `[T, B]`,
    where in axis 0 the served action's row is found.
    """

    @staticmethod
    def forward(
        ctx: Any,
        row_input: Tensor,
        shared_input: Tensor,
        row_from_shared: Tensor,
        row_from_row: Tensor,
        row_bias: Tensor,
        shared_from_new: Tensor,
        shared_from_old: Tensor,
        shared_from_shared: Tensor,
        shared_bias: Tensor,
        blank_row: Tensor,
        blank_shared: Tensor,
        previous: Tensor,
    ) -> tuple[Tensor, Tensor]:
        steps, batch, _ = row_input.shape
        H, G = blank_row.shape[0], blank_shared.shape[0]
        rows = row_input.new_empty(steps + 1, batch, H)
        shared = row_input.new_empty(steps + 1, batch, G)
        rows[0], shared[0] = blank_row, blank_shared
        flat = rows.view(-1, H)
        places = _places(previous)
        tape: list[tuple[Tensor, Gates, Gates]] = []
        for t in range(steps):
            old = flat.index_select(0, places[t])
            rows[t + 1], row_gates = step(
                torch.addmm(row_input[t], shared[t], row_from_shared.T),
                torch.addmm(row_bias, old, row_from_row.T),
                old,
            )
            into = torch.addmm(shared_input[t], rows[t + 1], shared_from_new.T)
            shared[t + 1], shared_gates = step(
                torch.addmm(into, old, shared_from_old.T),
                torch.addmm(shared_bias, shared[t], shared_from_shared.T),
                shared[t],
            )
            tape.append((old, row_gates, shared_gates))
        weights = (
            row_from_shared,
            row_from_row,
            shared_from_new,
            shared_from_old,
            shared_from_shared,
        )
        ctx.tape, ctx.places = tape, places
        ctx.save_for_backward(rows, shared, *weights)
        ctx.save_for_forward(rows, shared, *weights)
        return rows, shared

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, shared, *weights = ctx.saved_tensors
        row_from_shared, row_from_row, from_new, from_old, from_shared = weights
        steps, batch = rows.shape[0] - 1, rows.shape[1]
        H, G = rows.shape[2], shared.shape[2]
        grad_rows = grads[0].clone()
        flat = grad_rows.view(-1, H)
        grad_shared = grads[1]
        into_row = rows.new_empty(steps, batch, 3 * H)
        into_row_hidden = rows.new_empty(steps, batch, 3 * H)
        into_shared = rows.new_empty(steps, batch, 3 * G)
        into_shared_hidden = rows.new_empty(steps, batch, 3 * G)
        carried = torch.zeros_like(shared[0])
        for t in reversed(range(steps)):
            old, row_gates, shared_gates = ctx.tape[t]
            into_shared[t], into_shared_hidden[t], carried = step_reverse(
                grad_shared[t + 1] + carried, shared[t], shared_gates
            )
            carried = torch.addmm(carried, into_shared_hidden[t], from_shared)
            grad_new = torch.addmm(grad_rows[t + 1], into_shared[t], from_new)
            into_row[t], into_row_hidden[t], grad_old = step_reverse(grad_new, old, row_gates)
            carried = torch.addmm(carried, into_row[t], row_from_shared)
            grad_old = torch.addmm(grad_old, into_row_hidden[t], row_from_row)
            grad_old = torch.addmm(grad_old, into_shared[t], from_old)
            # Places differ between trials, so a copy adds; index_add_ would be ten times slower.
            place = ctx.places[t]
            flat.index_copy_(0, place, grad_old.add_(flat.index_select(0, place)))
        olds = torch.cat([old for old, _, _ in ctx.tape])
        before = shared[:-1].reshape(-1, G)
        flat_row, flat_row_hidden = into_row.view(-1, 3 * H), into_row_hidden.view(-1, 3 * H)
        flat_shared = into_shared.view(-1, 3 * G)
        flat_shared_hidden = into_shared_hidden.view(-1, 3 * G)
        return (
            into_row,
            into_shared,
            flat_row.T @ before,
            flat_row_hidden.T @ olds,
            flat_row_hidden.sum(0),
            flat_shared.T @ rows[1:].reshape(-1, H),
            flat_shared.T @ olds,
            flat_shared_hidden.T @ before,
            flat_shared_hidden.sum(0),
            grad_rows[0].sum(0),
            (grad_shared[0] + carried).sum(0),
            None,
        )

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, Tensor]:
        rows, shared, *weights = ctx.saved_tensors
        row_from_shared, row_from_row, from_new, from_old, from_shared = weights
        d_row_input, d_shared_input, d_row_shared, d_row_row, d_row_bias = tangents[:5]
        d_from_new, d_from_old, d_from_shared, d_shared_bias = tangents[5:9]
        steps = rows.shape[0] - 1
        olds = torch.stack([old for old, _, _ in ctx.tape])
        # What the tangents of the weights do needs no recurrence: whole products, all steps.
        row_input = d_row_input + shared[:-1] @ d_row_shared.T
        row_hidden = olds @ d_row_row.T + d_row_bias
        shared_input = d_shared_input + rows[1:] @ d_from_new.T + olds @ d_from_old.T
        shared_hidden = shared[:-1] @ d_from_shared.T + d_shared_bias
        d_rows, d_shared = torch.empty_like(rows), torch.empty_like(shared)
        d_rows[0], d_shared[0] = tangents[9], tangents[10]
        flat = d_rows.view(-1, rows.shape[2])
        for t in range(steps):
            old, row_gates, shared_gates = ctx.tape[t]
            d_old = flat.index_select(0, ctx.places[t])
            d_rows[t + 1] = step_forward(
                torch.addmm(row_input[t], d_shared[t], row_from_shared.T),
                torch.addmm(row_hidden[t], d_old, row_from_row.T),
                d_old,
                old,
                row_gates,
            )
            into = torch.addmm(shared_input[t], d_rows[t + 1], from_new.T)
            d_shared[t + 1] = step_forward(
                torch.addmm(into, d_old, from_old.T),
                torch.addmm(shared_hidden[t], d_shared[t], from_shared.T),
                d_shared[t],
                shared[t],
                shared_gates,
            )
        return d_rows, d_shared


def _places(previous: Tensor) -> Tensor:
    """Axis-0 indices `[T, B]` as indices into the two leading axes flattened."""
    batch = previous.shape[1]
    return previous * batch + torch.arange(batch)
