"""What a task family must offer so that a policy can be trained on it. Numpy only: never torch.

An observation is the context a policy is shown, already encoded. Rollouts, learner and curriculum
ask for nothing beyond this, so a new family needs no change there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from contract.encode import Float32

Array = NDArray[Any]
R = TypeVar("R")


class Task(Protocol):
    """B trials of T steps on K actions, one task each, in Gymnasium's `VectorEnv` words."""

    num_envs: int
    """B."""

    @property
    def actions(self) -> int:
        """K."""
        ...

    @property
    def steps(self) -> int:
        """T, over all episodes."""
        ...

    @property
    def known(self) -> NDArray[np.int64]:
        """How many interactions have been fed back before decision t, at most t, `[T]`."""
        ...

    @property
    def reward_range(self) -> tuple[float, float]:
        """The range that rewards are declared in."""
        ...

    def reset(self) -> tuple[Float32, dict[str, Any]]:
        """New tasks for every trial: context `[B, C]`, info."""
        ...

    def step(self, actions: Array) -> tuple[Float32, Array, Array, Array, dict[str, Any]]:
        """Actions `[B]`: context `[B, C]`, reward, terminated, truncated, each `[B]`, and info."""
        ...

    def shown(self, reward: Array) -> Float32:
        """Rewards of any shape as a policy is shown them, in [−1, 1]."""
        ...

    def expected(self, actions: Array) -> NDArray[np.float64]:
        """The mean reward of these actions `[B]` at the step to come: the simulator's knowledge."""
        ...

    def bounds(self) -> tuple[Array, Array]:
        """What random play and the best play earn at the step to come, `[B]` each.

        They must not depend on what was played: the best is subtracted from returns.
        """
        ...


@runtime_checkable
class Informed(Task, Protocol):
    """A task that knows what a choice costs, and tells a critic where the trials stand.

    What is told may depend on the whole past and on the task, but not on the choice to come, so
    that a critic which hears it leaves the policy gradient unbiased.
    """

    def lost(self, actions: Array) -> NDArray[np.float64]:
        """What these actions `[B]` cost, in expectation, if the best play followed, `[B]`."""
        ...

    def told(self) -> Float32:
        """What a critic is told before the next choice, `[B, P]`."""
        ...


@dataclass(frozen=True)
class Recount:
    """What an informed task says of T steps of B trials, in the words of its methods."""

    expected: NDArray[np.float64]
    """`[T, B]`."""
    random: NDArray[np.float64]
    """The lower of the bounds, `[T, B]`."""
    best: NDArray[np.float64]
    """The higher, `[T, B]`."""
    lost: NDArray[np.float64]
    """`[T, B]`."""
    told: Float32
    """`[T, B, P]`."""


@runtime_checkable
class Recounting(Informed, Protocol):
    """A task that says all it knows after the last step, cheaper than step by step."""

    def recount(self, actions: Array) -> Recount:
        """Of every step since `reset`, whose actions were these, `[T, B]`."""
        ...


@runtime_checkable
class Spread(Task, Protocol):
    """A task whose trials live in other processes, which can play their own."""

    @property
    def parts(self) -> Sequence[slice]:
        """Which trials each of them has; empty where there is none."""
        ...

    def spread(self, jobs: Sequence[Callable[[Any], R]]) -> list[R]:
        """New trials: has each process do its job with a task of its own part, all at once. Jobs
        and what comes of them are pickled; a process that dies begins its job again."""
        ...


TOLD = 4
"""Numbers that a critic is told of a decision in a task whose means are known."""


@runtime_checkable
class Masked(Task, Protocol):
    """A task that says which actions a decision may use."""

    @property
    def mask(self) -> NDArray[np.bool_]:
        """What the decision to come may use, `[B, K]`; one action alone is forced."""
        ...


@runtime_checkable
class Situated(Masked, Protocol):
    """A task whose decisions have a mask, features of the actions, and means that are known."""

    @property
    def action_features(self) -> Float32:
        """Of each action, for all trials alike `[K, F]`, or for each `[B, K, F]`."""
        ...

    @property
    def told_horizon(self) -> Float32:
        """What a policy is told of the trial that is left, `[T, 2]`: as a service tells it, which
        does not know when an account ends."""
        ...

    @property
    def means(self) -> NDArray[np.float64]:
        """What each action would earn, `[B, K]`; where a choice moves the state, with what it does
        to the rest."""
        ...
