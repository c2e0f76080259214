"""The report of an evaluation on tabular MDPs: `report.md` and its pictures.

Every figure stands with the command that made it; what is quoted is said to be.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from contract.bundle import Manifest
from training.baselines_mdps import PUBLISHED
from training.evaluate_mdps import Cell, standings
from training.whole_files import write_picture, write_text


def write_mdp_report(
    directory: Path, manifest: Manifest, cells: Sequence[Cell], *, command: str, seed: int
) -> None:
    """Writes `report.md`, `by-episode.png` and `by-n.png` into the directory, each whole."""
    directory.mkdir(parents=True, exist_ok=True)
    told = told_of_mdps(directory, manifest, cells, command=command, seed=seed)
    write_text(directory / "report.md", f"# {manifest.policy} on tabular MDPs\n\n{told}\n")


def told_of_mdps(
    directory: Path, manifest: Manifest, cells: Sequence[Cell], *, command: str, seed: int
) -> str:
    """What a report says of these cells; writes `by-episode.png` and `by-n.png` beside it."""
    _plot_by_episode(cells, manifest.policy, directory / "by-episode.png")
    _plot_by_n(cells, manifest.policy, directory / "by-n.png")
    today = datetime.now(UTC).date().isoformat()
    lines = [
        "10 states, 5 actions, episodes of 10 steps (Duan et al. 2016, section 3.2). Total reward",
        "of a trial of n episodes, played through the ONNX graphs. Every player meets the same",
        "MDPs and the same luck; differences are policy − player; ± is one standard error. The",
        "policy samples, as it is served, unless said otherwise. `known MDP` is the exact",
        "expectation of the optimal policy on these tasks. In print: Duan et al. (2016), 1,000",
        "trials, and Mishra et al. (2018): quoted, not measured here.",
        "",
        f"Command: `{command}`, seed {seed}, {today}.",
    ]
    for cell in cells:
        lines += ["", *_section(cell, manifest.policy)]
    lines += [
        "",
        "## Learning within a trial",
        "",
        "![mean reward of each episode](by-episode.png)",
        "",
        "## Against the number of episodes",
        "",
        "![total reward as a share of the known MDP's](by-n.png)",
    ]
    return "\n".join(lines)


def _section(cell: Cell, policy: str) -> list[str]:
    lines = [
        f"## n = {cell.n}, {cell.trials:,} trials",
        "",
        "| player | total reward | policy − player | in print |",
        "|---|---|---|---|",
        f"| **{policy}** | **{cell.policy:.1f} ± {cell.policy_se:.1f}** | | |",
    ]
    for name, reward, compared, printed in standings(cell):
        difference = (
            f"{compared.difference:+.1f} ± {compared.difference_se:.1f}" if compared else ""
        )
        lines.append(
            f"| {name} | {reward:.1f} | {difference} "
            f"| {'' if printed is None else f'{printed:.1f}'} |"
        )
    names = {"rl2": "RL² (Duan et al. 2016)", "snail": "SNAIL (Mishra et al. 2018)"}
    lines += [f"| {names[name]} | | | {figure:.1f} |" for name, figure in cell.published.items()]
    return lines


def _plot_by_episode(cells: Sequence[Cell], policy: str, path: Path) -> None:
    """Mean reward of each episode, a panel an n, a line a player."""
    figure = Figure(figsize=(4.5 * len(cells) + 1.8, 4), layout="constrained")
    panels = figure.subplots(1, len(cells), squeeze=False)[0]
    for axes, cell in zip(panels, cells, strict=True):
        for name, curve in cell.by_episode.items():
            ours = name in ("policy", "greedy play")
            axes.plot(
                np.arange(1, curve.size + 1),
                curve,
                label=policy if name == "policy" else name,
                lw=2.0 if ours else 1.0,
                ls="--" if name == "greedy play" else "-",
                color="black" if ours else None,
            )
        axes.axhline(cell.optimum / cell.n, color="black", ls=":", lw=1, label="known MDP")
        axes.set(xlabel="episode", ylabel="reward of an episode", title=f"n = {cell.n}")
        axes.grid(alpha=0.3)
    handles, labels = panels[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8)
    write_picture(path, figure)


def _plot_by_n(cells: Sequence[Cell], policy: str, path: Path) -> None:
    """Total reward as a share of the known MDP's, against n, a line a player."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    ordered = sorted(cells, key=lambda cell: cell.n)
    n = [cell.n for cell in ordered]
    shares = [100.0 * cell.policy / cell.optimum for cell in ordered]
    axes.plot(n, shares, label=policy, lw=2, marker="o", color="black")
    for name in ordered[0].baselines:
        line = [100.0 * cell.baselines[name].reward / cell.optimum for cell in ordered]
        axes.plot(n, line, label=name, lw=1, marker=".")
    for name, label in (("rl2", "RL² in print"), ("snail", "SNAIL in print")):
        known = [cell for cell in ordered if cell.n in PUBLISHED[name]]
        if known:
            line = [100.0 * PUBLISHED[name][cell.n] / cell.optimum for cell in known]
            axes.plot([cell.n for cell in known], line, label=label, lw=1, ls="--", marker="x")
    axes.set(xlabel="episodes of a trial, n", ylabel="total reward, % of the known MDP's")
    figure.legend(loc="outside right upper", fontsize=8)
    axes.grid(alpha=0.3)
    write_picture(path, figure)
