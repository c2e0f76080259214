"""The hidden states of a flat GRU over recorded trials as one function with derivatives by hand.

An autograd graph of one node an operation and step would cost a multiple. It must give what `learn`
gives step by step; the tests hold it to that, and to gradcheck.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from training.policies.flat_pass import (
    Products,
    Tape,
    Weights,
    blocks,
    pass_through,
    products_of,
    weights_of,
)
from training.policies.flat_tangent import FlatTangent


class FlatMemory(torch.autograd.Function):
    """seen `[T, B, X]` and weights to the hidden states after each step `[T, B, H]`.

    What was seen has no gradient: it is data.
    """

    @staticmethod
    def forward(ctx: Any, seen: Tensor, *weights: Tensor) -> Tensor:
        products = products_of(Weights(*weights))
        T, B, _ = seen.shape
        hidden = seen.new_empty(T, B, products.new.shape[1])
        ctx.products = products
        ctx.seen, ctx.weights = seen, Weights(*weights)
        ctx.tapes = [
            (block, pass_through(seen[:, block], products, hidden[:, block]))
            for block in blocks(B, hidden.shape[2])
        ]
        return hidden

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        H = ctx.products.new.shape[1]
        recurrent = ctx.products.all[:H].T.contiguous()
        total = Products(*(torch.zeros_like(one) for one in ctx.products))
        for block, tape in ctx.tapes:
            _pass_back(grads[0][:, block], tape, recurrent, total)
        return (None, *weights_of(total))

    @staticmethod
    def jvp(ctx: Any, seen: Tensor | None, *tangents: Tensor | None) -> Tensor:
        pairs = zip(tangents, ctx.weights, strict=True)
        along = [torch.zeros_like(weight) if one is None else one for one, weight in pairs]
        return FlatTangent(ctx.seen, ctx.weights).push(Weights(*along))


def _pass_back(grad: Tensor, tape: Tape, recurrent: Tensor, total: Products) -> None:
    """One block back through time; adds its gradients to `total`."""
    T, b, H = grad.shape
    inner = grad.new_empty(b, 3 * H)
    carried = grad.new_zeros(b, H)
    into_reset, into_update, into_hidden = inner.chunk(3, 1)
    for t in reversed(range(T)):
        state = tape.rows[t]
        reset, update, from_hidden = tape.gates[t].chunk(3, 1)
        new = tape.new[t]
        carried += grad[t]
        torch.sub(state[:, :H], new, out=into_update)
        into_update *= carried
        torch.ops.aten.sigmoid_backward.grad_input(into_update, update, grad_input=into_update)
        into_new = torch.addcmul(carried, carried, update, value=-1)
        torch.ops.aten.tanh_backward.grad_input(into_new, new, grad_input=into_new)
        torch.mul(into_new, reset, out=into_hidden)
        torch.mul(into_new, from_hidden, out=into_reset)
        torch.ops.aten.sigmoid_backward.grad_input(into_reset, reset, grad_input=into_reset)
        total.all.addmm_(state.T, inner)
        total.new.addmm_(state[:, H:].T, into_new)
        carried *= update
        carried.addmm_(inner, recurrent)
