"""`vision` one step at a time, its weights laid out for that: what `Vision.look` says, in half the
time, within the rounding of sums. For rollouts; nothing can be differentiated through it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from training.policies.vision import Vision


class Glance:
    """The weights of a policy as they are now; see `rollout.Looks`."""

    def __init__(self, policy: Vision, stride: int, widest: float) -> None:
        sizes, eyes = policy.sizes, policy.eyes
        weights = {name: one.detach() for name, one in policy.state_dict().items()}
        self._rays, self._hidden = sizes.rays, sizes.hidden
        self._shape = (-1, sizes.height, sizes.width, sizes.channels)
        self._stride, self._widest = stride, widest
        first, bias = weights["eyes.first.weight"], weights["eyes.first.bias"]
        self._first = _by_pixel(first), bias
        # Of bytes: 2/255 of a byte less one is what a pixel is otherwise encoded as.
        self._first_of_bytes = _by_pixel(first * (2 / 255)), bias - first.sum((1, 2, 3))
        self._second = _by_pixel(weights["eyes.second.weight"]), weights["eyes.second.bias"]
        filters = eyes.second.out_channels
        dense = weights["eyes.dense.weight"].unflatten(1, (filters, *eyes.left))
        by_pixel = dense.permute(0, 2, 3, 1).flatten(1).contiguous()
        self._dense = by_pixel, weights["eyes.dense.bias"]
        self._told = weights["eyes.told.weight"], weights["eyes.told.bias"]
        self._memory = [one.detach() for one in policy.recurrence()]
        self._head = weights["head.weight"], weights["head.bias"]
        self._score = weights["score.weight"], weights["score.bias"]
        self._served = torch.eye(sizes.actions)

    def look(self, shared: Tensor, context: Tensor) -> Tensor:
        """h' `[B, H]`, as `Vision.look`."""
        told = context if self._rays else self._glimpses(context)
        seen = torch.cat([told, shared[:, self._hidden :]], 1)
        observed, observed_bias, recurrent, recurrent_bias = self._memory
        return torch.gru_cell(
            seen, shared[:, : self._hidden], observed, recurrent, observed_bias, recurrent_bias
        )

    def decide_from(self, hidden: Tensor, action_mask: Tensor) -> Tensor:
        """Probabilities `[B, A]`."""
        head = functional.linear(hidden, *self._head).relu_()
        scores = functional.linear(head, *self._score)
        return torch.softmax(scores.masked_fill_(~action_mask, -torch.inf), -1)

    def learn_from(self, hidden: Tensor, action: Tensor, reward: Tensor, done: Tensor) -> Tensor:
        """The new packed memory."""
        return torch.cat([hidden, self._served[action], reward[:, None], done[:, None]], 1)

    def _glimpses(self, pictures: Tensor) -> Tensor:
        """What the eyes tell, `[B, glimpse]`; all of it pixel by pixel, as pictures come."""
        of_bytes = pictures.dtype == torch.uint8
        first = self._first_of_bytes if of_bytes else self._first
        seen = pictures.float().reshape(self._shape).permute(0, 3, 1, 2)
        seen = functional.conv2d(seen, *first, self._stride).relu_()
        seen = functional.conv2d(seen, *self._second, self._stride).relu_()
        flat = seen.permute(0, 2, 3, 1).flatten(1)
        dense = functional.linear(flat, *self._dense).relu_()
        return functional.linear(dense, *self._told).clamp_(-self._widest, self._widest)


def _by_pixel(weight: Tensor) -> Tensor:
    """A convolution's weights with the channels innermost in memory."""
    return weight.contiguous(memory_format=torch.channels_last)
