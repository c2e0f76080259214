"""The peer of the training benchmark: sb3-contrib's RecurrentPPO on the same bandits.

An RL² trial is one of its episodes. It sees what the flat network sees: the action before, its
reward, and that its episode ended. Its settings are its own defaults except where `Peer` says so.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.vec_env import VecEnv

from training.tasks.bandits import BernoulliBandits

Array = NDArray[Any]


@dataclass(frozen=True)
class Peer:
    """What is set by hand; everything else is RecurrentPPO's default."""

    environments: int
    parts: int
    """Minibatches that an epoch is cut into; its default, 128 steps each, is far slower."""
    width: int = 64
    """Of the actor's LSTM and of the critic's."""
    rollout: int = 100
    """Steps an iteration plays in each environment: one whole trial."""

    @property
    def steps(self) -> int:
        """Environment steps of one iteration."""
        return self.environments * self.rollout


class Trials(VecEnv):
    """B trials of n pulls on k arms as its vector environment, all in step, numpy throughout."""

    def __init__(self, trials: int, k: int, n: int, seed: int) -> None:
        self._bandits = BernoulliBandits(trials, k, n, np.random.default_rng(seed))
        self._actions: Array = np.zeros(trials, np.int64)
        seen = gymnasium.spaces.Box(-1.0, 1.0, (k + 2,), np.float32)
        super().__init__(trials, seen, gymnasium.spaces.Discrete(k))

    def reset(self) -> Array:
        """New tasks; nothing was seen yet: `[B, K + 2]`."""
        self._bandits.reset()
        return np.zeros((self.num_envs, self._bandits.k + 2), np.float32)

    def step_async(self, actions: Array) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[Array, Array, Array, list[dict[str, Any]]]:
        _, reward, _, _, info = self._bandits.step(self._actions)
        over = bool(info["trial_over"])
        seen = self._seen(reward)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if over:
            for one, last in zip(infos, seen, strict=True):
                one["terminal_observation"] = last
            seen = self.reset()
        return seen, reward, np.full(self.num_envs, over), infos

    def _seen(self, reward: Array) -> Array:
        served = np.eye(self._bandits.k, dtype=np.float32)[self._actions]
        end = np.ones((self.num_envs, 1), np.float32)
        return np.concatenate([served, (2.0 * reward - 1.0)[:, None], end], 1, dtype=np.float32)

    def close(self) -> None:
        pass

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError(f"{attr_name} cannot be set")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{method_name} is not there to be called")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


def build_peer(peer: Peer, k: int, n: int, seed: int) -> RecurrentPPO:
    """The peer before its first iteration."""
    return RecurrentPPO(
        "MlpLstmPolicy",
        Trials(peer.environments, k, n, seed),
        n_steps=peer.rollout,
        batch_size=max(1, peer.steps // peer.parts),
        policy_kwargs={"lstm_hidden_size": peer.width, "net_arch": []},
        seed=seed,
        device="cpu",
    )


def seconds_of(model: RecurrentPPO, peer: Peer, iterations: int) -> list[float]:
    """How long each of so many whole iterations took: rollout, returns and updates."""
    took = []
    for _ in range(iterations):
        started = time.perf_counter()
        model.learn(peer.steps, reset_num_timesteps=False)
        took.append(time.perf_counter() - started)
    return took


def settings_of(peer: Peer, model: RecurrentPPO) -> dict[str, Any]:
    """What it ran with, its defaults included."""
    names = ("n_steps", "batch_size", "n_epochs", "gamma", "gae_lambda", "learning_rate")
    return asdict(peer) | {name: getattr(model, name) for name in names}
