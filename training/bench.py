"""Environment steps a second through a whole training iteration, beside a peer and the least time.

The flat GRU under TRPO here, against sb3-contrib's RecurrentPPO on the same bandits with the same
width, each with the processes, threads and number of environments that suit it best on the same
cores; and against this iteration's own matrix products, alone. Turns are taken one after another,
so what else a machine does meets both. It must never give the peer other cores.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch

from training.bench_peer import Peer, build_peer, seconds_of, settings_of
from training.bench_workers import Work, working
from training.hyperparameters import Hyperparameters

PACKAGES = ("torch", "numpy", "sb3-contrib", "stable-baselines3")


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    n: int = 100
    k: int = 5
    width: int = 256
    """The paper's, and what the peer has by default."""
    trials: int = 1_000
    """Trials that an iteration here plays."""
    fisher_trials: float = 0.1
    """Share of them in the Fisher product, as in Schulman et al. (2015)."""
    environments: Sequence[int] = (16, 32, 64, 128, 256, 512, 1_024)
    """Numbers of environments that the peer is tried with."""
    parts: Sequence[int] = (1,)
    """Minibatches of an epoch that the peer is tried with. No kept result tells what more than one
    would cost it; `(1, 4)` measures that."""
    layouts: Sequence[tuple[int, int]] = ((1, 1), (1, 2), (2, 1))
    """(processes, threads of each) that TRPO is tried with."""
    threads: Sequence[int] = (1, 2)
    """Numbers of threads that the peer is tried with."""
    repetitions: int = 7
    seed: int = 1


def run(settings: Settings, say: Callable[[str], None]) -> dict[str, Any]:
    """All figures. `say` hears what is being done."""
    work, tried = _best_layout(settings, say)
    peer, peer_threads, peer_tried = _best_peer(settings, say)
    model = build_peer(peer, settings.k, settings.n, settings.seed)
    torch.set_num_threads(peer_threads)
    seconds_of(model, peer, 1)

    took, took_peer, took_products = [], [], []
    operations = 0.0
    with working(work) as workers:
        for turn in range(settings.repetitions):
            took.append(workers.iterate())
            seconds, operations = workers.products()
            took_products.append(seconds)
            took_peer += seconds_of(model, peer, 1)
            say(
                f"turn {turn + 1} of {settings.repetitions}: {_rate(settings, took[-1]):,.0f} and "
                f"{peer.steps / took_peer[-1]:,.0f} steps/s; products {seconds / took[-1]:.0%}"
            )

    ours_rate = [_rate(settings, seconds) for seconds in took]
    peer_rate = [peer.steps / seconds for seconds in took_peer]
    ratios = [mine / theirs for mine, theirs in zip(ours_rate, peer_rate, strict=True)]
    whole = [mine / alone for mine, alone in zip(took, took_products, strict=True)]
    return {
        "steps_per_s": median(ours_rate),
        "recurrent_ppo_steps_per_s": median(peer_rate),
        "ratio": median(ratios),
        "matmul_ratio": median(whole),
        "spread": {
            "steps_per_s": [min(ours_rate), max(ours_rate)],
            "recurrent_ppo_steps_per_s": [min(peer_rate), max(peer_rate)],
            "ratio": [min(ratios), max(ratios)],
            "matmul_ratio": [min(whole), max(whole)],
        },
        "repetitions": settings.repetitions,
        "seconds_an_iteration": median(took),
        "seconds_of_its_products": median(took_products),
        "gflop_an_iteration": operations / 1e9,
        "task": {"family": "bernoulli bandit", "n": settings.n, "k": settings.k},
        "trpo": {
            "network": "gru",
            "width": settings.width,
            "steps_an_iteration": settings.trials * settings.n,
            "processes": work.processes,
            "threads": work.threads,
            "hyperparameters": asdict(work.hyperparameters),
            "tried": tried,
        },
        "recurrent_ppo": settings_of(peer, model) | {"threads": peer_threads, "tried": peer_tried},
        "machine": _machine(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def _best_layout(
    settings: Settings, say: Callable[[str], None]
) -> tuple[Work, list[dict[str, Any]]]:
    """The processes and threads that make most steps a second, and all that was tried."""
    tried: list[dict[str, Any]] = []
    best: tuple[float, Work] | None = None
    for processes, threads in settings.layouts:
        work = Work(
            n=settings.n,
            k=settings.k,
            width=settings.width,
            trials=settings.trials,
            processes=processes,
            threads=threads,
            hyperparameters=Hyperparameters(fisher_trials=settings.fisher_trials),
            seed=settings.seed,
        )
        with working(work) as workers:
            rate = _rate(settings, min(workers.iterate() for _ in range(2)))
        shown = {"processes": processes, "threads": threads}
        tried.append({**shown, "steps_per_s": rate})
        say(f"TRPO, {shown}: {rate:,.0f} steps/s")
        if best is None or rate > best[0]:
            best = rate, work
    assert best is not None
    return best[1], tried


def _best_peer(
    settings: Settings, say: Callable[[str], None]
) -> tuple[Peer, int, list[dict[str, Any]]]:
    """The peer and the threads that make most steps a second, and all that was tried."""
    tried: list[dict[str, Any]] = []
    best: tuple[float, Peer, int] | None = None
    for environments in settings.environments:
        for parts in settings.parts:
            peer = Peer(environments, parts, settings.width, settings.n)
            for threads in settings.threads:
                torch.set_num_threads(threads)
                model = build_peer(peer, settings.k, settings.n, settings.seed)
                seconds_of(model, peer, 1)
                rate = peer.steps / min(seconds_of(model, peer, 2))
                shown = {"environments": environments, "parts": parts, "threads": threads}
                tried.append({**shown, "steps_per_s": rate})
                say(f"RecurrentPPO, {shown}: {rate:,.0f} steps/s")
                if best is None or rate > best[0]:
                    best = rate, peer, threads
    assert best is not None
    return best[1], best[2], tried


def quick(settings: Settings) -> Settings:
    """Every part for a moment: no figures to keep."""
    return replace(
        settings,
        trials=200,
        environments=(16,),
        parts=(1,),
        layouts=((1, 1),),
        threads=(1,),
        repetitions=1,
        width=8,
    )


def _rate(settings: Settings, seconds: float) -> float:
    return settings.trials * settings.n / seconds


def _machine() -> dict[str, Any]:
    """What to tell with every figure."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    } | {name: version(name) for name in PACKAGES}
