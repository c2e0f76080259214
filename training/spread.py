"""A rollout played where its trials live: each process plays its own, with a copy of the network.

Nobody waits for anybody between two steps. Draws are dealt by trial from the one generator, so the
trials are those of `rollout.play`, but for sums that a smaller batch adds up in another order. It
must never know a family.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training import rollout
from training.policies.network import Network, architecture, build
from training.record import Record
from training.rollout import Played
from training.tasks.task import Spread, Task

_ALONG = {"action_features": 0, "action_mask": -2}
"""Along which axis the trials of a record lie, where it is not the second."""


def play(network: Network, task: Task, rng: np.random.Generator, *, greedy: bool = False) -> Played:
    """New trials on `task`, see `rollout.play`, in the processes they live in, or in this one."""
    parts = task.parts if isinstance(task, Spread) else ()
    if not parts:
        return rollout.play(network, task, rng, greedy)
    assert isinstance(task, Spread)
    weights = {name: tensor.cpu().numpy() for name, tensor in network.state_dict().items()}
    sent = pickle.dumps((architecture(network), weights))
    draws = np.zeros((0, task.num_envs)) if greedy else rng.random((task.steps, task.num_envs))
    return _side_by_side(task.spread([_Part(sent, draws[:, part], greedy) for part in parts]))


@dataclass(frozen=True)
class _Part:
    """What one process is to do."""

    network: bytes
    draws: NDArray[np.float64]
    """`[T, B']`."""
    greedy: bool

    def __call__(self, task: Task) -> dict[str, Any]:
        torch.set_num_threads(1)
        (architecture, weights) = pickle.loads(self.network)
        network = _built(architecture["name"], tuple(architecture["sizes"].items()))
        network.load_state_dict({name: torch.as_tensor(one) for name, one in weights.items()})
        with torch.inference_mode():
            played = rollout.play(network, task, _Dealt(self.draws), self.greedy)
        return _plain(played) | {"record": _plain(played.record)}


class _Dealt:
    """Numbers that another process drew, `[T, B]`, a row a step."""

    def __init__(self, draws: NDArray[np.float64]) -> None:
        self._rows = iter(draws)

    def random(self, size: int, /) -> NDArray[np.float64]:
        """The next row, of that `size`."""
        row: NDArray[np.float64] = next(self._rows)
        assert len(row) == size
        return row


@cache
def _built(name: str, sizes: tuple[tuple[str, Any], ...]) -> Network:
    """A network whose weights are to be set; a process keeps it from rollout to rollout."""
    return build(name, dict(sizes))


def _plain(one: Played | Record) -> dict[str, Any]:
    """Its fields, tensors as arrays: torch would send them by files that it shares."""
    found = {field.name: getattr(one, field.name) for field in fields(one)}
    return {
        name: value.numpy() if isinstance(value, Tensor) else value for name, value in found.items()
    }


def _side_by_side(parts: Sequence[dict[str, Any]]) -> Played:
    """The trials of all parts, in their order."""
    records = [cast(dict[str, Any], part.pop("record")) for part in parts]
    record = {name: _joined(name, [one[name] for one in records]) for name in records[0]}
    tensors = {
        name: torch.as_tensor(one) if isinstance(one, np.ndarray) else one
        for name, one in record.items()
    }
    joined = {name: _joined(name, [one[name] for one in parts]) for name in parts[0]}
    return Played(record=Record(**tensors), **joined)


def _joined(name: str, parts: Sequence[Any]) -> Any:
    """A field of all parts; what is no array of trials is the same in each."""
    if not isinstance(parts[0], np.ndarray) or name == "known":
        return parts[0]
    return np.concatenate(parts, _ALONG.get(name, 1))
