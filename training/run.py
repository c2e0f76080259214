"""A training run: iterations until enough, checkpoints on the way, a clean stop when asked.

It must never leave a checkpoint that is half an iteration, or overwrite a good one with a bad one.
"""

from __future__ import annotations

import os
import platform
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import numpy as np
import torch

from training import checkpoints, distributed
from training.curriculum import Curriculum
from training.hyperparameters import Hyperparameters
from training.imitation import lesson, revise
from training.likelihood import fit
from training.policies.network import Network
from training.rollout import play
from training.teachers import build_teacher
from training.trpo import Learner, iterate


@dataclass(frozen=True)
class Schedule:
    """When to stop, look and save; in iterations unless named otherwise."""

    iterations: int | None = None
    """Stop once this many are done, counted from the very start."""
    minutes: float | None = None
    """Stop after this much training time, counted from the very start."""
    check_every: int = 10
    save_every: int = 10

    def done(self, learner: Learner, seconds: float) -> bool:
        """Whether the run has all it asked for."""
        if self.iterations is not None and learner.iteration >= self.iterations:
            return True
        return self.minutes is not None and seconds >= 60.0 * self.minutes


@dataclass
class Stop:
    """Whether somebody asked the run to stop, and by which signal."""

    by: str | None = None


@contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """SIGTERM, SIGINT and SIGHUP become a wish: the iteration in progress is finished first.

    A second SIGTERM or SIGINT raises SystemExit at once. A second SIGHUP does not, since a closed
    terminal may send it twice; one that is ignored, as under nohup, stays ignored.
    """
    stop = Stop()
    terminals = [stream for stream in (1, 2) if os.isatty(stream)]

    def wish(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            _silence(terminals)
        elif stop.by:
            _exit_at_once(number)
        stop.by = stop.by or signal.Signals(number).name

    previous = {
        number: signal.signal(number, wish)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def run(
    learner: Learner,
    hyperparameters: Hyperparameters,
    curriculum: Curriculum,
    record: dict[str, Any],
    schedule: Schedule,
    path: Path,
    stop: Stop,
    on_iteration: Callable[[dict[str, float]], None],
) -> bool:
    """Beliefs are fitted first, where a network has some, then lessons, if there is a teacher, then
    TRPO, until the schedule is done or `stop` is set.

    The last checkpoint is at `path`, written by the first of several processes alone.

    `record["seconds"]` counts training time over all resumptions, and `record["command"]` is kept
    at the one command that gives what is saved. Returns whether it finished.
    """
    asked = hyperparameters.lessons and hyperparameters.teacher != "none"
    teacher = build_teacher(hyperparameters.teacher) if asked else None
    first = distributed.number() == 0
    while not distributed.anyone(
        bool(stop.by) or (first and schedule.done(learner, record["seconds"]))
    ):
        started = time.monotonic()
        if learner.iteration < hyperparameters.fitting:
            entry = fit(learner, hyperparameters, curriculum)
        elif teacher is not None and learner.iteration < hyperparameters.lessons:
            entry = lesson(learner, hyperparameters, curriculum, teacher)
        else:
            entry = iterate(learner, hyperparameters, curriculum)
            if teacher is not None and hyperparameters.revise:
                entry |= revise(learner, hyperparameters, curriculum, teacher)
        is_checked = learner.iteration % schedule.check_every == 0
        if first and (is_checked or learner.iteration == hyperparameters.prepared):
            entry |= look(learner.policy, curriculum)
        learner.history.append(entry)
        record["seconds"] += time.monotonic() - started
        record["command"] = reproducing(record["command"], learner.iteration)
        if learner.iteration % schedule.save_every == 0:
            checkpoints.save(learner, record, hyperparameters, curriculum, path)
        on_iteration({**entry, "seconds": record["seconds"]})
    checkpoints.save(learner, record, hyperparameters, curriculum, path)
    return schedule.done(learner, record["seconds"])


def reproducing(command: str, iterations: int) -> str:
    """The command that trains this many iterations from the start, however it was stopped."""
    kept: list[str] = []
    words = iter(shlex.split(command))
    for word in words:
        if word in ("--iterations", "--minutes"):
            next(words, None)
        elif word != "--resume" and not word.startswith(("--iterations=", "--minutes=")):
            kept.append(word)
    return shlex.join([*kept, "--iterations", str(iterations)])


def machine(threads: int) -> dict[str, Any]:
    """Where, when and with what this training starts, for the provenance of its bundles."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": f"{os.cpu_count()} CPU cores, {platform.machine()}, {platform.system()}",
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "numpy": np.__version__,
        },
        "threads": threads,
    }


def _exit_at_once(number: int) -> NoReturn:
    raise SystemExit(128 + number)


def _silence(streams: list[int]) -> None:
    """What is still to be said goes nowhere: a terminal that hung up cannot be written to."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(nowhere, stream)
    os.close(nowhere)


def look(policy: Network, curriculum: Curriculum) -> dict[str, float]:
    """Mean expected reward of a trial less luck, by look; changes nothing."""
    seen = {}
    for one in curriculum.looks(policy.action_range):
        task, rng = one.draw()
        expected = play(policy, task, rng, beliefs=False).expected
        seen[one.name] = float(expected.sum(0).mean()) - one.luck
    return seen
