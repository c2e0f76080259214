"""Whole trials played by a network, many at once. It never changes a weight, or knows a family.

The step is the service's: decide from the memory, draw by `contract.draw.sample`, learn what has
been fed back by then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from contract.draw import sample
from contract.encode import encode_reward, horizon_left
from training.policies.network import Network
from training.record import Record
from training.tasks.task import TOLD, Informed, Masked, Recounting, Situated, Task


@runtime_checkable
class Believing(Protocol):
    """A network whose beliefs stand still while TRPO trains the rest."""

    def recorded(self, record: Record) -> Record:
        """The record with what the beliefs say of it."""
        ...

    def surprise(self, record: Record) -> Tensor:
        """Mean negative log-likelihood of its rewards, by which the beliefs are fitted."""
        ...

    def belief_parameters(self) -> list[nn.Parameter]:
        """What is fitted."""
        ...


class Looks(Protocol):
    """A network's two functions, which begin alike, with what costs most: one look serves both."""

    def look(self, shared: Tensor, context: Tensor) -> Tensor:
        """What both begin with, `[B, H]`."""
        ...

    def decide_from(self, hidden: Tensor, action_mask: Tensor) -> Tensor:
        """The rest of `decide`, but for the value: probabilities `[B, K]`."""
        ...

    def learn_from(self, hidden: Tensor, action: Tensor, reward: Tensor, done: Tensor) -> Tensor:
        """The rest of `learn`: the new `shared`."""
        ...


@runtime_checkable
class Looking(Protocol):
    """A network that can be asked so."""

    def ready(self) -> Looks:
        """With the weights as they are now."""
        ...


class Draws(Protocol):
    """Where a rollout's random numbers come from: a generator, or what one dealt before."""

    def random(self, size: int, /) -> NDArray[np.float64]:
        """Uniform in [0, 1)."""
        ...


@dataclass(frozen=True)
class Played:
    """B finished trials of T steps."""

    record: Record
    reward: NDArray[np.float32]
    """Raw, `[T, B]`."""
    expected: NDArray[np.float64]
    """The mean of the action played, `[T, B]`: known to the simulator alone."""
    best: NDArray[np.float64]
    """What the best play earns at that step, `[T, B]`."""
    random: NDArray[np.float64]
    """What random play earns at that step, `[T, B]`."""
    reward_range: tuple[float, float] = (0.0, 1.0)
    """The range that rewards are declared in."""
    lost: NDArray[np.float64] | None = None
    """What the action played cost, in expectation, where the task knows it, `[T, B]`."""
    costs: NDArray[np.float64] | None = None
    """What every action would have cost, where the task knows it, `[T, B, K]`; 0 where masked."""
    expected_cost: NDArray[np.float64] | None = None
    """The same in expectation over the policy that played, `[T, B]`."""

    @property
    def gap_closed(self) -> float:
        """Share of the gap between random play and always the best that was closed."""
        floor, ceiling = self.random.mean(), self.best.mean()
        return float((self.expected.mean() - floor) / (ceiling - floor))

    def encoded(self, reward: NDArray[np.float64]) -> NDArray[np.float32]:
        """Mean rewards of any shape in [−1, 1], by the range that rewards are declared in."""
        return encode_reward(reward, *self.reward_range)


@torch.no_grad()
def play(
    network: Network,
    task: Task,
    rng: Draws,
    greedy: bool = False,
    random: bool = False,
    beliefs: bool = True,
) -> Played:
    """New trials on `task`, from the blank memory to the last step.

    The network draws from its probabilities, or takes the most probable action, or any allowed one
    at random. `beliefs`: whether the record holds what the network's beliefs say; it learns from no
    other, but likelihood and looks do without.
    """
    B, K, T = task.num_envs, task.actions, task.steps
    context, _ = task.reset()
    shared, rows = network.blank(B, K)
    situated = task if isinstance(task, Situated) else None
    masked = task if isinstance(task, Masked) else None
    mask, features = torch.ones(B, K, dtype=torch.bool), _features(network, task)
    known = task.known
    left = situated.told_horizon if situated else horizon_left(known, T)
    horizon = torch.as_tensor(left)[:, None].expand(T, B, 2)
    masks: list[Tensor] = []
    contexts: list[Tensor] = []
    actions: list[Tensor] = []
    shown: list[Tensor] = []
    ends: list[Tensor] = []
    rewards, expected, best, by_chance = [], [], [], []
    recounting = task if isinstance(task, Recounting) else None
    informed = task if isinstance(task, Informed) and not recounting else None
    told: list[Tensor] = []
    lost = []
    costs, expected_cost = [], []
    learned = 0
    at_once = np.array_equal(known, np.arange(T))
    looking = network.ready() if isinstance(network, Looking) and at_once else None
    hidden = None
    for t in range(T):
        while learned < known[t]:
            if looking and hidden is not None:
                new = actions[learned], shown[learned], ends[learned]
                shared, learned = looking.learn_from(hidden, *new), learned + 1
                continue
            shared, rows = network.learn(
                shared,
                rows,
                contexts[learned],
                actions[learned],
                shown[learned],
                ends[learned],
                features,
            )
            learned += 1
        contexts.append(_padded(context, network.sizes.context))
        if masked:
            allowed = masked.mask
            mask = torch.as_tensor(allowed)
            masks.append(mask)
        if situated:
            cost = _costs(situated.means, allowed)
        if looking:
            hidden = looking.look(shared, contexts[t])
            probabilities = looking.decide_from(hidden, mask)
        else:
            probabilities, _ = network.decide(shared, rows, contexts[t], mask, horizon[t], features)
        if random:
            probabilities = mask / mask.sum(1, keepdim=True)
        if greedy:
            action = probabilities.cpu().numpy().argmax(1)
        else:
            action = sample(probabilities.cpu().numpy(), rng.random(B))
        if situated:
            weights = probabilities.cpu().numpy()
            told.append(_told(weights, allowed, cost))
            costs.append(cost)
            expected_cost.append((weights * cost).sum(1))
            lost.append(cost[np.arange(B), action])
        elif informed:
            told.append(torch.as_tensor(informed.told()))
            lost.append(informed.lost(action))
        if not recounting:
            expected.append(task.expected(action))
            floor, ceiling = task.bounds()
            by_chance.append(floor)
            best.append(ceiling)
        context, reward, terminated, truncated, _ = task.step(action)
        actions.append(torch.as_tensor(action))
        rewards.append(reward)
        shown.append(torch.as_tensor(task.shown(reward)))
        ends.append(torch.as_tensor((terminated | truncated).astype(np.float32)))
    if recounting:
        recount = recounting.recount(torch.stack(actions).cpu().numpy())
        told, lost = list(torch.as_tensor(recount.told)), list(recount.lost)
        expected, best = list(recount.expected), list(recount.best)
        by_chance = list(recount.random)
    record = Record(
        action=torch.stack(actions),
        reward=torch.stack(shown),
        done=torch.stack(ends),
        horizon_left=horizon,
        context=torch.stack(contexts),
        action_features=features,
        action_mask=torch.stack(masks) if masks else mask,
        known=None if at_once else torch.as_tensor(known),
        told=torch.stack(told) if told else None,
    )
    if beliefs and isinstance(network, Believing):
        record = network.recorded(record)
    return Played(
        record,
        np.stack(rewards),
        np.stack(expected),
        np.stack(best),
        np.stack(by_chance),
        task.reward_range,
        np.stack(lost) if lost else None,
        np.stack(costs) if costs else None,
        np.stack(expected_cost) if costs else None,
    )


def _features(network: Network, task: Task) -> Tensor:
    """The actions' features `[B, K, F]`, zeros to the right where the network takes more."""
    shape = (task.num_envs, task.actions, network.sizes.action_features)
    features = np.zeros(shape, np.float32)
    if isinstance(task, Situated):
        features[..., : task.action_features.shape[-1]] = task.action_features
    return torch.as_tensor(features)


def _padded(context: NDArray[np.float32], size: int) -> Tensor:
    """A context `[B, C]` with zeros to the right where the network takes more."""
    found = torch.as_tensor(context)
    return functional.pad(found, (0, size - found.shape[1])) if found.shape[1] < size else found


def _costs(means: NDArray[np.float64], allowed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """How far each action is below the best that is allowed, `[B, K]`, 0 where it is masked."""
    best = means.max(1, where=allowed, initial=-np.inf)[:, None]
    return np.where(allowed, best - means, 0.0)


def _told(
    probabilities: NDArray[np.float32], allowed: NDArray[np.bool_], cost: NDArray[np.float64]
) -> Tensor:
    """What a critic is told of the decision to come, `[B, TOLD]`: nothing of the choice itself."""
    likeliest = probabilities.argmax(1)
    entropy = -(probabilities * np.log(np.maximum(probabilities, 1e-12))).sum(1)
    told = [
        (probabilities * cost).sum(1),
        cost[np.arange(len(cost)), likeliest],
        cost.sum(1) / allowed.sum(1),
        entropy,
    ]
    assert len(told) == TOLD
    return torch.as_tensor(np.stack(told, 1).astype(np.float32))
