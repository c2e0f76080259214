"""Engines in worker processes, whose pictures lie in shared memory. It knows nothing of trials.

An engine that dies, or a whole worker, is started again and its episode replayed: the engine is
deterministic, so who looks on sees a pause and nothing else. A worker either steps its engines as
it is asked to, or is given a job and does with them what the job says; a job that a worker died of
is begun again.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import shared_memory
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from training.tasks.mazes.engine import (
    CHANNELS,
    HEIGHT,
    POSE,
    WIDTH,
    EngineError,
    check_wad,
    refuse_little_shared_memory,
    refuse_missing_engine,
)
from training.tasks.mazes.seats import Place, Seats
from training.tasks.mazes.worker import GOING_ON, Done, Raised, serve, views

R = TypeVar("R")

_CONTEXT = multiprocessing.get_context("spawn")
_PATIENCE_SECONDS = 60.0
"""A worker that says nothing for so long is taken for dead."""
_GLANCE_SECONDS = 0.2
"""How often a worker that has not answered is looked at."""
_ATTEMPTS = 3
"""Starts of a worker in a row, without a step in between, before it is given up."""


class Engines:
    """B engines over some worker processes. Use it in a `with`, or close it."""

    def __init__(self, wad: Path, count: int, workers: int = 1, seed: int = 0) -> None:
        """Raises EngineError: no engine, no such WAD, or too little shared memory."""
        refuse_missing_engine()
        if not 1 <= workers <= count:
            raise EngineError(f"workers: expected 1 to {count}, got {workers}")
        self.mazes = check_wad(wad)
        refuse_little_shared_memory(count)
        self.restarts = 0
        """Workers that were started again."""
        self._wad, self._seed = wad.resolve(), seed
        picture = HEIGHT * WIDTH * CHANNELS
        pose = POSE * 8
        self._memory = shared_memory.SharedMemory(create=True, size=count * (picture + pose + 8))
        self.pictures, self.poses, self._ended = views(self._memory, count)
        self._rows = np.array_split(np.arange(count), workers)
        self._places = [Place() for _ in range(count)]
        self._processes: list[Any] = [None] * workers
        self._pipes: list[Connection | None] = [None] * workers
        self._failures = [0] * workers
        self._causes = [""] * workers
        self._engines: list[list[int]] = [[] for _ in range(workers)]
        try:
            for worker in range(workers):
                self._start(worker)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def load(self, engines: Sequence[int], mazes: Sequence[int]) -> None:
        """An episode of maze `mazes[i]` of the WAD in engine `engines[i]`, from its start."""
        for engine, maze in zip(engines, mazes, strict=True):
            if not 0 <= maze < self.mazes:
                raise EngineError(f"maze: expected 0 to {self.mazes - 1} of the WAD, got {maze}")
            self._places[engine] = Place(int(maze))
        self._ask({int(engine): ("load", self._places[engine].maze) for engine in engines})

    def restart(self, engines: Sequence[int]) -> None:
        """Another episode of the maze that is loaded."""
        for engine in engines:
            self._places[engine].actions = []
        self._ask({int(engine): ("restart", 0) for engine in engines})

    def act(self, engines: Sequence[int], actions: Sequence[int]) -> NDArray[np.bool_]:
        """One action each: whether the target was touched `[n]`.

        `pictures` uint8 `[B, 30, 40, 3]` and `poses` `[B, POSE]` are of after it; of an episode
        that ended, of before.
        """
        for engine, action in zip(engines, actions, strict=True):
            self._places[engine].actions.append(int(action))
        self._ask({int(e): ("act", int(a)) for e, a in zip(engines, actions, strict=True)})
        ended: NDArray[np.bool_] = self._ended[list(engines)] > 0
        return ended

    @property
    def parts(self) -> list[slice]:
        """Which engines each worker has."""
        return [slice(int(rows[0]), int(rows[-1]) + 1) for rows in self._rows]

    def have(self, jobs: Sequence[Callable[[Seats], R]]) -> list[R]:
        """Has every worker do its job with its own engines, all at once; returns what came of them.

        A job is pickled. It must load its mazes itself, and do the same when it is begun again.
        Raises EngineError for a worker that died of it some times in a row, RuntimeError where the
        job itself raised.
        """
        pickled = [pickle.dumps(job) for job in jobs]
        for worker, job in enumerate(pickled):
            self._send(worker, job)
        came = [self._outcome(worker, job) for worker, job in enumerate(pickled)]
        for worker, one in enumerate(came):
            if isinstance(one, Raised):
                raise RuntimeError(f"worker {worker}: {one.trace}")
        return came

    def _outcome(self, worker: int, job: bytes) -> Any:
        """What came of a job, begun again where its worker died."""
        for attempt in range(_ATTEMPTS):
            if attempt:
                self._send(worker, job)
            answer = self._await(worker)
            if isinstance(answer, Raised):
                return answer
            if isinstance(answer, Done):
                for row, place in zip(self._rows[worker], answer.places, strict=True):
                    self._places[row] = place
                return answer.came
        raise EngineError(_given_up(worker, self._causes[worker]))

    def walk_at_random(self, steps: int, in_turns: bool = False) -> None:
        """Every engine for so many steps, no picture taken: how fast engines are.

        One engine after the other, each in a warm cache, or a step each `in_turns`, as whoever
        waits for an answer has to have them.
        """
        if in_turns:
            for actions in np.random.default_rng(steps).integers(0, 3, (steps, len(self._places))):
                self._ask({row: ("blind", int(action)) for row, action in enumerate(actions)})
        else:
            self._ask(dict.fromkeys(range(len(self._places)), ("random", steps)))
        for place in self._places:
            place.actions = []
        self.restart(range(len(self._places)))

    def close(self) -> None:
        """Ends engines and workers. Safe to call again."""
        for pipe in self._pipes:
            if pipe is not None:
                with suppress(OSError):
                    pipe.send(None)
        for process in self._processes:
            if process is not None:
                process.join(5.0)
                if process.is_alive():
                    process.kill()
                    process.join()
        for engines in self._engines:
            _end_engines(engines)
        self._processes = [None] * len(self._processes)
        self._pipes = [None] * len(self._pipes)
        if self._memory is not None:
            del self.pictures, self.poses, self._ended
            self._memory.close()
            with suppress(FileNotFoundError):
                self._memory.unlink()
            self._memory = None  # type: ignore[assignment]

    def _ask(self, wanted: dict[int, tuple[str, int]]) -> None:
        """Has the workers do it, all at once, and waits for them; the dead ones start again."""
        asked = []
        for worker, rows in enumerate(self._rows):
            mine = [(int(row), *wanted[int(row)]) for row in rows if int(row) in wanted]
            if mine:
                asked.append(worker)
                self._send(worker, mine)
        for worker in asked:
            self._await(worker)

    def _send(self, worker: int, what: Any) -> None:
        """Asks a worker for something. That it is dead is noticed by whoever awaits it."""
        pipe = self._pipes[worker]
        assert pipe is not None
        with suppress(OSError):
            pipe.send(what)

    def _await(self, worker: int) -> Any:
        """A worker's answer. One that died is started again, its episodes replayed: then None."""
        pipe, process = self._pipes[worker], self._processes[worker]
        assert pipe is not None
        patience = time.monotonic() + _PATIENCE_SECONDS
        cause = f"it said nothing for {_PATIENCE_SECONDS:.0f} s"
        try:
            while time.monotonic() < patience:
                alive = process.is_alive()
                if pipe.poll(_GLANCE_SECONDS if alive else 0.0):
                    answer = pipe.recv()
                    if answer == GOING_ON:
                        patience = time.monotonic() + _PATIENCE_SECONDS
                        continue
                    if not isinstance(answer, str):
                        self._failures[worker] = 0
                        return answer
                    cause = answer
                    break
                if not alive:
                    cause = "its process ended"
                    break
        except (EOFError, OSError):
            cause = "its process ended"
        self._again(worker, cause)
        return None

    def _again(self, worker: int, cause: str) -> None:
        self._failures[worker] += 1
        self._causes[worker] = cause
        if self._failures[worker] > _ATTEMPTS:
            raise EngineError(_given_up(worker, cause))
        process = self._processes[worker]
        if process is not None:
            process.kill()
            process.join()
        _end_engines(self._engines[worker])
        self.restarts += 1
        self._start(worker)

    def _start(self, worker: int) -> None:
        """A worker with its engines where they should be."""
        ours, theirs = _CONTEXT.Pipe()
        rows = [int(row) for row in self._rows[worker]]
        count = len(self._places)
        process = _CONTEXT.Process(
            target=serve,
            args=(
                theirs,
                self._wad,
                rows,
                self._memory.name,
                count,
                self._seed,
                _core(worker, len(self._rows)),
            ),
            daemon=True,
            name=f"mazes-{worker}",
        )
        process.start()
        theirs.close()
        self._processes[worker], self._pipes[worker] = process, ours
        ours.send(
            [(row, "replay", (self._places[row].maze, self._places[row].actions)) for row in rows]
        )
        self._await(worker)
        self._engines[worker] = _engines_of(self._processes[worker].pid)

    @property
    def engine_pids(self) -> list[int]:
        """The engines' process ids."""
        return [pid for engines in self._engines for pid in engines]

    @property
    def pids(self) -> list[int]:
        """The workers' process ids."""
        return [process.pid for process in self._processes if process is not None]


def _given_up(worker: int, cause: str) -> str:
    return f"worker {worker} failed {_ATTEMPTS} times in a row, the last time because {cause}"


def _engines_of(worker: int) -> list[int]:
    """Process ids of a worker's engines, which outlive a worker that is killed."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        if parent == worker and _is_engine(int(entry.name)):
            found.append(int(entry.name))
    return found


def _is_engine(pid: int) -> bool:
    try:
        return b"vizdoom" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
    except OSError:
        return False


def _end_engines(pids: list[int]) -> None:
    """Ends those that still run."""
    for pid in filter(_is_engine, pids):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _core(worker: int, workers: int) -> int | None:
    """Which core a worker and its engines keep to, where there are workers for all of them.

    A worker waits while its engine works, so two cores give such a pair nothing; handing a step
    to another core and back costs more than the step where other processes want that core.
    """
    cores = usable_cores()
    return cores[worker % len(cores)] if workers >= len(cores) > 0 else None


def usable_cores() -> list[int]:
    """The cores that this process may run on; none where the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
