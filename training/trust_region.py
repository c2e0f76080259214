"""The natural step inside a trust region, over closures. It must know nothing of rewards or RL.

Conjugate gradient (Hestenes & Stiefel 1952) over a Gauss–Newton product (Schraudolph 2002;
Martens 2010), then a backtracking line search on objective and divergence (Schulman et al. 2015).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Step:
    """What a trust-region step did."""

    accepted: bool
    improvement: float
    divergence: float
    scale: float
    """The share of the full natural step taken; 0: none."""


def flatten(tensors: list[Tensor]) -> Tensor:
    """One vector `[P]`."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def unflatten(vector: Tensor, like: list[Tensor]) -> list[Tensor]:
    """A vector `[P]` in the shapes of `like`."""
    parts = torch.split(vector, [tensor.numel() for tensor in like])
    return [part.view_as(tensor) for part, tensor in zip(parts, like, strict=True)]


def conjugate_gradient(
    product: Product, target: Tensor, iterations: int = 10, tolerance: float = 1e-10
) -> Tensor:
    """x with product(x) ≈ target, for a product that is symmetric and positive."""
    solution = torch.zeros_like(target)
    residual = target.clone()
    direction = target.clone()
    error = residual.dot(residual)
    for _ in range(iterations):
        if error <= tolerance * tolerance:
            break
        image = product(direction)
        length = error / direction.dot(image)
        solution = solution + length * direction
        residual = residual - length * image
        previous, error = error, residual.dot(residual)
        direction = residual + (error / previous) * direction
    return solution


def softmax_fisher(probabilities: Tensor, tangent: Tensor) -> Tensor:
    """(diag(p) − p pᵀ) v over the last axis: the Fisher matrix of a softmax in its logits."""
    weighted = probabilities * tangent
    return weighted - probabilities * weighted.sum(-1, keepdim=True)


class Linearised(Protocol):
    """Logits at one point of the parameters, with their derivatives both ways."""

    logits: list[Tensor]
    """Each `[..., K]`."""

    def push(self, tangents: list[Tensor]) -> list[Tensor]:
        """The logits' tangents, from one of each parameter."""
        ...

    def pull(self, cotangents: list[Tensor]) -> list[Tensor]:
        """A cotangent for each parameter, from one of each of the logits."""
        ...


class Differentiated:
    """`Linearised` for any `logits(parameters)`: one forward and one reverse derivative of it."""

    def __init__(
        self,
        logits: Callable[[Mapping[str, Tensor]], list[Tensor]],
        parameters: Mapping[str, Tensor],
    ) -> None:
        self._function = logits
        self._names = list(parameters)
        self._values = [value.detach() for value in parameters.values()]
        self._leaves = [value.clone().requires_grad_() for value in self._values]
        self._moving = logits(dict(zip(self._names, self._leaves, strict=True)))
        self.logits = [one.detach() for one in self._moving]

    def push(self, tangents: list[Tensor]) -> list[Tensor]:
        """The logits' tangents."""
        with torch.no_grad(), forward_ad.dual_level():
            duals = {
                name: forward_ad.make_dual(value, tangent)  # type: ignore[no-untyped-call]
                for name, value, tangent in zip(self._names, self._values, tangents, strict=True)
            }
            return [
                forward_ad.unpack_dual(one).tangent  # type: ignore[no-untyped-call]
                for one in self._function(duals)
            ]

    def pull(self, cotangents: list[Tensor]) -> list[Tensor]:
        """The parameters' cotangents."""
        grads = torch.autograd.grad(
            self._moving, self._leaves, cotangents, retain_graph=True, materialize_grads=True
        )
        return list(grads)


def differentiated(
    module: nn.Module, inputs: tuple[Any, ...], parameters: Mapping[str, Tensor]
) -> Differentiated:
    """The same for a module whose `forward` gives the logits of these inputs."""

    def logits(named: Mapping[str, Tensor]) -> list[Tensor]:
        called: list[Tensor] = torch.func.functional_call(module, dict(named), inputs)
        return called

    return Differentiated(logits, parameters)


class FisherProduct:
    """v → JᵀFJ v for the softmaxes over the last axis of a list of logits `[..., K]`.

    J is the Jacobian of the logits, F the softmax Fisher matrix averaged over the leading axes and
    then over the list: one forward derivative, the closed form, one reverse derivative, never a
    derivative of a derivative. Actions whose logit is −inf stay out of it.
    """

    def __init__(self, at: Linearised, parameters: Mapping[str, Tensor]) -> None:
        self._at = at
        self._like = [value.detach() for value in parameters.values()]
        self._probabilities = [torch.softmax(one, -1) for one in at.logits]

    def __call__(self, vector: Tensor) -> Tensor:
        moved = self._at.push(unflatten(vector, self._like))
        pulled = [
            softmax_fisher(p, tangent) * (p.shape[-1] / p.numel() / len(moved))
            for p, tangent in zip(self._probabilities, moved, strict=True)
        ]
        return flatten(self._at.pull(pulled))


def natural_step(
    gradient: Tensor,
    product: Product,
    evaluate: Callable[[Tensor], tuple[float, float]],
    *,
    radius: float = 0.01,
    iterations: int = 10,
    backtracks: int = 10,
    shrink: float = 0.7,
) -> tuple[Tensor, Step]:
    """The step to add to the parameters, zero where none is both better and inside the region.

    `gradient` `[P]` of the objective; `product` the Fisher product; `evaluate(step)` gives the
    objective's improvement and the true divergence there, which must not exceed `radius`.
    """
    direction = conjugate_gradient(product, gradient, iterations)
    curvature = direction.dot(product(direction))
    if not curvature > 0:
        return torch.zeros_like(gradient), Step(False, 0.0, 0.0, 0.0)
    full = direction * torch.sqrt(2 * radius / curvature)
    scale = 1.0
    for _ in range(backtracks):
        improvement, divergence = evaluate(scale * full)
        if improvement > 0 and divergence <= radius:
            return scale * full, Step(True, improvement, divergence, scale)
        scale *= shrink
    return torch.zeros_like(gradient), Step(False, 0.0, 0.0, 0.0)
