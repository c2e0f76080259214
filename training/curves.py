"""Pictures of a run. It draws what the history holds and computes nothing new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.check import Look
from training.whole_files import write_picture

Array = NDArray[Any]


def plot_history(history: Sequence[dict[str, float]], looks: Sequence[Look], path: Path) -> None:
    """The learning curve as a PNG: reward on the fixed trials less their luck, gap closed.

    Fixed trials with a reference are shown as shares of what it earns, so that cells of very
    different size stand on one axis; without one, as reward.
    """
    if not looks:
        _plot_played(history, path)
        return
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    compared = [look for look in looks if look.reference] or list(looks[:1])
    unit = "reward of a trial"
    lowest = 100.0
    for look in compared:
        checked = [entry for entry in history if look.name in entry]
        earned = np.array([entry[look.name] for entry in checked])
        if look.reference:
            unit = f"reward of a trial, % of {look.reference[0]}'s"
            earned = 100.0 * earned / look.reference[1]
            lowest = min([lowest, *earned[earned.size // 3 :]])
        left.plot([entry["steps"] / 1e6 for entry in checked], earned, label=look.name, lw=1)
    if compared[0].reference:
        left.axhline(100.0, color="black", ls="--", lw=1)
        left.set_ylim(lowest - 1.0, 101.0)
    left.legend(loc="lower right")
    left.set(xlabel="interactions, millions", ylabel=unit, title="fixed trials, luck taken off")
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
    write_picture(path, figure)


_SHARES = {"as advised": "steps as the teacher advised", "gap_closed": "gap closed"}
_LENGTHS = {"steps 1": "episode 1", "steps 2": "episode 2", "steps 3": "episode 3"}


def _plot_played(history: Sequence[dict[str, float]], path: Path) -> None:
    """What training itself played, where a family has no fixed trials."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, lines, unit in ((left, _SHARES, "share"), (right, _LENGTHS, "steps of an episode")):
        for key, label in lines.items():
            told = [entry for entry in history if key in entry]
            if told:
                steps = [entry["steps"] / 1e6 for entry in told]
                axes.plot(steps, [entry[key] for entry in told], label=label, lw=1)
        axes.set(xlabel="interactions, millions", ylabel=unit, title="training mazes, as they come")
        if axes.lines:
            axes.legend()
        axes.grid(alpha=0.3)
    write_picture(path, figure)


def plot_within_trial(curves: Mapping[str, Array], title: str, path: Path) -> None:
    """Expected reward at each pull `[T]`, a line a player, as a PNG."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        axes.plot(np.arange(1, curve.size + 1), curve, label=name, lw=1.5)
    axes.set(xlabel="pull", ylabel="expected reward", title=title)
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    write_picture(path, figure)
