"""What a policy would have done at every decision of a log, after the history it was made in.

Its memory is the fold of that history, so nothing is sampled: the answer is exact. It runs the ONNX
graphs, never torch, and looks at no reward but those that had been learned by then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from contract.encode import Float32, encode_action_features, encode_reward, horizon_left
from contract.policy import Memory, OnnxPolicy
from training.ledger_records import Log, turns

Array = NDArray[Any]

_HISTORIES_AT_ONCE = 512
_ROWS_AT_ONCE = 128
"""Rows a call of a graph: its memories then stay in the processor's cache."""


def probabilities(
    policy: OnnxPolicy,
    log: Log,
    *,
    greedy: bool = False,
    blind: bool = False,
    on_decisions: Callable[[int], None] = lambda count: None,
) -> Float32:
    """What the policy would have given each action, `[N, K]`.

    `greedy`: certain of the most probable one; `blind`: shown no context. `on_decisions` hears how
    many decisions were just gone through.
    """
    spec, made, came = log.spec, log.decisions, log.interactions
    K = len(spec.actions)
    given = np.zeros((made.count, K), np.float32)
    shown = np.zeros((made.count, policy.manifest.context_size), np.float32)
    if not blind:
        shown[:, : made.context.shape[1]] = made.context
    features = encode_action_features(spec, policy.manifest.action_feature_size)
    features = np.tile(features, (_ROWS_AT_ONCE, 1, 1))
    left = horizon_left(made.position, spec.horizon.interactions, spec.horizon.floor)
    rewards = encode_reward(came.reward, spec.reward.min, spec.reward.max)
    done = came.done.astype(np.float32)
    for first in range(0, log.histories, _HISTORIES_AT_ONCE):
        histories = np.arange(first, min(first + _HISTORIES_AT_ONCE, log.histories))
        memory = policy.blank(len(histories), K)
        for turn in turns(log, histories):
            for at in _parts(turn.decisions):
                rows = made.history[at] - first
                given[at], _ = policy.decide(
                    Memory(memory.shared[rows], memory.rows[rows]),
                    context=shown[at],
                    action_mask=made.mask[at],
                    horizon_left=left[at],
                    action_features=features[: len(at)],
                )
            for at in _parts(turn.interactions):
                rows, decision = came.history[at] - first, came.decision[at]
                after = policy.learn(
                    Memory(memory.shared[rows], memory.rows[rows]),
                    context=shown[decision],
                    action=made.action[decision],
                    reward=rewards[at],
                    done=done[at],
                    action_features=features[: len(at)],
                )
                memory.shared[rows], memory.rows[rows] = after
            on_decisions(len(turn.decisions))
    if greedy:
        given = np.eye(K, dtype=np.float32)[given.argmax(1)]
    return given


class Past(NamedTuple):
    """What an account had shown before each decision, rewards encoded."""

    total: NDArray[np.float32]
    """Of its rewards, `[N]`."""
    number: NDArray[np.float32]
    """`[N]`."""
    total_of: NDArray[np.float32]
    """Of each action's rewards, `[N, K]`."""
    number_of: NDArray[np.float32]
    """`[N, K]`."""


def pasts(log: Log) -> Past:
    """What a model of the reward may know of an account without looking ahead."""
    spec, made, came = log.spec, log.decisions, log.interactions
    shape = (made.count, len(spec.actions))
    total, count = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    rewards = encode_reward(came.reward, spec.reward.min, spec.reward.max)
    for first in range(0, log.histories, _HISTORIES_AT_ONCE):
        histories = np.arange(first, min(first + _HISTORIES_AT_ONCE, log.histories))
        sums = np.zeros((2, len(histories), shape[1]), np.float32)
        for turn in turns(log, histories):
            total[turn.decisions], count[turn.decisions] = sums[
                :, made.history[turn.decisions] - first
            ]
            at = came.history[turn.interactions] - first
            served = made.action[came.decision[turn.interactions]]
            sums[0, at, served] += rewards[turn.interactions]
            sums[1, at, served] += 1.0
    return Past(total.sum(1), count.sum(1), total, count)


def _parts(indices: Array) -> list[Array]:
    return [indices[i : i + _ROWS_AT_ONCE] for i in range(0, len(indices), _ROWS_AT_ONCE)]
