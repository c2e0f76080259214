"""The planning network remembers an MDP exactly and plans in it as backward induction does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from contract.encode import horizon_left
from contract.policy import OnnxPolicy, verify_parity
from tests.training.trials import shake, step_by_step
from training.export import write_graphs
from training.policies.network import build
from training.policies.planning import Planning
from training.record import Record
from training.tasks.mdps import ACTIONS, EPISODE_STEPS, STATES, TabularMDPs

PROVENANCE = {"command": "a test", "seed": 1, "date": "2026-11-22", "steps": 1, "versions": {}}


def planning(seed: int = 0) -> Planning:
    """A planning network whose every weight counts."""
    network = build("planning", {}, seed=seed)
    assert isinstance(network, Planning)
    shake(network, seed)
    return network


def played(n: int = 3, B: int = 4, seed: int = 0) -> tuple[Record, NDArray[np.float32]]:
    """Trials of n episodes under random actions, and their raw rewards `[T, B]`."""
    rng = np.random.default_rng(seed)
    mdps = TabularMDPs(B, n, rng)
    context, _ = mdps.reset()
    actions, contexts, rewards, ends = [], [], [], []
    for _ in range(mdps.steps):
        contexts.append(context)
        actions.append(rng.integers(ACTIONS, size=B))
        context, reward, terminated, _, _ = mdps.step(actions[-1])
        rewards.append(reward)
        ends.append(terminated)
    T = mdps.steps
    record = Record(
        action=torch.from_numpy(np.stack(actions)),
        reward=torch.from_numpy(mdps.shown(np.stack(rewards))),
        done=torch.from_numpy(np.stack(ends)).float(),
        horizon_left=torch.from_numpy(horizon_left(np.arange(T), T))[:, None].expand(T, B, 2),
        context=torch.from_numpy(np.stack(contexts)),
        action_features=torch.zeros(B, ACTIONS, 0),
        action_mask=torch.ones(B, ACTIONS, dtype=torch.bool),
    )
    return record, np.stack(rewards)


def test_memory_is_the_count_of_what_happened_and_nothing_is_counted_across_an_episodes_end() -> (
    None
):
    one, rewards = played()
    network = planning()
    _, shared, rows = step_by_step(network, one)
    state = one.context.argmax(-1).numpy()
    action = one.action.numpy()
    counts = np.zeros((4, ACTIONS, STATES, STATES))
    visits, sums = np.zeros((4, ACTIONS, STATES)), np.zeros((4, ACTIONS, STATES))
    at = np.arange(4)
    for t in range(one.steps):
        visits[at, action[t], state[t]] += 1
        sums[at, action[t], state[t]] += rewards[t].clip(-5.0, 7.0) - 1.0
        if (t + 1) % EPISODE_STEPS:
            counts[at, action[t], state[t], state[t + 1]] += 1
    found = torch.split(rows, [STATES * STATES, STATES, STATES, STATES], -1)
    assert np.array_equal(found[0].numpy().reshape(counts.shape), counts)
    assert np.array_equal(found[1].numpy(), visits)
    np.testing.assert_allclose(found[2].numpy() * 6.0, sums, atol=1e-5)
    assert not found[3].any()
    assert torch.equal(shared, torch.tensor([[0.0, 3.0] + [0.0] * 9] * 4))


def test_an_interaction_whose_next_state_is_not_known_yet_waits_in_its_actions_row() -> None:
    one, _ = played(n=1)
    network = planning()
    shared, rows = network.blank(4, ACTIONS)
    for t in range(2):
        shared, rows = network.learn(
            shared,
            rows,
            one.context[t],
            one.action[t],
            one.reward[t],
            one.done[t],
            one.action_features,
        )
    waiting = rows[..., -STATES:]
    assert torch.equal(waiting.sum((1, 2)), torch.ones(4))
    assert torch.equal(waiting[torch.arange(4), one.action[1]], one.context[1])
    assert torch.equal(rows[..., : STATES * STATES].sum((1, 2)), torch.ones(4))
    assert torch.equal(shared, torch.tensor([[2.0, 1.0] + [0.0] * 9] * 4))


def test_without_a_bonus_it_plans_as_backward_induction_on_the_posterior_mean() -> None:
    one, rewards = played(n=6, B=3)
    network = planning()
    with torch.no_grad():
        network.bonus.copy_(torch.tensor([-40.0, 0.0]))
        network.judge.weight.zero_()
        network.judge.bias.zero_()
        network.temperature.zero_()
    logits = network.logits([one])[0].detach().numpy()
    state, action = one.context.argmax(-1).numpy(), one.action.numpy()
    for t in (0, 7, 23, 59):
        for b in range(3):
            counts = np.ones((STATES, ACTIONS, STATES))
            sums, visits = np.ones((STATES, ACTIONS)), np.ones((STATES, ACTIONS))
            for u in range(t):
                sums[state[u, b], action[u, b]] += rewards[u, b]
                visits[state[u, b], action[u, b]] += 1
                if (u + 1) % EPISODE_STEPS:
                    counts[state[u, b], action[u, b], state[u + 1, b]] += 1
            model = counts / counts.sum(-1, keepdims=True)
            value = np.zeros(STATES)
            for _ in range(EPISODE_STEPS - t % EPISODE_STEPS):
                quality = sums / visits + model @ value
                value = quality.max(-1)
            expected = quality[state[t, b]]
            np.testing.assert_allclose(
                logits[t, b] - logits[t, b].mean(), expected - expected.mean(), atol=2e-5
            )


def test_a_record_at_once_is_the_same_as_step_by_step() -> None:
    one, _ = played()
    network = planning()
    probabilities, _, _ = step_by_step(network, one)
    at_once = torch.softmax(network.logits([one])[0], -1)
    torch.testing.assert_close(at_once, torch.stack(probabilities), atol=2e-6, rtol=0)
    times = torch.tensor([25, 3, 12])
    torch.testing.assert_close(network.logits([one], times)[0], network.logits([one])[0][times])
    torch.testing.assert_close(network.pools([one], times)[0], network.pools([one])[0][times])


def test_renaming_actions_renames_probabilities_and_rows_and_nothing_else() -> None:
    one, _ = played()
    network = planning()
    order = torch.tensor([3, 0, 4, 1, 2])
    renamed = Record(
        torch.argsort(order)[one.action],
        one.reward,
        one.done,
        one.horizon_left,
        one.context,
        one.action_features,
        one.action_mask,
    )
    before, shared, rows = step_by_step(network, one)
    after, shared_too, rows_too = step_by_step(network, renamed)
    for p, q in zip(before, after, strict=True):
        torch.testing.assert_close(q, p[:, order], atol=1e-6, rtol=0)
    assert torch.equal(shared, shared_too)
    assert torch.equal(rows[:, order], rows_too)


def test_renaming_states_changes_no_probability() -> None:
    one, _ = played()
    network = planning()
    order = torch.randperm(STATES, generator=torch.Generator().manual_seed(1))
    renamed = Record(
        one.action,
        one.reward,
        one.done,
        one.horizon_left,
        one.context[..., order],
        one.action_features,
        one.action_mask,
    )
    torch.testing.assert_close(
        torch.softmax(network.logits([renamed])[0], -1),
        torch.softmax(network.logits([one])[0], -1),
        atol=2e-6,
        rtol=0,
    )


def test_a_masked_action_has_exactly_no_probability_and_is_not_planned_with() -> None:
    one, _ = played()
    network = planning()
    _, shared, rows = step_by_step(network, one)
    mask = torch.tensor([[True, False, True, False, True]] * 4)
    horizon = torch.full((4, 2), 0.5)
    probabilities, value = network.decide(
        shared, rows, one.context[0], mask, horizon, one.action_features
    )
    assert torch.equal(probabilities[~mask], torch.zeros(8))
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(4))
    assert torch.isfinite(value).all()
    changed = rows.clone()
    changed[:, [1, 3]] += 3.0
    with torch.no_grad():
        network.judge.weight.zero_()
    before, after = (
        network.decide(shared, known, one.context[0], mask, horizon, one.action_features)[0]
        for known in (rows, changed)
    )
    torch.testing.assert_close(before, after, atol=1e-6, rtol=0)


def test_the_gradient_reaches_every_weight_of_the_policy() -> None:
    one, _ = played()
    network = planning()
    (torch.softmax(network.logits([one])[0], -1) ** 2).sum().backward()  # type: ignore[no-untyped-call]
    head = {id(parameter) for parameter in network.value_parameters()}
    for name, parameter in network.named_parameters():
        if id(parameter) not in head:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_its_bundle_plays_as_torch_does_and_learns_batches_to_the_bit(tmp_path: Path) -> None:
    network = planning()
    write_graphs(network, tmp_path, "mdps", 1, "mdps", PROVENANCE)
    policy = OnnxPolicy.load(tmp_path)
    assert verify_parity(policy, tmp_path).batch == 64
    one, _ = played(n=3, B=5)
    expected, shared, rows = step_by_step(network, one)
    memory = policy.blank(5, ACTIONS)
    for t in range(one.steps):
        probabilities, _ = policy.decide(
            memory,
            context=one.context[t].numpy(),
            action_mask=one.action_mask.numpy(),
            horizon_left=one.horizon_left[t].numpy(),
        )
        np.testing.assert_allclose(probabilities, expected[t].detach().numpy(), atol=2e-6)
        memory = policy.learn(
            memory,
            context=one.context[t].numpy(),
            action=one.action[t].numpy(),
            reward=one.reward[t].numpy(),
            done=one.done[t].numpy(),
        )
    assert np.array_equal(memory.rows, rows.numpy())
    assert np.array_equal(memory.shared, shared.numpy())


@pytest.mark.parametrize(
    "sizes",
    [{"actions": 1}, {"context": 0}, {"episode": 0}, {"reward_scale": 0.0}, {"action_features": 1}],
)
def test_a_network_that_cannot_be_is_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(sizes))}: .*(expected|takes none)"):
        build("planning", sizes)
