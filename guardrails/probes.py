"""Contexts to try conditions on: the ends and middles of ranges, and around every number that the
conditions name. They are examples, and prove nothing of what lies between."""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Sequence
from typing import Any

from contract.spec import (
    BooleanFeature,
    CategoryFeature,
    ContextFeature,
    ImageFeature,
    WorkflowSpec,
)

MOST = 256
"""Contexts that are tried at most."""

_NAMED = re.compile(r"\bcontext\.([a-z][a-z0-9_]*)")
_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


def features_named(spec: WorkflowSpec, expressions: Sequence[str]) -> list[str]:
    """The context features that the expressions name, in the spec's order."""
    named = {name for expression in expressions for name in _NAMED.findall(expression)}
    return [name for name in spec.context if name in named]


def probes(spec: WorkflowSpec, expressions: Sequence[str]) -> list[dict[str, Any]]:
    """Contexts of the features that the expressions name: every combination of values worth
    trying, or as many of them at random as are tried at most."""
    numbers = {float(found) for one in expressions for found in _NUMBER.findall(one)}
    numbers |= {value for action in spec.actions for value in action.features.values()}
    names = features_named(spec, expressions)
    values = [_values(spec.context[name], numbers) for name in names]
    if math.prod(map(len, values)) <= MOST:
        combinations = list(itertools.product(*values))
    else:
        chance = random.Random(0)
        combinations = [tuple(map(chance.choice, values)) for _ in range(MOST)]
    return [dict(zip(names, one, strict=True)) for one in combinations]


def _values(feature: ContextFeature, numbers: set[float]) -> list[Any]:
    """What of one feature is worth trying, where conditions name these numbers."""
    match feature:
        case CategoryFeature(values=values):
            return list(values)
        case BooleanFeature():
            return [False, True]
        case ImageFeature():
            return []
        case _:
            low, high = feature.min, feature.max
            step = (high - low) * 1e-6
            near = {number + side * step for number in numbers for side in (-1, 0, 1)}
            inside = {number for number in near if low <= number <= high}
            return sorted({low, low + (high - low) / 2, high} | inside)
