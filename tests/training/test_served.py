"""A bundle as served: feedback folds where it arrives, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from contract.encode import encode_action_features, encode_reward
from contract.policy import OnnxPolicy
from contract.spec import WorkflowSpec, parse_workflow
from tests.bundles import write_counting_bundle
from training.served import ServedPolicy

SPEC = """
schema: 1
workflow: letters
policy: counting/1
horizon: {interactions: 20, floor: 0.1}
actions: [{id: a, features: {cost: 1}}, {id: b, features: {cost: 2}}, {id: c, features: {cost: 4}}]
context: {age: {type: number, min: 0, max: 10}}
reward: {min: -2, max: 3}
fallback: {action: a}
adaptation: {target: 0.5}
"""


@pytest.fixture(scope="module")
def spec() -> WorkflowSpec:
    return parse_workflow(SPEC)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> OnnxPolicy:
    return OnnxPolicy.load(write_counting_bundle(tmp_path_factory.mktemp("policies")))


def test_an_account_decides_by_what_it_alone_was_told(
    policy: OnnxPolicy, spec: WorkflowSpec
) -> None:
    """Of 300 accounts, over several batches, some hear of a win, more than once."""
    rng = np.random.default_rng(0)
    player = ServedPolicy(policy, spec, 300, np.random.default_rng(1), greedy=True)
    told = np.sort(rng.choice(300, 120, replace=False))
    contexts = np.zeros((300, 1), np.float32)
    for _ in range(3):
        actions = np.full(told.size, 2)
        rewards, done = np.full(told.size, 3.0), np.ones(told.size, bool)
        player.learn(told, contexts[told], actions, rewards, done)
    chosen = player.choose(contexts, np.ones((300, 3), bool))
    assert (chosen[told] == 2).all()
    assert (np.delete(chosen, told) == 0).all()
    barred = np.tile([True, True, False], (300, 1))
    assert (player.choose(contexts, barred) != 2).all()


def test_it_folds_what_the_service_folds(policy: OnnxPolicy, spec: WorkflowSpec) -> None:
    """Encoded rewards, context padded to what the policy takes, scaled action features."""
    player = ServedPolicy(policy, spec, 2, np.random.default_rng(0))
    memory = policy.blank(2, 3)
    features = np.tile(encode_action_features(spec, 1), (2, 1, 1))
    for action, reward in ((0, -1.0), (2, 2.5), (1, 0.0)):
        context = np.array([[0.5], [-0.25]], np.float32)
        actions, rewards = np.full(2, action), np.full(2, reward)
        player.learn(np.arange(2), context, actions, rewards, np.array([True, False]))
        memory = policy.learn(
            memory,
            context=np.pad(context, ((0, 0), (0, 2))),
            action=actions,
            reward=encode_reward(rewards, -2.0, 3.0),
            done=np.array([1, 0], np.float32),
            action_features=features,
        )
    held = player._memories[0]
    assert np.array_equal(held.rows, memory.rows)
    assert np.array_equal(held.shared, memory.shared)
