"""`informed`: a critic of what the simulator tells it, for training alone. It remembers nothing.

A baseline may know the task (an asymmetric critic; Pinto et al. 2018): it takes luck out of the
policy gradient and leaves its mean as it is. It must never be exported or asked for an action.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.bounds import refuse_below
from training.record import Record


@dataclass(frozen=True)
class InformedSizes:
    """What it takes to build the critic again."""

    told: int
    """Numbers that a task tells at every step."""
    width: int = 32

    def __post_init__(self) -> None:
        refuse_below(self, 1, "told", "width")


class InformedCritic(nn.Module):
    """Two hidden layers over (horizon left, what was told)."""

    name = "informed"

    def __init__(self, sizes: InformedSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.first = nn.Linear(2 + sizes.told, sizes.width)
        self.second = nn.Linear(sizes.width, sizes.width)
        self.value = nn.Linear(sizes.width, 1)
        with torch.no_grad():
            self.value.weight.mul_(0.1)
            self.value.bias.zero_()

    def pools(self, records: Sequence[Record], times: Tensor | None = None) -> list[Tensor]:
        """What the value is read from, `[T', B, 2 + P]` for each record."""
        found = []
        for record in records:
            if record.told is None:
                raise ValueError("told: expected a record of an informed task, got none")
            pool = torch.cat([record.horizon_left, record.told], -1)
            found.append(pool if times is None else pool[times])
        return found

    def value_of(self, pool: Tensor) -> Tensor:
        """The value `[...]` read from a pool `[..., 2 + P]`."""
        inner = torch.tanh(self.second(torch.tanh(self.first(pool))))
        return torch.as_tensor(self.value(inner).squeeze(-1))
