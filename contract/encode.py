"""Raw context and reward to the numbers a network sees; training and service call the same code.

The ledger keeps the raw values: nothing here is stored.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from contract.spec import (
    BooleanFeature,
    CategoryFeature,
    ContextFeature,
    ImageFeature,
    NumberFeature,
    WorkflowSpec,
)

Float32 = NDArray[np.float32]

LONGEST_HORIZON = 1_000.0
"""The interactions left that `horizon_left` scales to 1."""


Misfit = Literal["undeclared", "missing", "mistyped", "out_of_range"]
"""What may be wrong with a context value; a category's range are its declared values."""


class ContextError(ValueError):
    """A context does not fit its workflow. `field` names the feature, `expected` what fits."""

    def __init__(self, feature: str, expected: str, cause: Misfit) -> None:
        super().__init__(f"context.{feature}: expected {expected}")
        self.feature = feature
        self.field = f"context.{feature}"
        self.expected = expected
        self.cause: Misfit = cause


def check_context(
    spec: WorkflowSpec, context: Mapping[str, Any]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The context as the workflow sees it, and the names of the features that were clipped.

    Raises ContextError for a feature that is unknown, missing, mistyped, not finite, or outside a
    range that the workflow refuses to leave.
    """
    for name in context:
        if name not in spec.context:
            known = ", ".join(spec.context) or "none, this workflow declares no context"
            raise ContextError(_printable(name), f"a declared feature ({known})", "undeclared")
    checked: dict[str, Any] = {}
    clipped: list[str] = []
    for name, feature in spec.context.items():
        value = context.get(name)
        if isinstance(feature, NumberFeature):
            number = _number(name, feature, value)
            if not feature.min <= number <= feature.max:
                number = min(max(number, feature.min), feature.max)
                clipped.append(name)
            checked[name] = number
        elif isinstance(feature, CategoryFeature):
            if value not in feature.values:
                expected = f"one of {feature.values}, got {_shown(value)}"
                raise ContextError(name, expected, _misfit(value, str))
            checked[name] = value
        elif isinstance(feature, ImageFeature):
            pixels(name, feature, value)
            checked[name] = value
        else:
            if not isinstance(value, bool):
                expected = f"true or false, got {_shown(value)}"
                raise ContextError(name, expected, _misfit(value, bool))
            checked[name] = value
    return checked, tuple(clipped)


def _number(name: str, feature: NumberFeature, value: Any) -> float:
    """The finite number that a value is, in range where the workflow refuses to leave it."""
    cause: Misfit = "out_of_range"
    if isinstance(value, bool) or not isinstance(value, int | float):
        off = _shown(value)
        cause = _misfit(value, float)
    else:
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            off = "a number that is not finite"
        elif feature.min <= number <= feature.max or feature.out_of_range == "clip":
            return number
        else:
            off = _shown(value)
    raise ContextError(name, f"a number in [{feature.min:g}, {feature.max:g}], got {off}", cause)


def pixels(name: str, feature: ImageFeature, value: Any) -> bytes:
    """The bytes of a picture. Raises ContextError for what is none, or of another shape."""
    shape = f"{feature.height}×{feature.width}×{feature.channels}"
    expected = f"base64 of the {feature.bytes} bytes of a {shape} picture"
    if not isinstance(value, str):
        raise ContextError(name, f"{expected}, got {_shown(value)}", _misfit(value, str))
    try:
        found = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ContextError(name, f"{expected}, got other text", "mistyped") from error
    if len(found) != feature.bytes:
        raise ContextError(name, f"{expected}, got {len(found)} bytes", "out_of_range")
    return found


def _misfit(value: Any, kind: type) -> Misfit:
    """What is wrong with a value that is none of what a feature of this kind may be."""
    if value is None:
        return "missing"
    return "out_of_range" if isinstance(value, kind) else "mistyped"


def _shown(value: Any) -> str:
    """A value short enough for an error message."""
    if value is None:
        return "nothing"
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**20 else "a huge number"
    return text if len(text) <= 40 else f"{text[:37]}..."


def _printable(name: str) -> str:
    """A name nobody declared, fit for a message: short, and of characters that can be encoded."""
    text = name.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 64 else f"{text[:61]}..."


def context_size(spec: WorkflowSpec) -> int:
    """How many slots the context takes that feeds the policy."""
    return sum(map(slots_of, spec.context.values()))


def slots_of(feature: ContextFeature) -> int:
    """How many slots one feature takes."""
    if feature.feeds != "policy":
        return 0
    if isinstance(feature, ImageFeature):
        return feature.bytes
    return len(feature.values) if isinstance(feature, CategoryFeature) else 1


def encode_context(spec: WorkflowSpec, context: Mapping[str, Any], size: int) -> Float32:
    """A checked context as `[size]` slots in [−1, 1], in name order, zeros to the right.

    Numbers map linearly from [min, max], booleans to ±1, categories to a one-hot, pictures byte by
    byte.
    The order in which a file declares features is not part of a spec's identity, so it counts for
    nothing here.
    """
    encoded: Float32 = encode_contexts(spec, [context], size)[0]
    return encoded


def encode_contexts(
    spec: WorkflowSpec, contexts: Sequence[Mapping[str, Any]], size: int
) -> Float32:
    """`encode_context` of several: `[B, size]`."""
    encoded = np.zeros((len(contexts), size), np.float32)
    features = [(n, f) for n, f in sorted(spec.context.items()) if f.feeds == "policy"]
    if features:
        slots = [_slots(features, context) for context in contexts]
        encoded[:, : len(slots[0])] = slots
    return encoded


def encode_all_context(spec: WorkflowSpec, context: Mapping[str, Any]) -> Float32:
    """A checked context as `[slots]`, as `encode_context` makes them, also of what feeds rules
    alone: for whoever stands in for the rules."""
    return np.array(_slots(sorted(spec.context.items()), context), np.float32)


def _slots(
    features: Sequence[tuple[str, ContextFeature]], context: Mapping[str, Any]
) -> list[float]:
    slots: list[float] = []
    for name, feature in features:
        value = context[name]
        match feature:
            case NumberFeature(min=low, max=high):
                slots.append(2.0 * ((value - low) / (high - low)) - 1.0)
            case CategoryFeature(values=values):
                slots.extend(float(value == one) for one in values)
            case ImageFeature():
                slots.extend(encode_pixels(pixels(name, feature, value)).tolist())
            case BooleanFeature():
                slots.append(1.0 if value else -1.0)
    return slots


def encode_pixels(found: bytes) -> Float32:
    """Bytes of a picture as slots in [−1, 1]."""
    scaled = np.frombuffer(found, np.uint8).astype(np.float32) * np.float32(2 / 255)
    return np.asarray(scaled - np.float32(1), np.float32)


def encode_reward(reward: ArrayLike, low: float, high: float) -> Float32:
    """Rewards in [low, high], any shape, as float32 in [−1, 1]."""
    scaled = 2.0 * ((np.asarray(reward, np.float64) - low) / (high - low)) - 1.0
    return np.asarray(scaled, np.float32)


def encode_action_features(spec: WorkflowSpec, size: int) -> Float32:
    """Action features as `[K, size]`, in name order, each scaled to [−1, 1] over the actions.

    A policy that takes none has size 0; the features then serve the limits alone.
    """
    encoded = np.zeros((len(spec.actions), size), np.float32)
    if size == 0:
        return encoded
    for slot, name in enumerate(sorted(spec.actions[0].features)):
        column = np.array([action.features[name] for action in spec.actions])
        low, high = column.min(), column.max()
        if high > low:
            encoded[:, slot] = 2.0 * (column - low) / (high - low) - 1.0
    return encoded


def horizon_left(position: ArrayLike, horizon: ArrayLike, floor: float = 0.0) -> Float32:
    """How much of the trial is left at `position`, as `[..., 2]`.

    Column 0 is the share, clip(1 − position / horizon, floor, 1); column 1 the number of
    interactions that share stands for, on a log scale: optimal play depends on both.
    """
    total = np.asarray(horizon, np.float64)
    left = 1.0 - np.asarray(position, np.float64) / total
    share = np.minimum(np.maximum(left, floor), 1.0)
    columns = np.empty((*share.shape, 2), np.float32)
    columns[..., 0] = share
    columns[..., 1] = np.log1p(total * share) / math.log1p(LONGEST_HORIZON)
    return columns
