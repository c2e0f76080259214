"""The picture of what the probes found. It draws and computes nothing new."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from training.probe import Probed


def plot_probe(found: Probed, policy: str, path: Path) -> None:
    """Probes by position, agreement by pull, new arms by pull, side by side, as a PNG."""
    figure = Figure(figsize=(14, 4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for name, fit in found.posterior.items():
        left.plot(found.positions, fit.r2_by_position, label=f"posterior {name}", marker=".")
    left.set(xlabel="interactions folded", ylabel="R², held-out trials", ylim=(0, 1.02))
    left.set_title("read off the memory by a linear map")
    pulls = np.arange(1, found.n + 1)
    for name, by_step in found.agreement.items():
        middle.plot(pulls, by_step, label=name, lw=1)
    middle.set(xlabel="pull", ylabel="share of trials", ylim=(0, 1.02))
    middle.set_title("most probable arm is the rule's")
    for name, by_step in found.never_tried.items():
        right.plot(pulls, np.cumsum(by_step), label=name, lw=1)
    right.set(xlabel="pull", ylabel="arms tried")
    right.set_title("exploration: arms tried so far, mean")
    for axes in (left, middle, right):
        axes.legend()
        axes.grid(alpha=0.3)
    figure.suptitle(f"{policy}, n={found.n}, k={found.k}, {found.trials:,} trials")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
