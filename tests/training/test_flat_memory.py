"""The flat network over a whole record: its derivatives, in blocks of trials, both ways."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.training.trials import record, shake
from training.policies import flat_pass
from training.policies.flat_memory import FlatMemory
from training.policies.flat_pass import blocks
from training.policies.network import build
from training.record import Record
from training.trust_region import FisherProduct, flatten


def weights(X: int, H: int) -> list[Tensor]:
    """Random weights of a small recurrence, in double precision."""
    torch.manual_seed(0)
    shapes = [(3 * H, X), (3 * H,), (3 * H, H), (3 * H,)]
    return [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def test_the_flat_memory_has_the_derivatives_it_claims_forward_and_reverse() -> None:
    seen = torch.randn(4, 3, 2, dtype=torch.float64)

    def hidden(*given: Tensor) -> Tensor:
        states: Tensor = FlatMemory.apply(seen, *given)  # type: ignore[no-untyped-call]
        return states

    assert torch.autograd.gradcheck(hidden, weights(2, 3), check_forward_ad=True)


def test_cutting_trials_into_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, given = torch.randn(5, 7, 2, dtype=torch.float64), weights(2, 3)

    def both() -> list[Tensor]:
        hidden = FlatMemory.apply(seen, *given)  # type: ignore[no-untyped-call]
        return [hidden.detach(), *torch.autograd.grad((hidden**2).sum(), given)]

    whole = both()
    monkeypatch.setattr(flat_pass, "BLOCK_FLOATS", 6)
    assert len(list(blocks(7, 3))) > 1
    for together, apart in zip(whole, both(), strict=True):
        torch.testing.assert_close(together, apart)


@pytest.mark.parametrize("trials", [1, 2, 7, 1_000, 1_003])
def test_every_trial_is_in_exactly_one_block(trials: int) -> None:
    covered = [i for block in blocks(trials, 256) for i in range(trials)[block]]
    assert covered == list(range(trials))


def doubled(one: Record) -> Record:
    """The record in double precision."""
    return Record(
        one.action,
        one.reward.double(),
        one.done.double(),
        one.horizon_left.double(),
        one.context.double(),
        one.action_features.double(),
        one.action_mask,
    )


@pytest.mark.parametrize("late", [False, True])
def test_the_flat_networks_fisher_product_is_the_dense_one_with_late_feedback_too(
    late: bool,
) -> None:
    network = build("gru", {"actions": 4, "hidden": 6, "context": 3})
    shake(network)
    network = network.double()
    records = [doubled(record(seed=seed, F=0, B=3)) for seed in range(2)]
    if late:
        known = torch.tensor([0, 0, 1, 1, 4, 4, 6])
        records = [replace(one, known=known) for one in records]
    times = torch.tensor([5, 0, 2])
    value_head = {id(parameter) for parameter in network.value_parameters()}
    named = {n: p for n, p in network.named_parameters() if id(p) not in value_head}
    found = FisherProduct(network.linearised(records, times, named), named)

    values = [p.detach() for p in named.values()]
    moving = [p.clone().requires_grad_() for p in values]

    def logits(given: list[Tensor]) -> list[Tensor]:
        inputs = dict(zip(named, given, strict=True))
        called: list[Tensor] = torch.func.functional_call(network, inputs, (records, times))
        return called

    jacobians = []
    for one in logits(moving):
        rows = [torch.autograd.grad(x, moving, retain_graph=True) for x in one.flatten()]
        jacobians.append(torch.stack([flatten(list(row)) for row in rows]).view(*one.shape, -1))
    vector = torch.randn(flatten(values).shape, dtype=torch.float64)
    expected = torch.zeros_like(vector)
    for one, jacobian in zip(logits(values), jacobians, strict=True):
        p = torch.softmax(one, -1)
        moved = jacobian @ vector
        pulled = p * (moved - (p * moved).sum(-1, keepdim=True))
        expected += torch.einsum("tbk,tbkp->p", pulled, jacobian) / p[..., 0].numel() / 2
    torch.testing.assert_close(found(vector), expected, atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(found(vector), expected, atol=1e-12, rtol=1e-9)
