"""Lessons for mazes from the map explorer (DAgger, Ross et al. 2011), in three stages.

`memory`: the recurrent part walks in a model of the engine and sees rays, ten times as fast as
pictures. `eyes`: pictures are regressed on the rays that they show. `together`: the whole policy
walks in the engine. Beside the advice, a memory is marked on what the explorer knows: where it is,
where it wants to go, its map (auxiliary losses after Mirowski et al. 2017); who marks is not part
of the policy. It must never let a policy see more than pictures, actions and rewards.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from training import distributed
from training.maze_draws import draw_mazes
from training.maze_pupil import FILE, STAGES, Plan, Pupil, begin, save
from training.policies.flat_memory import FlatMemory
from training.policies.vision import Vision
from training.tasks.mazes.layouts import Layout
from training.tasks.mazes.streams import Choose, Help, Lesson, play
from training.tasks.mazes.workers import Engines
from training.tasks.mazes.worlds import EngineWorld, ModelWorld, as_context, wad_for

_LAST_RATE = 0.03
"""Adam's rate at the end of a stage, as a share of its first."""


def teach(
    pupil: Pupil,
    plan: Plan,
    folder: Path,
    stopped: Callable[[], bool],
    on_iteration: Callable[[dict[str, float]], None],
    save_every: int = 20,
) -> bool:
    """All that is left of the stages, until `stopped`. Returns whether they are finished."""
    for stage in STAGES[STAGES.index(pupil.stage) :]:
        if stage != pupil.stage:
            begin(pupil, stage)
        iterations = {"memory": _memory, "eyes": _eyes, "together": _together}[stage](
            pupil, plan, folder
        )
        began, before = time.process_time(), pupil.minutes
        try:
            while pupil.minutes < plan.minutes(stage):
                if distributed.anyone(stopped()):
                    save(pupil, plan, folder / FILE)
                    return False
                _set_rate(pupil, plan, stage)
                walked = pupil.steps
                entry = next(iterations)
                pupil.iteration += 1
                spent = {"minutes": before + (time.process_time() - began) / 60.0}
                pupil.minutes = distributed.mean_of(spent)["minutes"]
                pupil.steps = walked + distributed.total(pupil.steps - walked)
                entry |= {"stage": STAGES.index(stage), "steps": pupil.steps}
                entry |= {"minutes": pupil.minutes, "iteration": pupil.iteration}
                pupil.history.append(entry)
                if pupil.iteration % save_every == 0:
                    save(pupil, plan, folder / FILE)
                on_iteration(entry)
        finally:
            iterations.close()
        save(pupil, plan, folder / FILE)
    return True


def _set_rate(pupil: Pupil, plan: Plan, stage: str) -> None:
    """Adam's rate: warms up over ten iterations, falls linearly from a third of the stage on."""
    share = pupil.minutes / max(plan.minutes(stage), 1e-9)
    fall = 1.0 if share < 0.35 else max(_LAST_RATE, (1.0 - share) / 0.65)
    rate = float(getattr(plan, f"{stage}_rate")) * fall * min(1.0, (pupil.iteration + 1) / 10)
    for group in pupil.optimiser.param_groups:
        group["lr"] = rate


def _memory(pupil: Pupil, plan: Plan, _folder: Path) -> Generator[dict[str, float]]:
    """The recurrent part in the model of the engine, on rays."""
    batches: list[Lesson] = []
    while True:
        mazes = mazes_for(pupil, plan, plan.streams)
        world = ModelWorld(mazes, plan.streams)
        lesson = _walk(pupil, plan, world, np.arange(plan.streams), noise=plan.noise)
        batches = [*batches, lesson][-3:]
        yield _learn(pupil, plan, batches, plan.streams)


def _together(pupil: Pupil, plan: Plan, folder: Path) -> Generator[dict[str, float]]:
    """The whole policy in the engine, on pictures."""
    mazes = mazes_for(pupil, plan, plan.layouts)
    wad = wad_of(mazes, pupil, plan, folder)
    batches: list[Lesson] = []
    with Engines(wad, plan.engines, plan.workers, pupil.seed) as engines:
        world = EngineWorld(mazes, engines)
        while True:
            numbers = pupil.rng.choice(len(mazes), plan.engines, replace=False)
            batches = [*batches, _walk(pupil, plan, world, numbers)][-plan.kept :]
            yield _learn(pupil, plan, batches, plan.engines)


def _eyes(pupil: Pupil, plan: Plan, folder: Path) -> Generator[dict[str, float]]:
    """Pictures to the rays that they show; streams are walked by the explorer and by the pupil."""
    mazes = mazes_for(pupil, plan, plan.layouts)
    wad = wad_of(mazes, pupil, plan, folder)
    pictures: list[NDArray[np.uint8]] = []
    rays: list[NDArray[np.float32]] = []
    with Engines(wad, plan.engines, plan.workers, pupil.seed) as engines:
        world = EngineWorld(mazes, engines)
        while True:
            if len(pictures) < 60:
                numbers = pupil.rng.choice(len(mazes), plan.engines, replace=False)
                walked = _walk(pupil, plan, world, numbers)
                pictures.append(walked.seen.reshape(-1, *walked.seen.shape[2:]).astype(np.uint8))
                rays.append(walked.rays.reshape(-1, walked.rays.shape[-1]))
            errors = []
            for _ in range(40):
                batch = int(pupil.rng.integers(len(pictures)))
                some = pupil.rng.integers(0, len(pictures[batch]), 256)
                told = pupil.policy.eyes(torch.from_numpy(as_context(pictures[batch][some])))
                loss = (told - torch.from_numpy(rays[batch][some])).square().mean()
                _descend(pupil, loss)
                errors.append(float(loss.detach()))
            yield {"glimpse": float(np.mean(errors))}


def mazes_for(pupil: Pupil, plan: Plan, count: int) -> list[Layout]:
    """Training layouts for this process."""
    seed = pupil.seed + distributed.number()
    return draw_mazes(pupil.rng, count, larger=plan.larger, hard=plan.hard, seed=seed)


def wad_of(mazes: list[Layout], pupil: Pupil, plan: Plan, folder: Path) -> Path:
    """A WAD of this process's own."""
    looks = pupil.rng if plan.varied else None
    return wad_for(mazes, folder, f"mazes-{distributed.number()}", looks)


def _walk(
    pupil: Pupil,
    plan: Plan,
    world: ModelWorld | EngineWorld,
    numbers: NDArray[np.int64],
    noise: float = 0.0,
) -> Lesson:
    """Streams that the pupil walks, helped less and less."""
    stage = pupil.stage
    done = pupil.minutes / max(plan.minutes(stage), 1e-9)
    share = plan.help_share
    if stage == "memory":
        share = max(share, 1.0 - len(pupil.history) / 15)
        grown = sum(done >= one for one in plan.until)
        steps = plan.steps[min(grown, len(plan.steps) - 1)]
    else:
        steps = plan.steps[-1 if done >= 0.5 or len(plan.steps) == 1 else -2]
    lesson = play(
        world,
        numbers,
        steps,
        student(pupil.policy, len(numbers)),
        pupil.rng,
        Help(share, plan.help_after),
        noise,
    )
    pupil.steps += lesson.advice.size
    return lesson


def student(policy: Vision, batch: int, greedy: bool = False) -> Choose:
    """The policy step by step, with a memory of its own; rays go past the eyes."""
    hidden = torch.zeros(batch, policy.sizes.hidden)

    @torch.no_grad()
    def choose(seen: NDArray[Any], before: NDArray[np.float32]) -> NDArray[np.float32]:
        nonlocal hidden
        x = torch.cat([_glimpse(policy, seen), torch.from_numpy(before)], -1)
        hidden = policy.hidden(x[None], hidden)[0]
        probabilities: NDArray[np.float32] = torch.softmax(policy.scores(hidden), -1).numpy()
        if greedy:
            best = probabilities.argmax(1)
            chosen: NDArray[np.float32] = np.eye(probabilities.shape[1], dtype=np.float32)[best]
            return chosen
        return probabilities

    return choose


def _glimpse(policy: Vision, seen: NDArray[Any]) -> Tensor:
    """What the memory is told: rays as they are, pictures through the eyes."""
    if seen.dtype != np.uint8:
        return torch.from_numpy(seen)
    return policy.glimpses(torch.from_numpy(as_context(seen)))


def _learn(pupil: Pupil, plan: Plan, batches: list[Lesson], fresh: int) -> dict[str, float]:
    """A few steps of Adam: over what was walked last, and over some of what was walked before."""
    entries = []
    order = pupil.rng.permutation(fresh)
    parts = [(batches[-1], some) for some in np.array_split(order, max(1, fresh // plan.part))]
    for _ in range(len(parts) * (plan.passes - 1)):
        old = batches[int(pupil.rng.integers(len(batches)))]
        some = pupil.rng.choice(fresh, min(plan.part, fresh), replace=False)
        parts.append((old, some))
    for lesson, some in parts:
        entries.append(_step(pupil, lesson, some))
    entry = {key: float(np.mean([one[key] for one in entries])) for key in entries[0]}
    for number, lengths in enumerate(batches[-1].lengths[:3], 1):
        if lengths:
            entry[f"steps {number}"] = float(np.mean(lengths))
    return entry


def _step(pupil: Pupil, lesson: Lesson, some: NDArray[np.int64]) -> dict[str, float]:
    """One step of Adam on some streams of a lesson."""
    policy = pupil.policy
    seen = lesson.seen[:, some]
    T, B = seen.shape[:2]
    flat = seen.reshape(T * B, *seen.shape[2:])
    glimpse = _glimpse(policy, flat).reshape(T, B, -1)
    x = torch.cat([glimpse, torch.from_numpy(lesson.before[:, some])], -1)
    # Rays are data; pictures are not, and the flat pass has no gradient of what was seen.
    through = seen.dtype == np.uint8
    hidden = (
        policy.hidden(x) if through else FlatMemory.apply(x, *policy.recurrence())  # type: ignore[no-untyped-call]
    )
    scores, marked = policy.scores(hidden), pupil.marker(hidden)
    advice = torch.from_numpy(lesson.advice[:, some])
    wanted = torch.from_numpy(lesson.marks[:, some].astype(np.float32))
    advised = functional.cross_entropy(scores.flatten(0, 1), advice.flatten())
    found = wanted[..., 7:8]
    off = (marked - wanted)[..., :10].square().mean((0, 1))
    heading, place = off[2:4].mean(), off[0:2].mean()
    target = ((marked[..., 8:10] - wanted[..., 8:10]).square() * found).mean()
    places = 2.0 * heading + 2.0 * place + off[4:7].mean() + target
    cells = functional.binary_cross_entropy_with_logits(marked[..., 10:], wanted[..., 10:])
    knows = functional.binary_cross_entropy_with_logits(marked[..., 7:8], found)
    loss = advised + places + 5.0 * cells + 0.1 * knows
    glimpsed = torch.zeros(())
    if seen.dtype == np.uint8:
        glimpsed = (glimpse - torch.from_numpy(lesson.rays[:, some])).square().mean()
        loss = loss + 5.0 * glimpsed
    _descend(pupil, loss)
    right = (scores.argmax(-1) == advice).float().mean()
    return {
        "advice": float(advised.detach()),
        "as advised": float(right),
        "heading": float(heading.detach()),
        "place": float(place.detach()),
        "target": float(target.detach()),
        "cells": float(cells.detach()),
        "glimpse": float(glimpsed.detach()),
    }


def _descend(pupil: Pupil, loss: Tensor) -> None:
    if not bool(torch.isfinite(loss)):
        raise FloatingPointError(f"iteration {pupil.iteration + 1}: the loss is not finite")
    parameters = [*pupil.policy.parameters(), *pupil.marker.parameters()]
    pupil.optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    distributed.average_gradients(parameters)
    nn.utils.clip_grad_norm_(parameters, 1.0)
    pupil.optimiser.step()
