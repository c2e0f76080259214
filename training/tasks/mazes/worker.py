"""What a worker process does: steps its engines as it is asked to, or does a job with them.

It must never know what other workers do; whoever asks waits for its answer, and starts another
where it dies.
"""

from __future__ import annotations

import os
import pickle
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import shared_memory
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from training.tasks.mazes.engine import CHANNELS, HEIGHT, POSE, WIDTH, Engine, EngineError
from training.tasks.mazes.seats import Place, Seats

_BLIND = {"random", "blind"}
"""What is asked of engines alone: no picture is taken."""


@dataclass(frozen=True)
class Done:
    """What a worker answers when its job is done."""

    came: Any
    """What the job returned."""
    places: list[Place]
    """Where its engines stand now."""


@dataclass(frozen=True)
class Raised:
    """What a worker answers when its job, not its engine, went wrong."""

    trace: str


GOING_ON = "going on"
"""What a worker says now and then while it has a job."""


def views(memory: shared_memory.SharedMemory, count: int) -> tuple[Any, Any, Any]:
    """Pictures, poses and ends of B engines, as arrays over the shared memory."""
    size = HEIGHT * WIDTH * CHANNELS
    shape = (count, HEIGHT, WIDTH, CHANNELS)
    poses: Any = np.ndarray((count, POSE), np.float64, memory.buf)
    ended: Any = np.ndarray((count,), np.int64, memory.buf, offset=count * POSE * 8)
    pictures: Any = np.ndarray(shape, np.uint8, memory.buf, offset=count * (POSE + 1) * 8)
    assert pictures.nbytes == count * size
    return pictures, poses, ended


def serve(
    pipe: Connection,
    wad: Path,
    rows: list[int],
    name: str,
    count: int,
    seed: int,
    core: int | None,
) -> None:
    """A worker: does what it is asked to with its engines until its pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.set_inheritable(pipe.fileno(), False)  # or engines would hold it open when this one is dead
    if core is not None:
        os.sched_setaffinity(0, {core})
    memory = shared_memory.SharedMemory(name=name)
    pictures, poses, ended = views(memory, count)
    engines: dict[int, Engine] = {}
    with tempfile.TemporaryDirectory(prefix="acclimate-mazes-") as scratch:
        os.chdir(scratch)  # ViZDoom leaves a folder where it starts
        try:
            while (asked := pipe.recv()) is not None:
                try:
                    if isinstance(asked, bytes):
                        mine = slice(rows[0], rows[-1] + 1)
                        own = [engines[row] for row in rows]
                        seats = Seats(own, pictures[mine], poses[mine], _every_second(pipe))
                        pipe.send(_done(asked, seats))
                        continue
                    for row, what, argument in asked:
                        if row not in engines:
                            folder = Path(scratch) / str(row)
                            folder.mkdir()
                            engines[row] = Engine(wad, folder, seed)
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


def _done(job: bytes, seats: Seats) -> Done | Raised:
    """Does a job. An engine's death ends the worker, as ever; an error of the job is told."""
    try:
        return Done(pickle.loads(job)(seats), seats.places)
    except EngineError:
        raise
    except Exception:
        return Raised(traceback.format_exc())


def _every_second(pipe: Connection) -> Callable[[], None]:
    """Says at most once a second that a job goes on."""
    said = time.monotonic()

    def going_on() -> None:
        nonlocal said
        if time.monotonic() > said + 1.0:
            pipe.send(GOING_ON)
            said = time.monotonic()

    return going_on


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
