"""Engines in worker processes, whose pictures lie in shared memory. It knows nothing of trials.

An engine that dies, or a whole worker, is started again and its episode replayed: the engine is
deterministic, so who looks on sees a pause and nothing else.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import shared_memory
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from training.tasks.mazes.engine import (
    CHANNELS,
    HEIGHT,
    POSE,
    WIDTH,
    Engine,
    EngineError,
    check_wad,
    refuse_little_shared_memory,
    refuse_missing_engine,
)

_CONTEXT = multiprocessing.get_context("spawn")
_PATIENCE_SECONDS = 60.0
"""A worker that says nothing for so long is taken for dead."""
_GLANCE_SECONDS = 0.2
"""How often a worker that has not answered is looked at. Its pipe alone does not tell: the engines
of a killed worker hold it open."""
_BLIND = {"random", "blind"}
"""What is asked of engines alone: no picture is taken."""
_ATTEMPTS = 3
"""Starts of a worker in a row, without a step in between, before it is given up."""


@dataclass
class _Place:
    """What one engine is doing, so that another could do it again."""

    maze: int = 0
    actions: list[int] = field(default_factory=list)


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
        self.pictures, self.poses, self._ended = _views(self._memory, count)
        self._rows = np.array_split(np.arange(count), workers)
        self._places = [_Place() for _ in range(count)]
        self._processes: list[Any] = [None] * workers
        self._pipes: list[Connection | None] = [None] * workers
        self._failures = [0] * workers
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
            self._places[engine] = _Place(int(maze))
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
                with suppress(OSError):
                    pipe = self._pipes[worker]
                    assert pipe is not None
                    pipe.send(mine)
        for worker in asked:
            self._await(worker)

    def _await(self, worker: int) -> None:
        """Waits for a worker's answer. One that died is started again, its episodes replayed."""
        pipe, process = self._pipes[worker], self._processes[worker]
        assert pipe is not None
        patience = time.monotonic() + _PATIENCE_SECONDS
        cause = f"it said nothing for {_PATIENCE_SECONDS:.0f} s"
        try:
            while time.monotonic() < patience:
                alive = process.is_alive()
                if pipe.poll(_GLANCE_SECONDS if alive else 0.0):
                    failed = pipe.recv()
                    if failed is None:
                        self._failures[worker] = 0
                        return
                    cause = str(failed)
                    break
                if not alive:
                    cause = "its process ended"
                    break
        except (EOFError, OSError):
            cause = "its process ended"
        self._again(worker, cause)

    def _again(self, worker: int, cause: str) -> None:
        self._failures[worker] += 1
        if self._failures[worker] > _ATTEMPTS:
            raise EngineError(
                f"worker {worker} failed {_ATTEMPTS} times in a row, the last time because {cause}"
            )
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
            target=_serve,
            args=(theirs, self._wad, rows, self._memory.name, count, self._seed),
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
    def pids(self) -> list[int]:
        """The workers' process ids."""
        return [process.pid for process in self._processes if process is not None]


def _views(memory: shared_memory.SharedMemory, count: int) -> tuple[Any, Any, Any]:
    """Pictures, poses and ends of B engines, as arrays over the shared memory."""
    size = HEIGHT * WIDTH * CHANNELS
    shape = (count, HEIGHT, WIDTH, CHANNELS)
    poses: Any = np.ndarray((count, POSE), np.float64, memory.buf)
    ended: Any = np.ndarray((count,), np.int64, memory.buf, offset=count * POSE * 8)
    pictures: Any = np.ndarray(shape, np.uint8, memory.buf, offset=count * (POSE + 1) * 8)
    assert pictures.nbytes == count * size
    return pictures, poses, ended


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


def _serve(pipe: Connection, wad: Path, rows: list[int], name: str, count: int, seed: int) -> None:
    """A worker: does what it is asked to with its engines until its pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    memory = shared_memory.SharedMemory(name=name)
    pictures, poses, ended = _views(memory, count)
    engines: dict[int, Engine] = {}
    with tempfile.TemporaryDirectory(prefix="acclimate-mazes-") as scratch:
        os.chdir(scratch)  # ViZDoom leaves a folder where it starts
        try:
            while (asked := pipe.recv()) is not None:
                try:
                    for row, what, argument in asked:
                        if row not in engines:
                            own = Path(scratch) / str(row)
                            own.mkdir()
                            engines[row] = Engine(wad, own, seed)
                        over = _do(engines[row], what, argument)
                        ended[row] = over
                        if not over and what not in _BLIND:
                            engines[row].show(pictures[row], poses[row])
                except EngineError as error:
                    pipe.send(str(error))
                    return
                pipe.send(None)
        except (EOFError, OSError):
            pass
        finally:
            for engine in engines.values():
                with suppress(Exception):
                    engine.close()
            del pictures, poses, ended
            memory.close()


def _do(engine: Engine, what: str, argument: Any) -> bool:
    """One thing asked of an engine. Returns whether the episode is over."""
    if what == "act":
        return engine.act(argument)
    if what == "restart":
        engine.restart()
        return False
    if what == "load":
        engine.load(argument)
        return False
    if what in _BLIND:
        drawn = np.random.default_rng(argument).integers(0, 3, argument)
        for action in [argument] if what == "blind" else drawn:
            if engine.act(int(action)):
                engine.restart()
        return False
    maze, actions = argument
    engine.load(maze)
    over = False
    for action in actions:
        over = engine.act(action)
    return over
