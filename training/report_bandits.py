"""The report of an evaluation on bandits: `report.md`, its pictures and `cells.json`.

Every figure stands with the command that made it; what is quoted is said to be.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from contract.bundle import Manifest
from training.evaluate import Cell, Curve, rows, to_json
from training.opponents import Family
from training.whole_files import write_picture, write_text

_IN_PRINT = {"rl2": "RL² (Duan et al. 2016)", "snail": "SNAIL (Mishra et al. 2018)"}


def write_bandit_report(
    directory: Path,
    manifest: Manifest,
    cells: Sequence[Cell],
    *,
    family: Family,
    command: str,
    seed: int,
) -> None:
    """Writes `report.md`, `cells.json` and two pictures a cell into the directory, each whole."""
    directory.mkdir(parents=True, exist_ok=True)
    for cell in cells:
        _plot(cell, manifest.policy, directory / _picture(cell))
    write_text(directory / "cells.json", json.dumps(to_json(cells), indent=2) + "\n")
    today = datetime.now(UTC).date().isoformat()
    lines = [
        f"# {manifest.policy} on bandits",
        "",
        f"{family}. Total reward of a trial of n pulls on k arms, played through the ONNX graphs.",
        "Every player meets the same arm means and the same luck; differences are policy − player;",
        "± is one standard error. The policy samples, as it is served, unless said otherwise.",
        "In print: Duan et al. (2016), 1,000 trials, and Mishra et al. (2018): quoted, not",
        "measured here.",
        "",
        f"Command: `{command}`, seed {seed}, {today}.",
        "",
        *_summary(cells),
    ]
    for cell in cells:
        lines += ["", *_section(cell, manifest.policy)]
    write_text(directory / "report.md", "\n".join(lines) + "\n")


def _summary(cells: Sequence[Cell]) -> list[str]:
    """One row a cell: the policy, its greedy play, the ceiling and the figures in print."""
    lines = [
        "| n | k | trials | policy | greedy play | gittins | policy − gittins | % | + 2 SE, % "
        "| RL² | SNAIL | Gittins in print |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for cell in cells:
        ceiling, greedy = cell.baselines.get("gittins"), cell.greedy_play
        if ceiling:
            shares = [
                100 * (ceiling.difference + errors * ceiling.difference_se) / ceiling.reward
                for errors in (0, 2)
            ]
            compared = (
                f"{ceiling.reward:.2f} | {ceiling.difference:+.2f} ± {ceiling.difference_se:.2f} "
                f"| {shares[0]:+.2f} | {shares[1]:+.2f}"
            )
        else:
            compared = " | | | "
        printed = " | ".join(
            f"{cell.published[name]:.1f}" if name in cell.published else ""
            for name in ("rl2", "snail", "gittins")
        )
        lines.append(
            f"| {cell.n} | {cell.k} | {cell.trials:,} | {cell.policy:.2f} ± {cell.policy_se:.2f} "
            f"| {f'{greedy.reward:.2f}' if greedy else ''} | {compared} | {printed} |"
        )
    return lines


def _section(cell: Cell, policy: str) -> list[str]:
    lines = [
        f"## n = {cell.n}, k = {cell.k}, {cell.trials:,} trials",
        "",
        "| player | total reward | policy − player | in print | CPU seconds |",
        "|---|---|---|---|---|",
        f"| **{policy}** | **{cell.policy:.2f} ± {cell.policy_se:.2f}** | | "
        f"| {cell.seconds['policy']:.0f} |",
    ]
    for name, reward, compared, printed in rows(cell):
        difference = (
            f"{compared.difference:+.2f} ± {compared.difference_se:.2f}" if compared else ""
        )
        took = f"{cell.seconds[name]:.0f}" if name in cell.seconds else ""
        lines.append(
            f"| {name} | {reward:.2f} | {difference} "
            f"| {'' if printed is None else f'{printed:.1f}'} | {took} |"
        )
    lines += [
        f"| {title} | | | {cell.published[name]:.1f} | |"
        for name, title in _IN_PRINT.items()
        if name in cell.published
    ]
    return [*lines, "", f"![within a trial, n = {cell.n}, k = {cell.k}]({_picture(cell)})"]


def _plot(cell: Cell, policy: str, path: Path) -> None:
    """Within a trial: expected reward at each pull, and how far the policy is ahead, paired."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    pulls = np.arange(1, cell.n + 1)

    def each(axes: Axes, line: Callable[[Curve], object]) -> None:
        for name, curve in cell.curves.items():
            if name == "random" or (axes is right and name == "policy"):
                continue
            ours = name in ("policy", "greedy play")
            axes.plot(
                pulls,
                np.asarray(line(curve)),
                label=policy if name == "policy" else name,
                lw=2.0 if ours else 1.0,
                ls="--" if name == "greedy play" else "-",
                color="black" if ours else None,
            )
        axes.grid(alpha=0.3)

    each(left, lambda curve: curve.reward)
    each(right, lambda curve: curve.ahead)
    if "gittins" in cell.curves:
        curve = cell.curves["gittins"]
        band = 2.0 * curve.ahead_se
        right.fill_between(pulls, curve.ahead - band, curve.ahead + band, alpha=0.2)
    right.axhline(0.0, color="black", ls=":", lw=1)
    left.set(xlabel="pull", ylabel="expected reward of the arm pulled")
    right.set(xlabel="pull", ylabel="reward so far, policy − player")
    right.set_title("paired; the band is two standard errors", fontsize=9)
    left.set_title(f"n = {cell.n}, k = {cell.k}, {cell.trials:,} trials", fontsize=9)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8)
    write_picture(path, figure)


def _picture(cell: Cell) -> str:
    return f"within-trial-{cell.n}-{cell.k}.png"
