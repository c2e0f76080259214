"""What a student of mazes is taught from: it walks, now and then the explorer for it, and at every
step the explorer says what it would do.

A stream is one maze and as many episodes as fit into its steps. It must never show a student where
it is: that goes into the marks alone, which lessons compare its memory with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.draw import sample
from training.tasks.mazes.explorer import Known, advise
from training.tasks.mazes.ground import MARKS, Ints, marks
from training.tasks.mazes.sight import features
from training.tasks.mazes.worlds import EngineWorld, World, blurred

LIVING = -0.04
"""Reward of a step: −0.01 a tic."""
FOUND = 1.0
BEFORE = 5
"""The interaction before, as a memory is told it: action one-hot, reward, end of episode."""

Choose = Callable[[NDArray[Any], NDArray[np.float32]], NDArray[np.float32]]
"""What is seen `[B, X]` and the interaction before `[B, BEFORE]` to probabilities `[B, A]`: one
step of a student that keeps its own memory."""


@dataclass(frozen=True)
class Lesson:
    """B streams of T steps."""

    seen: NDArray[np.generic]
    """Rays `[T, B, 3R]`, or pictures uint8 `[T, B, 30, 40, 3]` where an engine was walked."""
    rays: NDArray[np.float32]
    """`[T, B, 3R]`."""
    before: NDArray[np.float32]
    """`[T, B, BEFORE]`."""
    advice: Ints
    """`[T, B]`."""
    marks: NDArray[np.float16]
    """`[T, B, MARKS]`."""
    lengths: list[list[int]]
    """Steps of the episodes 1, 2, … that the student walked alone."""


@dataclass(frozen=True)
class Help:
    """How much of the walking the explorer does."""

    share: float = 0.1
    """Of the episodes, from their first step."""
    after: int = 75
    """Steps of an episode after which it takes over, so that the next one is seen as well."""


def play(
    world: World,
    numbers: Ints,
    steps: int,
    choose: Choose,
    rng: np.random.Generator,
    help_: Help,
    noise: float = 0.0,
) -> Lesson:
    """Walks the mazes `numbers` `[B]` for `steps` steps. `noise`: deviation added to the rays."""
    B = len(numbers)
    everybody = np.arange(B)
    world.load(everybody, [int(number) for number in numbers])
    known = Known.nothing(B, world.ground.walls.shape[1] - 4)
    seen, rays, befores, advices, marked = [], [], [], [], []
    before = np.zeros((B, BEFORE), np.float32)
    helped = rng.random(B) < help_.share
    in_episode, episode = np.zeros(B, int), np.zeros(B, int)
    lengths: list[list[int]] = [[] for _ in range(6)]
    for _ in range(steps):
        sight = world.ground.look(world.at)
        known.see(sight, world.ground.target)
        advice, wanted = advise(known, world.at)
        told = features(sight)
        if noise:
            told = blurred(told, noise, rng)
        shown: NDArray[Any] = world.pictures().copy() if isinstance(world, EngineWorld) else told
        seen.append(shown)
        rays.append(told)
        befores.append(before)
        advices.append(advice)
        marked.append(marks(world.ground, known, world.at, wanted).astype(np.float16))
        own = sample(choose(shown, before), rng.random(B))
        action = np.where(helped | (in_episode >= help_.after), advice, own)
        touched = world.act(action)
        in_episode += 1
        before = np.zeros((B, BEFORE), np.float32)
        before[everybody, action] = 1.0
        before[:, 3] = np.where(touched, FOUND, LIVING)
        before[:, 4] = touched
        rows = np.flatnonzero(touched)
        for row in rows[~helped[rows]]:
            lengths[min(episode[row], 5)].append(int(in_episode[row]))
        world.again(rows)
        in_episode[rows] = 0
        episode[rows] += 1
        helped[rows] = rng.random(len(rows)) < help_.share
    assert marked[0].shape == (B, MARKS)
    return Lesson(
        np.stack(seen),
        np.stack(rays),
        np.stack(befores),
        np.stack(advices),
        np.stack(marked),
        lengths,
    )
