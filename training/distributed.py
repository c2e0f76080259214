"""Several processes, one learner: `torchrun` starts them, each plays its own trials.

What the trust region and the optimisers are given is the mean over the processes, so that their
weights stay equal, bit for bit, and the step is the one that a single process would take on all of
their trials together. A process alone passes through untouched. It must never average anything
that only one process computes: all call the same functions in the same order.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as processes
from torch import Tensor

T = TypeVar("T")


class DeviceError(RuntimeError):
    """The device asked for is not there. The message says what is."""


@contextmanager
def together(device: str = "cpu") -> Iterator[None]:
    """While it is entered, tensors are made on `device` and processes that `torchrun` started talk.

    Raises DeviceError for a device that is not there.
    """
    refuse_missing_device(device)
    local = int(os.environ.get("LOCAL_RANK", "0"))
    here = torch.device(device, local) if device == "cuda" else torch.device(device)
    if os.environ.get("WORLD_SIZE", "1") != "1":
        processes.init_process_group("nccl" if device == "cuda" else "gloo")
    if device != "cpu":
        torch.set_default_device(here)
    try:
        yield
    finally:
        if device != "cpu":
            torch.set_default_device("cpu")
        if processes.is_initialized():
            processes.destroy_process_group()


def refuse_missing_device(device: str) -> None:
    """Raises DeviceError unless this machine has the device and enough of them."""
    if device == "cpu":
        return
    if device != "cuda":
        raise DeviceError(f"--device: expected cpu or cuda, got {device}")
    if not torch.cuda.is_available():
        raise DeviceError("--device: cuda is not available here (no driver, or a CPU-only torch)")
    local, found = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local >= found:
        raise DeviceError(
            f"--device: process {local} of this machine has no GPU, there are {found}"
        )


def count() -> int:
    """How many processes there are."""
    return processes.get_world_size() if processes.is_initialized() else 1


def number() -> int:
    """Which one this is, from 0. Number 0 alone writes files and speaks."""
    return processes.get_rank() if processes.is_initialized() else 0


def own_generator(seed: int) -> np.random.Generator:
    """Where this process draws its trials from; number 0 draws what a process alone would."""
    return np.random.default_rng(seed + (number() << 64))


def mean(tensor: Tensor) -> Tensor:
    """The mean over the processes, the same bits in each."""
    if count() == 1:
        return tensor
    total = tensor.clone()
    processes.all_reduce(total)
    return total / count()


def average_gradients(parameters: Sequence[torch.nn.Parameter]) -> None:
    """Replaces gradients by their mean over the processes, in one message."""
    if count() == 1:
        return
    grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    flat = mean(torch.cat([grad.reshape(-1) for grad in grads]))
    parts = torch.split(flat, [grad.numel() for grad in grads])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter)


def mean_of(numbers: dict[str, float]) -> dict[str, float]:
    """Means over the processes, by name."""
    if count() == 1:
        return numbers
    means = mean(torch.tensor(list(numbers.values()), dtype=torch.float64))
    return dict(zip(numbers, means.tolist(), strict=True))


def total(amount: int) -> int:
    """The sum over the processes."""
    return sum(gathered(amount))


def fewest(amount: int) -> int:
    """The least over the processes."""
    return min(gathered(amount))


def anyone(wish: bool) -> bool:
    """Whether any process wishes it."""
    return any(gathered(wish))


def gathered(what: T) -> list[T]:
    """What every process has, in their order, in each of them."""
    if count() == 1:
        return [what]
    found: list[T | None] = [None] * count()
    processes.all_gather_object(found, what)
    return found  # type: ignore[return-value]
