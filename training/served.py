"""A bundle as the service plays it, on B accounts at once: it decides, draws, and folds feedback in
the order in which that arrives. It runs the ONNX graphs, never torch, and knows of no simulator.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.draw import sample
from contract.encode import Float32, encode_action_features, encode_reward, horizon_left
from contract.policy import Memory, OnnxPolicy
from contract.spec import WorkflowSpec

Array = NDArray[Any]

_ROWS_AT_ONCE = 128
"""Accounts a call of a graph: its memories then stay in the processor's cache."""


class ServedPolicy:
    """The memories of B accounts of one workflow, and the policy that reads and writes them."""

    def __init__(
        self,
        policy: OnnxPolicy,
        spec: WorkflowSpec,
        accounts: int,
        rng: np.random.Generator,
        *,
        greedy: bool = False,
        blind: bool = False,
    ) -> None:
        """`rng` is what the policy's choices are drawn with; `greedy` takes the most probable
        action, `blind` shows no context."""
        self._policy = policy
        self._spec = spec
        self._rng = rng
        self._greedy = greedy
        self._blind = blind
        starts = range(0, accounts, _ROWS_AT_ONCE)
        self._parts = [slice(i, min(i + _ROWS_AT_ONCE, accounts)) for i in starts]
        k = len(spec.actions)
        self._memories = [policy.blank(part.stop - part.start, k) for part in self._parts]
        self._position = np.zeros(accounts, np.int64)
        features = encode_action_features(spec, policy.manifest.action_feature_size)
        self._features = np.tile(features, (_ROWS_AT_ONCE, 1, 1))

    def choose(self, context: Array, mask: Array) -> NDArray[np.int64]:
        """An action for each account, `[B]`: context encoded, `[B, C]`, mask bool `[B, K]`.

        C may be smaller than what the policy takes: the rest is zeros.
        """
        horizon = self._spec.horizon
        left = horizon_left(self._position, horizon.interactions, horizon.floor)
        shown = self._shown(context)
        probabilities = np.empty(mask.shape, np.float32)
        for part, memory in zip(self._parts, self._memories, strict=True):
            probabilities[part], _ = self._policy.decide(
                memory,
                context=shown[part],
                action_mask=mask[part],
                horizon_left=left[part],
                action_features=self._features[: part.stop - part.start],
            )
        if self._greedy:
            most_probable: NDArray[np.int64] = probabilities.argmax(axis=1)
            return most_probable
        return sample(probabilities, self._rng.random(len(mask)))

    def learn(
        self, accounts: Array, context: Array, action: Array, reward: Array, done: Array
    ) -> None:
        """One interaction more in each of N accounts, whose numbers `[N]` are ascending.

        context encoded, `[N, C]`; action served, `[N]`; reward raw, `[N]`; done bool `[N]`.
        """
        encoded = encode_reward(reward, self._spec.reward.min, self._spec.reward.max)
        shown, ended = self._shown(context), np.asarray(done, np.float32)
        starts = [part.start for part in self._parts]
        bounds = [*np.searchsorted(accounts, starts), len(accounts)]
        for i, part in enumerate(self._parts):
            of_part = slice(bounds[i], bounds[i + 1])
            rows = accounts[of_part] - part.start
            if not rows.size:
                continue
            memory = self._memories[i]
            whole = rows.size == part.stop - part.start
            after = self._policy.learn(
                memory if whole else Memory(*(held[rows] for held in memory)),
                context=shown[of_part],
                action=action[of_part],
                reward=encoded[of_part],
                done=ended[of_part],
                action_features=self._features[: rows.size],
            )
            if whole:
                self._memories[i] = after
            else:
                for held, new in zip(memory, after, strict=True):
                    held[rows] = new
        self._position[accounts] += 1

    def _shown(self, context: Array) -> Float32:
        """The context `[N, C]` with as many slots as the policy takes."""
        shown = np.zeros((len(context), self._policy.manifest.context_size), np.float32)
        slots = 0 if self._blind else min(context.shape[1], shown.shape[1])
        shown[:, :slots] = context[:, :slots]
        return shown
