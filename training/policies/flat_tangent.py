"""The derivatives of a flat GRU at one point, for many directions: what the Fisher product needs.

The point is passed through once; each direction then costs its matrix products and little else.
It must never be kept after the weights have moved.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from training.policies.flat_pass import (
    Products,
    Weights,
    blocks,
    pass_through,
    products_of,
    weights_of,
)


class _Slopes(NamedTuple):
    """One block's derivatives of h' at every step, and the rows they apply to.

    dh' = update · dh + inner · d(reset, update, new from hidden) + new · d(new from input).
    """

    rows: Tensor
    """(dh, h, x, 1): `[T + 1, b, 2H + X + 1]`; dh is scratch."""
    inner: Tensor
    """`[T, b, 3H]`"""
    update: Tensor
    """`[T, b, H]`"""
    new: Tensor
    """`[T, b, H]`"""


class FlatTangent:
    """Hidden states `[T, B, H]` of `seen` `[T, B, X]`, and their derivatives both ways."""

    def __init__(self, seen: Tensor, weights: Weights) -> None:
        T, B, _ = seen.shape
        H = weights.recurrent.shape[1]
        products = products_of(weights)
        self.hidden = seen.new_empty(T, B, H)
        self._recurrent = weights.recurrent.contiguous()
        self._like = products
        self._parts = [
            (block, _slopes(seen[:, block], products, self.hidden[:, block]))
            for block in blocks(B, H)
        ]

    def push(self, tangent: Weights) -> Tensor:
        """The hidden states' tangent `[T, B, H]`, from one of the weights."""
        moved = torch.empty_like(self.hidden)
        H = moved.shape[2]
        toward = products_of(tangent)
        inner = torch.cat([self._like.all[:H], toward.all])
        for block, slopes in self._parts:
            _push(slopes, inner, toward.new, moved[:, block])
        return moved

    def pull(self, cotangent: Tensor) -> Weights:
        """The weights' cotangent, from one of the hidden states `[T, B, H]`."""
        total = Products(*(torch.zeros_like(one) for one in self._like))
        for block, slopes in self._parts:
            _pull(slopes, cotangent[:, block], self._recurrent, total)
        return weights_of(total)


def _slopes(seen: Tensor, products: Products, hidden: Tensor) -> _Slopes:
    H = hidden.shape[2]
    tape = pass_through(seen, products, hidden, room=H)
    reset, update, from_hidden = tape.gates.chunk(3, 2)
    kept, ones = update.clone(), torch.ones_like(update[0])
    for t in range(tape.new.shape[0]):
        r, u, n = reset[t], update[t], tape.new[t]
        into_update = torch.sub(tape.rows[t, :, H : 2 * H], n)
        torch.ops.aten.sigmoid_backward.grad_input(into_update, u, grad_input=u)
        n.copy_(torch.ops.aten.tanh_backward(ones - kept[t], n))
        into_reset = n * from_hidden[t]
        torch.mul(n, r, out=from_hidden[t])
        torch.ops.aten.sigmoid_backward.grad_input(into_reset, r, grad_input=r)
    return _Slopes(tape.rows, tape.gates, kept, tape.new)


def _push(slopes: _Slopes, inner: Tensor, new: Tensor, moved: Tensor) -> None:
    T, b, H = moved.shape
    rows = slopes.rows
    rows[0, :, :H] = 0.0
    product, from_input = moved.new_empty(b, 3 * H), moved.new_empty(b, H)
    for t in range(T):
        torch.mm(rows[t], inner, out=product)
        torch.mm(rows[t, :, 2 * H :], new, out=from_input)
        product *= slopes.inner[t]
        after = torch.mul(rows[t, :, :H], slopes.update[t], out=moved[t])
        after.addcmul_(from_input, slopes.new[t])
        for part in product.chunk(3, 1):
            after += part
        rows[t + 1, :, :H] = after


def _pull(slopes: _Slopes, cotangent: Tensor, recurrent: Tensor, total: Products) -> None:
    T, b, H = cotangent.shape
    inner = cotangent.new_empty(b, 3, H)
    carried = cotangent.new_zeros(b, H)
    for t in reversed(range(T)):
        carried += cotangent[t]
        torch.mul(slopes.inner[t].view(b, 3, H), carried[:, None], out=inner)
        state = slopes.rows[t, :, H:]
        total.all.addmm_(state.T, inner.view(b, 3 * H))
        total.new.addmm_(state[:, H:].T, carried * slopes.new[t])
        carried *= slopes.update[t]
        carried.addmm_(inner.view(b, 3 * H), recurrent)
