"""Steps of Adam: the rate falls, the gradient is clipped, and what is not finite stops the run."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training import distributed

LAST_RATE = 0.05
"""The rate of the last step, as a share of the first's."""
_LARGEST_GRADIENT = 1.0


class TrainingDivergedError(RuntimeError):
    """A number that training needs is not finite. The message says which, and when."""


def falling(rate: float, share: float) -> float:
    """A rate that falls in a straight line, after a share of the steps; past the end, the last."""
    return rate * (1.0 - (1.0 - LAST_RATE) * min(1.0, share))


def at_rate(optimiser: torch.optim.Adam, rate: float) -> None:
    """Sets the rate of the steps to come."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def descend(
    loss: Tensor,
    optimiser: torch.optim.Adam,
    parameters: list[nn.Parameter],
    name: str,
    iteration: int,
) -> None:
    """One step of Adam, the gradient's norm at most 1.

    Raises TrainingDivergedError before a step that is not finite.
    """
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    distributed.average_gradients(parameters)
    norm = nn.utils.clip_grad_norm_(parameters, _LARGEST_GRADIENT)
    for what, number in (("loss", distributed.mean(loss.detach())), ("gradient", norm)):
        if not bool(torch.isfinite(number)):
            raise TrainingDivergedError(f"iteration {iteration}: the {name}'s {what} is not finite")
    optimiser.step()
