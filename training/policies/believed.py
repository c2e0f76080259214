"""What is believed of accounts by models and by statistics, and what a head is told of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.policies import belief
from training.policies.belief import Belief
from training.policies.learned_belief import LearnedBelief
from training.policies.linear_belief import LinearBelief, Prediction
from training.record import Record

Models = LinearBelief | LearnedBelief

_PREDICTED = len(Prediction._fields)
_BELOW = 2
FEATURES = _PREDICTED + _BELOW + belief.FEATURES
"""Of an action: its prediction, how far the means are below the best, and its statistics."""
VIEWS = 2 + belief.VIEWS
"""Of what an action earns: the models', theirs of an account that changes, and the statistics'."""


@dataclass
class Believed:
    """Of B accounts at some position."""

    described: Tensor
    """Actions as the models see them, `[B, K, F]`."""
    known: Tensor
    """The models' shared part, `[B, G]`."""
    own: Tensor
    """The models' part of each action, `[B, K, H]`."""
    statistics: Tensor
    """Of each action, whatever the context, `[B, K, SIZE]`."""
    position: Tensor
    """Interactions learned, `[B]`."""


def nothing_yet(models: Models, described: Tensor) -> Believed:
    """What is believed of accounts that nothing is known of, in memory that may be written."""
    B, K, _ = described.shape
    known, own = models.blank()
    statistics, position = own.new_zeros(B, K, belief.SIZE), known.new_zeros(B)
    return Believed(described, known.expand(B, -1), own.repeat(B, K, 1), statistics, position)


def fold(models: Models, counts: Belief, now: Believed, record: Record, t: int) -> Tensor:
    """Folds the interaction t of a record in, in place; what the models made of it, `[B, 3]`."""
    reward, served = record.reward[t], (torch.arange(record.trials), record.action[t])
    now.known, now.own[served], seen, _ = models.update(
        now.known, now.own[served], record.context[t], reward, now.described[served]
    )
    now.position = now.position + 1.0
    now.statistics[served] = counts.update(now.statistics[served], reward, now.position)
    return seen


def read(models: Models, counts: Belief, now: Believed, context: Tensor) -> Tensor:
    """What is believed of each action in this context `[B, C]`, `[B, K, FEATURES]`."""
    counted = counts.read(counts.now(now.statistics, now.position))
    model = models.predict(now.known, now.own, context, now.described)
    means = torch.stack([model.mean, counted.mean[..., 0]], -1)
    below = means - means.amax(-2, keepdim=True)
    return torch.cat([torch.stack(model, -1), below, counted.features], -1)


def views(reading: Tensor) -> tuple[Tensor, Tensor]:
    """The means and deviations `[..., K, VIEWS]` in what `read` gave; both of the models' go with
    the deviation of the constant, which only choosing an action makes smaller."""
    predicted, _, counted = torch.split(reading, [_PREDICTED, _BELOW, belief.FEATURES], -1)
    model = Prediction(*torch.split(predicted, 1, -1))
    mean, deviation = belief.views(counted)
    constant = model.constant_deviation
    return (
        torch.cat([model.mean, model.changed_mean, mean], -1),
        torch.cat([constant, constant, deviation], -1),
    )
