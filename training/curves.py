"""Pictures of a run. It draws what the history holds and computes nothing new."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.check import PULLS, TRIALS, arms_played, luck

Array = NDArray[Any]

_GITTINS, _THOMPSON = 78.58, 74.7
"""What they earn at n = 100, k = 5, on average over tasks."""


def plot_history(
    history: Sequence[dict[str, float]], action_range: tuple[int, int], path: Path
) -> None:
    """The learning curve as a PNG: reward on the fixed trials less their luck, gap closed."""
    lucky, k = luck(action_range), arms_played(action_range)
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    checked = [entry for entry in history if "check_reward" in entry]
    left.plot(
        [entry["steps"] / 1e6 for entry in checked],
        [entry["check_reward"] - lucky for entry in checked],
        color="tab:blue",
    )
    if (PULLS, k) == (100, 5):
        left.axhline(_GITTINS, color="tab:green", ls="--", lw=1, label="finite-horizon Gittins")
        left.axhline(_THOMPSON, color="tab:orange", ls="--", lw=1, label="Thompson sampling")
        left.legend(loc="lower right")
    left.set(
        xlabel="interactions, millions",
        ylabel="reward of a trial",
        title=f"n = {PULLS}, k = {k}, means uniform(0, 1), {TRIALS:,} fixed trials",
    )
    right.plot(
        [entry["steps"] / 1e6 for entry in history],
        [entry["gap_closed"] for entry in history],
        color="tab:blue",
        lw=1,
    )
    right.set(
        xlabel="interactions, millions",
        ylabel="share of the gap from random to best arm",
        title="training families, as they come",
        ylim=(min(0.0, *(entry["gap_closed"] for entry in history)), 1.0),
    )
    for axes in (left, right):
        axes.grid(alpha=0.3)
    _write(figure, path)


def plot_within_trial(curves: Mapping[str, Array], title: str, path: Path) -> None:
    """Expected reward at each pull `[T]`, a line a player, as a PNG."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        axes.plot(np.arange(1, curve.size + 1), curve, label=name, lw=1.5)
    axes.set(xlabel="pull", ylabel="expected reward", title=title)
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    _write(figure, path)


def _write(figure: Figure, path: Path) -> None:
    """The picture, whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    figure.savefig(partial, format="png", dpi=120)
    partial.replace(path)
