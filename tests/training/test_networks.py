"""What every network promises about its memory, and what actionwise promises about actions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.training.trials import record, shake, small_actionwise, small_believing, step_by_step
from training.policies.actionwise import ActionwiseSizes
from training.policies.cells import step
from training.policies.network import Network, build
from training.policies.sequence import RowMemory, last_written
from training.record import Record


def small_gru() -> Network:
    network = build("gru", {"actions": 4, "hidden": 6, "context": 3})
    shake(network)
    return network


NETWORKS = pytest.mark.parametrize("make", [small_actionwise, small_believing, small_gru])
ACTIONWISE = pytest.mark.parametrize("make", [small_actionwise, small_believing])


def fitting(network: Network, **sizes: int) -> Record:
    """A record that the network can be given."""
    return record(F=network.sizes.action_features, **sizes)


def test_the_cell_is_torchs_own_gru_cell() -> None:
    torch.manual_seed(0)
    cell = nn.GRUCell(3, 5)
    inputs, hidden = torch.randn(4, 3), torch.randn(4, 5)
    advanced, _ = step(
        nn.functional.linear(inputs, cell.weight_ih, cell.bias_ih),
        nn.functional.linear(hidden, cell.weight_hh, cell.bias_hh),
        hidden,
    )
    torch.testing.assert_close(advanced, cell(inputs, hidden))


def test_the_row_memory_has_the_derivatives_it_claims_forward_and_reverse() -> None:
    T, B, K, G, H = 4, 3, 2, 3, 2
    torch.manual_seed(0)
    action = torch.randint(0, K, (T, B))
    previous = last_written(action, K).gather(2, action[..., None]).squeeze(-1)
    shapes = [
        (T, B, 3 * H),
        (T, B, 3 * G),
        (3 * H, G),
        (3 * H, H),
        (3 * H,),
        (3 * G, H),
        (3 * G, H),
        (3 * G, G),
        (3 * G,),
        (H,),
        (G,),
    ]
    inputs = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes]

    def memory(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        rows, shared = RowMemory.apply(*tensors, previous)  # type: ignore[no-untyped-call]
        return rows, shared

    assert torch.autograd.gradcheck(memory, inputs, check_forward_ad=True)


@NETWORKS
def test_a_record_at_once_is_the_same_as_step_by_step(make: type) -> None:
    network = make()
    one = fitting(network)
    probabilities, _, _ = step_by_step(network, one)
    at_once = torch.softmax(network.logits([one])[0], -1)
    torch.testing.assert_close(at_once, torch.stack(probabilities), atol=1e-6, rtol=0)


@NETWORKS
def test_some_steps_of_a_record_are_the_same_as_those_steps_of_all(make: type) -> None:
    network = make()
    one = fitting(network)
    times = torch.tensor([5, 0, 3])
    torch.testing.assert_close(network.logits([one], times)[0], network.logits([one])[0][times])
    torch.testing.assert_close(network.pools([one], times)[0], network.pools([one])[0][times])


@NETWORKS
def test_a_record_of_delayed_feedback_is_the_same_as_step_by_step(make: type) -> None:
    network = make()
    one = replace(fitting(network), known=torch.tensor([0, 0, 0, 2, 3, 3, 5]))
    slow = torch.stack(step_by_step(network, one)[0])
    torch.testing.assert_close(torch.softmax(network.logits([one])[0], -1), slow, atol=1e-6, rtol=0)
    times = torch.tensor([6, 1, 3])
    some = torch.softmax(network.logits([one], times)[0], -1)
    torch.testing.assert_close(some, slow[times], atol=1e-6, rtol=0)


@ACTIONWISE
def test_records_with_other_numbers_of_actions_do_not_disturb_each_other(make: type) -> None:
    network = make()
    records = [record(K=K, seed=K) for K in (2, 5, 3)]
    for one, together in zip(records, network.logits(records), strict=True):
        torch.testing.assert_close(together, network.logits([one])[0], atol=1e-6, rtol=1e-6)


@ACTIONWISE
def test_the_gradient_at_once_is_the_gradient_step_by_step(make: type) -> None:
    network = make().double()
    one = record()
    one = Record(
        one.action,
        one.reward.double(),
        one.done.double(),
        one.horizon_left.double(),
        one.context.double(),
        one.action_features.double(),
        one.action_mask,
    )
    parameters = list(network.parameters())
    probabilities, _, _ = step_by_step(network, one)
    (torch.stack(probabilities) ** 2).sum().backward()  # type: ignore[no-untyped-call]
    slow = [p.grad.clone() if p.grad is not None else torch.zeros_like(p) for p in parameters]
    network.zero_grad()
    (torch.softmax(network.logits([one])[0], -1) ** 2).sum().backward()  # type: ignore[no-untyped-call]
    for parameter, expected in zip(parameters, slow, strict=True):
        found = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-8)


def permuted(one: Record, order: Tensor) -> Record:
    """The same trials with their actions renamed: action i is what order[i] was."""
    return Record(
        action=torch.argsort(order)[one.action],
        reward=one.reward,
        done=one.done,
        horizon_left=one.horizon_left,
        context=one.context,
        action_features=one.action_features[:, order],
        action_mask=one.action_mask[:, order],
    )


@ACTIONWISE
def test_renaming_actions_renames_probabilities_and_rows_and_nothing_else(make: type) -> None:
    network = make()
    one = record(K=5)
    order = torch.tensor([3, 0, 4, 1, 2])
    before, shared, rows = step_by_step(network, one)
    after, shared_too, rows_too = step_by_step(network, permuted(one, order))
    for p, q in zip(before, after, strict=True):
        torch.testing.assert_close(q, p[:, order], atol=1e-6, rtol=0)
    assert torch.equal(shared, shared_too)
    assert torch.equal(rows[:, order], rows_too)


@ACTIONWISE
def test_padding_the_actions_changes_no_probability_and_not_one_bit_of_memory(make: type) -> None:
    network = make()
    one = record(K=4)
    padded = Record(
        one.action,
        one.reward,
        one.done,
        one.horizon_left,
        one.context,
        torch.cat([one.action_features, torch.full((3, 5, 2), 9.0)], 1),
        torch.cat([one.action_mask, torch.zeros(3, 5, dtype=torch.bool)], 1),
    )
    before, shared, rows = step_by_step(network, one)
    after, shared_too, rows_too = step_by_step(network, padded)
    for p, q in zip(before, after, strict=True):
        torch.testing.assert_close(q[:, :4], p, atol=1e-6, rtol=0)
        assert torch.equal(q[:, 4:], torch.zeros(3, 5))
    assert torch.equal(shared, shared_too)
    assert torch.equal(rows, rows_too[:, :4])
    torch.testing.assert_close(
        network.logits([padded])[0][..., :4], network.logits([one])[0], atol=1e-6, rtol=1e-6
    )


@ACTIONWISE
def test_learning_writes_the_served_actions_row_and_no_other_not_even_beside_nan(
    make: type,
) -> None:
    network = make()
    shared, rows = network.blank(2, 3)
    rows = rows.clone()
    rows[0, 1] = torch.nan
    one = record(T=1, B=2, K=3)
    action = torch.tensor([0, 2])
    _, after = network.learn(
        shared, rows, one.context[0], action, one.reward[0], one.done[0], one.action_features
    )
    assert torch.isfinite(after[0, 0]).all()
    assert not torch.equal(after[0, 0], rows[0, 0])
    assert not torch.equal(after[1, 2], rows[1, 2])
    assert torch.equal(after[0, 2], rows[0, 2])
    assert torch.equal(after[1, :2], rows[1, :2])


@NETWORKS
def test_a_masked_action_has_exactly_no_probability(make: type) -> None:
    network = make()
    one = fitting(network, T=1)
    mask = torch.tensor([[True, False, True, False]] * 3)
    shared, rows = network.blank(3, 4)
    probabilities, value = network.decide(
        shared, rows, one.context[0], mask, one.horizon_left[0], one.action_features
    )
    assert torch.equal(probabilities[~mask], torch.zeros(6))
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(3))
    assert torch.isfinite(value).all()


def test_a_fresh_policy_is_near_uniform() -> None:
    network = build("actionwise", {})
    shared, rows = network.blank(1, 10)
    mask, nothing = torch.ones(1, 10, dtype=torch.bool), torch.zeros(1, 10, 0)
    probabilities, _ = network.decide(
        shared, rows, torch.zeros(1, 0), mask, torch.ones(1, 2), nothing
    )
    torch.testing.assert_close(probabilities, torch.full((1, 10), 0.1), atol=0.02, rtol=0)


def test_a_memory_that_would_not_fit_is_refused() -> None:
    ActionwiseSizes(shared=72, row=32)
    with pytest.raises(ValueError, match="480 floats"):
        ActionwiseSizes(shared=73, row=32)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("transformer", {}),
        ("gru", {"actions": 1}),
        ("gru", {"actions": 4, "action_features": 2}),
        ("actionwise", {"row": 0}),
    ],
)
def test_a_network_that_cannot_be_is_refused(name: str, sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"expected|takes none"):
        build(name, sizes)
