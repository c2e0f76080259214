"""A flat GRU over recorded trials: its weights as matrices, and one block of trials through time.

Blocks fit a core's cache: out of it, a step costs several times its matrix products. Must give what
`learn` gives step by step. Gate order in every `3H` axis: reset, update, new.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

BLOCK_FLOATS = 16_000
"""A block's hidden state is about this large: its gates and products stay in the cache."""


class Weights(NamedTuple):
    """Of both projections: `observed` reads what was seen, `recurrent` the hidden state."""

    observed: Tensor
    """`[3H, X]`"""
    observed_bias: Tensor
    """`[3H]`"""
    recurrent: Tensor
    """`[3H, H]`"""
    recurrent_bias: Tensor
    """`[3H]`"""


class Products(NamedTuple):
    """The same weights as the two matrices that a step multiplies with.

    A step's row (h, x, 1) `[H + X + 1]` times `all` gives reset, update and what the hidden state
    adds to new; (x, 1) times `new` gives what the input adds to it.
    """

    all: Tensor
    """`[H + X + 1, 3H]`"""
    new: Tensor
    """`[X + 1, H]`"""


class Tape(NamedTuple):
    """What one block leaves behind for its derivatives."""

    rows: Tensor
    """Before each step, and after the last: room, h, x and 1, `[T + 1, b, room + H + X + 1]`."""
    gates: Tensor
    """Reset, update, and what the hidden state added to new: `[T, b, 3H]`."""
    new: Tensor
    """`[T, b, H]`"""


def products_of(weights: Weights) -> Products:
    """Weights, or a tangent of them, as the matrices of a step."""
    H = weights.recurrent.shape[1]
    into = weights.observed.clone()
    into[2 * H :] = 0.0
    bias = weights.observed_bias + weights.recurrent_bias
    bias[2 * H :] = weights.recurrent_bias[2 * H :]
    new = [weights.observed[2 * H :], weights.observed_bias[2 * H :, None]]
    return Products(
        all=torch.cat([weights.recurrent, into, bias[:, None]], 1).T.contiguous(),
        new=torch.cat(new, 1).T.contiguous(),
    )


def weights_of(products: Products) -> Weights:
    """Gradients in the matrices of a step as gradients in the weights."""
    H = products.new.shape[1]
    observed, observed_bias = products.all[H:-1].T.clone(), products.all[-1].clone()
    observed[2 * H :], observed_bias[2 * H :] = products.new[:-1].T, products.new[-1]
    return Weights(observed, observed_bias, products.all[:H].T, products.all[-1])


def blocks(trials: int, hidden: int) -> Iterator[slice]:
    """Consecutive trials, as many together as the cache holds well."""
    count = max(1, round(trials * hidden / BLOCK_FLOATS))
    edges = [trials * i // count for i in range(count + 1)]
    for low, high in pairwise(edges):
        if high > low:
            yield slice(low, high)


def pass_through(seen: Tensor, products: Products, hidden: Tensor, room: int = 0) -> Tape:
    """One block through time: seen `[T, b, X]`, every h' into `hidden` `[T, b, H]`.

    `room` columns are left free at the head of each row, for whoever multiplies with it again.
    """
    T, b, X = seen.shape
    H = products.new.shape[1]
    rows = seen.new_empty(T + 1, b, room + H + X + 1)
    state = rows[..., room:]
    state[:T, :, H:-1] = seen
    state[..., -1] = 1.0
    state[0, :, :H] = 0.0
    gates, new = seen.new_empty(T, b, 3 * H), seen.new_empty(T, b, H)
    for t in range(T):
        torch.mm(state[t], products.all, out=gates[t])
        gates[t, :, : 2 * H].sigmoid_()
        torch.mm(state[t, :, H:], products.new, out=new[t])
        new[t].addcmul_(gates[t, :, :H], gates[t, :, 2 * H :]).tanh_()
        torch.lerp(new[t], state[t, :, :H], gates[t, :, H : 2 * H], out=hidden[t])
        state[t + 1, :, :H] = hidden[t]
    return Tape(rows, gates, new)
