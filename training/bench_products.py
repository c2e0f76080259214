"""The matrix products of a computation: which there are, and how long they take alone.

They are counted as they are called, derivatives included, and run again at the same shapes and
layouts with nothing between them, on operands that stay where they are: as fast as they can be.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Operand(NamedTuple):
    """A matrix, or a stack of them, as it lies in memory."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]


Product = tuple[Operand, Operand]

_ATEN = torch.ops.aten
_FIRST = {_ATEN.mm: 0, _ATEN.bmm: 0, _ATEN.addmm: 1, _ATEN.baddbmm: 1, _ATEN.addmm_: 1}
"""Which argument is the left operand, by operation."""


class CountProducts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is entered, every matrix product called is counted in `products`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.products: Counter[Product] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        first = _FIRST.get(func.overloadpacket)
        if first is not None:
            left, right = args[first], args[first + 1]
            self.products[_operand(left), _operand(right)] += 1
        return func(*args, **(kwargs or {}))


def floating_operations(products: Counter[Product]) -> int:
    """Multiplications and additions of all of them."""
    return sum(
        count * 2 * torch.Size(left.shape).numel() * right.shape[-1]
        for (left, right), count in products.items()
    )


def seconds_alone(products: Counter[Product]) -> float:
    """How long all of them take, one after another."""
    total = 0.0
    for (left, right), count in products.items():
        a, b = _made(left), _made(right)
        into = torch.empty(*left.shape[:-1], right.shape[-1])
        multiply = torch.mm if len(left.shape) == 2 else torch.bmm
        multiply(a, b, out=into)
        started = time.perf_counter()
        for _ in range(count):
            multiply(a, b, out=into)
        total += time.perf_counter() - started
    return total


def _operand(matrix: Tensor) -> Operand:
    return Operand(tuple(matrix.shape), tuple(matrix.stride()))


def _made(operand: Operand) -> Tensor:
    """Random numbers that lie as the operand did."""
    reach = zip(operand.shape, operand.strides, strict=True)
    floats = 1 + sum((size - 1) * stride for size, stride in reach)
    return torch.as_strided(torch.randn(max(1, floats)), operand.shape, operand.strides)
