"""The processes that a training benchmark times: one learner, a share of its trials in each.

They wait between turns without using a core, so that the peer has the machine in its own.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import torch

from training import distributed
from training.bench_products import CountProducts, floating_operations, seconds_alone
from training.curriculum import BanditCurriculum
from training.hyperparameters import Hyperparameters
from training.policies.network import build
from training.trpo import iterate, new_learner


@dataclass(frozen=True)
class Work:
    """What every process learns on."""

    n: int
    k: int
    width: int
    trials: int
    """An iteration's, all processes together."""
    processes: int
    threads: int
    """Of each process."""
    hyperparameters: Hyperparameters
    seed: int = 1


class Workers:
    """Started processes, to be told what to do."""

    def __init__(self, connections: list[Connection]) -> None:
        self._connections = connections

    def iterate(self) -> float:
        """Seconds of one whole iteration: play, advantages, natural step, critic, value."""
        started = time.perf_counter()
        self._all("iterate")
        return time.perf_counter() - started

    def products(self) -> tuple[float, float]:
        """Seconds of an iteration's matrix products alone, and how many operations they are.

        All processes multiply at the same time; the slowest counts.
        """
        answers = self._all("products")
        return max(seconds for seconds, _ in answers), sum(count for _, count in answers)

    def _all(self, what: str) -> list[Any]:
        for connection in self._connections:
            connection.send(what)
        return [connection.recv() for connection in self._connections]


@contextmanager
def working(work: Work) -> Iterator[Workers]:
    """The processes, after one iteration to warm up; they end with the block."""
    context = get_context("spawn")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    connections, processes = [], []
    for number in range(work.processes):
        here, there = context.Pipe()
        process = context.Process(target=_work, args=(work, number, port, there), daemon=True)
        process.start()
        there.close()
        connections.append(here)
        processes.append(process)
    try:
        workers = Workers(connections)
        workers.iterate()
        yield workers
    finally:
        for connection in connections:
            connection.close()
        for process in processes:
            process.join()


def _work(work: Work, number: int, port: int, connection: Connection) -> None:
    """One process: does as told until the other end hangs up."""
    os.environ |= {
        "WORLD_SIZE": str(work.processes),
        "RANK": str(number),
        "LOCAL_RANK": str(number),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(work.threads)
    with distributed.together():
        h = work.hyperparameters
        sizes = {"actions": work.k, "hidden": work.width}
        policy, critic = (build("gru", sizes, seed=work.seed + i) for i in range(2))
        learner = new_learner(policy, critic, work.seed, h)
        curriculum = BanditCurriculum(
            horizons=1,
            groups=1,
            steps_per_group=work.trials * work.n // work.processes,
            arms=(work.k, work.k),
            pulls=(work.n, work.n),
            held_out_arms=(),
            growing=0,
        ).plain()
        while True:
            try:
                wish = connection.recv()
            except EOFError:
                return
            if wish == "iterate":
                iterate(learner, h, curriculum)
                connection.send(None)
            else:
                with CountProducts() as counted:
                    iterate(learner, h, curriculum)
                seconds = seconds_alone(counted.products)
                connection.send((seconds, floating_operations(counted.products)))
