"""The natural step: conjugate gradient, Fisher product and line search."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor
from torch.autograd.functional import hessian, jacobian

from tests.training.trials import record, small_actionwise
from training.record import Record
from training.trust_region import (
    Differentiated,
    FisherProduct,
    conjugate_gradient,
    flatten,
    natural_step,
    softmax_fisher,
    unflatten,
)


def positive(size: int, seed: int = 0) -> Tensor:
    """A symmetric positive matrix."""
    draw = torch.Generator().manual_seed(seed)
    root = torch.randn(size, size, generator=draw, dtype=torch.float64)
    return root @ root.T + torch.eye(size, dtype=torch.float64)


def test_conjugate_gradient_solves_a_positive_system() -> None:
    matrix = positive(12)
    target = torch.arange(12, dtype=torch.float64)
    solution = conjugate_gradient(lambda v: matrix @ v, target, iterations=60)
    torch.testing.assert_close(matrix @ solution, target, atol=1e-8, rtol=0)


def test_conjugate_gradient_of_zero_is_zero() -> None:
    zero = torch.zeros(5)
    assert torch.equal(conjugate_gradient(lambda v: v, zero), zero)


def test_the_softmax_fisher_is_its_closed_form() -> None:
    p = torch.softmax(torch.randn(4, dtype=torch.float64), 0)
    v = torch.randn(4, dtype=torch.float64)
    dense = torch.diag(p) - torch.outer(p, p)
    torch.testing.assert_close(softmax_fisher(p, v), dense @ v)


def test_the_fisher_product_is_the_hessian_of_the_divergence() -> None:
    draw = torch.Generator().manual_seed(1)
    inputs = [torch.randn(n, 3, generator=draw, dtype=torch.float64) for n in (5, 8)]
    parameters = {
        "first": torch.randn(4, 3, generator=draw, dtype=torch.float64),
        "second": torch.randn(2, 4, generator=draw, dtype=torch.float64),
    }

    def logits(named: Mapping[str, Tensor]) -> list[Tensor]:
        return [torch.tanh(x @ named["first"].T) @ named["second"].T for x in inputs]

    old = [torch.log_softmax(one, -1) for one in logits(parameters)]

    def divergence(vector: Tensor) -> Tensor:
        named = dict(zip(parameters, unflatten(vector, list(parameters.values())), strict=True))
        parts = [
            (log.exp() * (log - torch.log_softmax(one, -1))).sum(-1).mean()
            for log, one in zip(old, logits(named), strict=True)
        ]
        return torch.stack(parts).mean()

    start = flatten(list(parameters.values()))
    dense = hessian(divergence, start)  # type: ignore[no-untyped-call]
    product = FisherProduct(Differentiated(logits, parameters), parameters)
    for _ in range(3):
        vector = torch.randn(start.shape, generator=draw, dtype=torch.float64)
        torch.testing.assert_close(product(vector), dense @ vector, atol=1e-12, rtol=1e-9)


def test_the_fisher_product_of_the_recurrent_network_is_the_dense_one_with_masks_too() -> None:
    network = small_actionwise().double()
    one = record(T=4, B=2, K=3)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    one = Record(
        action=one.action % 2,
        reward=one.reward.double(),
        done=one.done.double(),
        horizon_left=one.horizon_left.double(),
        context=one.context.double(),
        action_features=one.action_features.double(),
        action_mask=mask,
    )
    value_head = {id(parameter) for parameter in network.value_parameters()}
    parameters = {n: p for n, p in network.named_parameters() if id(p) not in value_head}
    shapes = [p.detach() for p in parameters.values()]

    def logits(named: Mapping[str, Tensor]) -> list[Tensor]:
        found: list[Tensor] = torch.func.functional_call(network, dict(named), ([one],))
        return found

    def probabilities(vector: Tensor) -> Tensor:
        named = dict(zip(parameters, unflatten(vector, shapes), strict=True))
        return torch.log_softmax(logits(named)[0], -1).nan_to_num(neginf=0.0)

    start = flatten(shapes)
    scores = jacobian(probabilities, start).reshape(-1, start.numel())  # type: ignore[no-untyped-call]
    weights = torch.softmax(logits(parameters)[0], -1).detach().reshape(-1)
    dense = scores.T @ (weights[:, None] * scores) / (4 * 2)
    vector = torch.randn(start.shape, dtype=torch.float64)
    product = FisherProduct(Differentiated(logits, parameters), parameters)
    torch.testing.assert_close(product(vector), dense @ vector, atol=1e-12, rtol=1e-8)


@pytest.mark.parametrize("seed", range(5))
def test_a_step_is_never_outside_the_region_and_never_worse(seed: int) -> None:
    matrix = positive(6, seed)
    gradient = torch.randn(6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    tried: list[tuple[float, float]] = []

    def evaluate(step: Tensor) -> tuple[float, float]:
        # Far steeper than its quadratic model, and bending down: full steps must be refused.
        length = float(step.norm())
        divergence = float(0.5 * step @ matrix @ step) * (1 + 40 * length)
        tried.append((float(gradient @ step) - 2.0 * length**2, divergence))
        return tried[-1]

    step, report = natural_step(gradient, lambda v: matrix @ v, evaluate, radius=0.01)
    assert report.accepted
    assert len(tried) > 1
    assert report.improvement > 0
    assert report.divergence <= 0.01
    assert (report.improvement, report.divergence) == tried[-1]
    assert evaluate(step) == tried[-2]
    for improvement, divergence in tried[:-2]:
        assert improvement <= 0 or divergence > 0.01


@pytest.mark.parametrize(
    "answer", [(-1.0, 0.0), (1.0, 1.0), (float("nan"), 0.0), (1.0, float("nan"))]
)
def test_where_no_step_is_good_none_is_taken(answer: tuple[float, float]) -> None:
    matrix = positive(6)
    step, report = natural_step(
        torch.ones(6, dtype=torch.float64), lambda v: matrix @ v, lambda _: answer
    )
    assert not report.accepted
    assert torch.equal(step, torch.zeros(6, dtype=torch.float64))


def test_a_step_along_no_gradient_is_no_step() -> None:
    step, report = natural_step(torch.zeros(3), lambda v: v, lambda _: (1.0, 0.0))
    assert not report.accepted
    assert torch.equal(step, torch.zeros(3))
