"""The demo as a picture: reward against interaction number, one panel a family."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.household_scores import FEWEST_HOUSEHOLDS, Curve, FamilyScore

Array = NDArray[Any]

SMOOTHED_OVER = 5
"""Interactions of the running mean."""

_POLICY = ("acclimate", "#b3261e", "-")
_BASELINES = {
    "ucb1": ("UCB1, c = 1", "#1f5fa8", "-"),
    "ucb1_tuned": ("UCB1, c = 0.2", "#1f5fa8", "--"),
    "ts_fitted": ("TS, fitted prior", "#2e7d32", "-"),
    "ts_flat": ("TS, flat prior", "#66a86a", "-"),
    "win_stay": ("win-stay", "#c77700", "-"),
    "best_fixed": ("best fixed", "#777777", "-"),
    "uniform": ("uniform", "#aaaaaa", "-"),
    "ts_fitted_brand_aware": ("TS fitted*", "#2e7d32", ":"),
    "best_fixed_brand_aware": ("best fixed*", "#777777", ":"),
}
"""Name in the picture, colour, line style; `*` and dotted: knows the brands."""


def plot(families: Sequence[FamilyScore], path: Path) -> None:
    """Writes the picture, PNG by default of the suffix, and the folder it goes to."""
    figure = Figure(figsize=(6.2 * len(families), 6.0), layout="constrained")
    panels = figure.subplots(1, len(families), sharey=True, squeeze=False)[0]
    for axes, score in zip(panels, families, strict=True):
        _draw_family(axes, score)
    panels[0].set_ylabel(f"mean reward (running mean over {SMOOTHED_OVER} interactions)")
    figure.suptitle(
        "Predicting each household's next purchase under bandit feedback\n"
        f"(households still buying, at least {FEWEST_HOUSEHOLDS}; band: ± 1 standard error over "
        "households; dotted and *: knows the brands)",
        fontsize=11,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def smoothed(values: Array, over: int = SMOOTHED_OVER) -> NDArray[np.float64]:
    """Centred running mean of `[T]`, over fewer values at both ends."""
    window = np.ones(min(over, values.size))
    means: NDArray[np.float64] = np.convolve(values, window, "same") / np.convolve(
        np.ones_like(values), window, "same"
    )
    return means


def _draw_family(axes: Any, score: FamilyScore) -> None:
    curves = {name: player.curve for name, player in score.baselines.items()}
    drawn = [
        _draw_curve(axes, curve, *_BASELINES[name], width=1.3) for name, curve in curves.items()
    ]
    policy = score.policy.curve
    interactions = 1 + np.arange(policy.mean.size)
    middle = smoothed(policy.mean)
    axes.fill_between(
        interactions, middle - policy.se, middle + policy.se, color=_POLICY[1], alpha=0.18, lw=0
    )
    drawn.append(_draw_curve(axes, policy, *_POLICY, width=2.8))
    axes.axhline(score.target, color="black", lw=0.8, ls="--")
    axes.set_ylim(0.0, 1.0)
    _label_ends(axes, drawn, at=float(interactions[-1]))
    axes.set_xlim(1, interactions[-1] * 1.3)
    axes.annotate(
        f"adapted {score.target:.2f}",
        (interactions[-1] * 1.3, score.target),
        xytext=(0, 3),
        textcoords="offset points",
        ha="right",
        fontsize=8,
    )
    axes.set_title(f"{score.family}: {score.households} households")
    axes.set_xlabel("interaction")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_curve(
    axes: Any, curve: Curve, label: str, colour: str, style: str, *, width: float
) -> tuple[float, str, str]:
    """Draws one curve; where it ends, its label and its colour."""
    middle = smoothed(curve.mean)
    axes.plot(1 + np.arange(middle.size), middle, color=colour, ls=style, lw=width)
    return float(middle[-1]), label, colour


def _label_ends(axes: Any, ends: Sequence[tuple[float, str, str]], at: float) -> None:
    """Names each curve at its right end, the names spread so that none covers another."""
    ordered = sorted(ends)
    heights = _spread([end for end, _, _ in ordered], apart=0.032, low=0.02, high=0.98)
    for (_, label, colour), height in zip(ordered, heights, strict=True):
        weight = "bold" if label == _POLICY[0] else "normal"
        axes.annotate(
            label,
            (at, height),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontsize=9,
            weight=weight,
        )


def _spread(heights: Sequence[float], *, apart: float, low: float, high: float) -> list[float]:
    """Ascending heights moved as little as a sweep up and a sweep down allow."""
    moved: list[float] = []
    for height in heights:
        moved.append(max(height, moved[-1] + apart if moved else low))
    ceiling = high
    for i in reversed(range(len(moved))):
        moved[i] = min(moved[i], ceiling)
        ceiling = moved[i] - apart
    return moved
