"""Sums and logarithms that a graph computes to the same bits in a batch of any size.

onnxruntime's own do not: where a row lies in memory decides in which order it adds, and which of
its values go through the vector unit. A service may fold many accounts by one call only where it
gives each the bits that it would have got alone. In torch these are the plain functions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

_LANES = 16
"""Numbers in the longest vector of a CPU, 512 bits."""


def product(covariance: Tensor, x: Tensor) -> Tensor:
    """P x, `[..., D]`."""
    return _summed(covariance * x[..., None, :])


def dot(x: Tensor, y: Tensor) -> Tensor:
    """xᵀy over the last axis."""
    return _summed(x * y)


def softplus(x: Tensor) -> Tensor:
    """log(1 + eˣ)."""
    return _in_lanes(functional.softplus, x)


def _summed(x: Tensor) -> Tensor:
    """The sum over the last axis. In a graph it is made of halves: onnxruntime's own sums and
    products of matrices differ by a bit from batch to batch, and its additions do not."""
    if not torch.compiler.is_exporting():
        return x.sum(-1)
    odd = []
    while (size := x.shape[-1]) > 1:
        half = size // 2
        if size % 2:
            odd.append(x[..., -1:])
        x = x[..., :half] + x[..., half : 2 * half]
    for one in odd:
        x = x + one
    return x[..., 0]


def log(x: Tensor) -> Tensor:
    """log x."""
    return _in_lanes(torch.log, x)


def _in_lanes(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A function of each number. In a graph each fills a vector of the processor's: those left over
    at the end of a batch would take another way."""
    if not torch.compiler.is_exporting():
        return function(x)
    return function(x[..., None].expand(*x.shape, _LANES))[..., 0]
