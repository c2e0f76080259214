"""One GRU step in three forms: value, reverse derivative, forward derivative. It keeps no state.

The definition is PyTorch's `GRUCell` (Cho et al. 2014), in plain products, so that it exports to
plain ONNX. Gate order in every `3H` axis: reset, update, new. The derivatives are written out
because one sequence of them costs a fraction of what a general autograd graph costs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Gates(NamedTuple):
    """What one step leaves behind for its derivatives, each `[B, H]`."""

    reset: Tensor
    update: Tensor
    new: Tensor
    recurrent_new: Tensor


def step(from_input: Tensor, from_hidden: Tensor, hidden: Tensor) -> tuple[Tensor, Gates]:
    """The next hidden state `[B, H]`.

    `from_input` = W_i x + b_i and `from_hidden` = W_h h + b_h, both `[B, 3H]`.
    """
    size = hidden.shape[-1]
    inner = from_input[..., : 2 * size] + from_hidden[..., : 2 * size]
    reset, update = torch.sigmoid(inner).chunk(2, -1)
    recurrent_new = from_hidden[..., 2 * size :]
    new = torch.tanh(torch.addcmul(from_input[..., 2 * size :], reset, recurrent_new))
    advanced = torch.addcmul(new, update, hidden - new)
    return advanced, Gates(reset, update, new, recurrent_new)


def step_reverse(grad: Tensor, hidden: Tensor, gates: Gates) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of (`from_input`, `from_hidden`, `hidden` outside `from_hidden`)."""
    reset, update, new, recurrent_new = gates
    grad_new = grad * (1 - update) * (1 - new * new)
    grad_update = grad * (hidden - new) * update * (1 - update)
    grad_reset = grad_new * recurrent_new * reset * (1 - reset)
    from_input = torch.cat([grad_reset, grad_update, grad_new], -1)
    from_hidden = torch.cat([grad_reset, grad_update, grad_new * reset], -1)
    return from_input, from_hidden, grad * update


def step_forward(
    from_input: Tensor, from_hidden: Tensor, tangent: Tensor, hidden: Tensor, gates: Gates
) -> Tensor:
    """Tangent of the next hidden state, from tangents of the three arguments of `step`."""
    size = hidden.shape[-1]
    reset, update, new, recurrent_new = gates
    inner = from_input[..., : 2 * size] + from_hidden[..., : 2 * size]
    d_reset, d_update = inner.chunk(2, -1)
    d_reset = d_reset * reset * (1 - reset)
    d_update = d_update * update * (1 - update)
    d_new = from_input[..., 2 * size :] + d_reset * recurrent_new
    d_new = (d_new + reset * from_hidden[..., 2 * size :]) * (1 - new * new)
    moved: Tensor = d_new + update * (tangent - d_new) + d_update * (hidden - new)
    return moved
