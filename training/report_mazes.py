"""The report of an evaluation on mazes: `report.md`, plots of trajectories, a GIF of one trial.

Every figure stands with the command that made it; what is quoted is said to be.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from contract.bundle import Manifest
from training.evaluate_mazes import PUBLISHED, PUBLISHED_NOT_LONGER, Episodes, Size, bars
from training.show_mazes import draw_walks
from training.tasks.mazes.layouts import Layout


@dataclass(frozen=True)
class Evaluated:
    """One size of maze."""

    size: Size
    played: Episodes
    references: Mapping[str, Episodes]
    shortest: tuple[float, int]
    """Steps of the shortest way found, on how many of the layouts."""
    mazes: list[Layout]


def write_maze_report(
    directory: Path, manifest: Manifest, sizes: list[Evaluated], *, command: str, seed: int
) -> None:
    """Writes `report.md` and its pictures into the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    today = datetime.now(UTC).date().isoformat()
    lines = [
        f"# {manifest.policy} in mazes",
        "",
        "ViZDoom mazes after Duan et al. (2016), section 3.3, played through the ONNX graphs,",
        "actions drawn as the service draws them. No training met these layouts. Steps are four",
        "tics, of successful episodes; ± is one standard error. A bar of steps is met or not,",
        "one of success within two standard errors.",
        "`map explorer` is the lessons' teacher, which knows where it stands; `knows the map` is",
        "the same walker told the whole maze; the shortest way is the better of it and a beam",
        "search in the model of the engine: an upper bound of the optimum. In print: Duan et al.",
        "(2016) and Mishra et al. (2018): quoted, not measured here; their exact geometry is",
        "not published.",
        "",
        f"Command: `{command}`, seed {seed}, {today}.",
    ]
    for one in sizes:
        lines += ["", *_section(one, manifest.policy)]
        picture = directory / f"walks-{one.size}.png"
        draw_walks(picture, [(one.mazes[i], paths[:2]) for i, paths in one.played.paths.items()])
        lines += ["", f"![episodes 1 and 2 from above, {one.size} mazes]({picture.name})"]
    if (directory / "trial.gif").exists():
        lines += ["", "What it sees in one trial, and where it is:", "", "![a trial](trial.gif)"]
    partial = directory / f".report.md.{os.getpid()}.partial"
    partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    partial.replace(directory / "report.md")


def _section(one: Evaluated, policy: str) -> list[str]:
    rows = one.played.summary()
    trials = len(one.played.steps)
    least, on = one.shortest
    lines = [
        f"## {one.size.capitalize()}, {trials:,} layouts",
        "",
        f"The shortest way takes {least:.1f} steps (the first {on} of the layouts).",
        "",
        "| episode | success | steps | ÷ shortest | in print: RL² | SNAIL | bar | met |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row, bar in zip(rows, bars(one.size), strict=False):
        number = int(row["episode"])
        rl2, snail = PUBLISHED[one.size]["RL²"], PUBLISHED[one.size]["SNAIL"]
        printed = f"{rl2[number - 1][0]:.1f}, {100 * (rl2[number - 1][1] or 0):.1f} %"
        other = f"{snail[number - 1][0]:.1f}" if number <= len(snail) else ""
        success = row["success"]
        se = np.sqrt(max(success * (1 - success), 1e-9) / trials)
        wanted = f"≤ {bar.steps:.1f}" + (f", ≥ {100 * bar.success:.1f} %" if bar.success else "")
        met = row["steps"] <= bar.steps
        met = met and (not bar.success or success + 2 * se >= bar.success)
        lines.append(
            f"| {number} | {100 * success:.1f} ± {100 * se:.1f} % "
            f"| {row['steps']:.1f} ± {row['steps_se']:.1f} | {row['steps'] / least:.2f} "
            f"| {printed} | {other} | {wanted} | {'yes' if met else '**no**'} |"
        )
    share_wanted = PUBLISHED_NOT_LONGER[one.size]
    share = one.played.not_longer
    lines += [
        "",
        f"Second episode not longer than the first: {100 * share:.1f} % of trials "
        f"(in print, and the bar: {100 * share_wanted:.1f} %: "
        f"{'met' if share >= share_wanted else '**not met**'}).",
        "",
        "| player | episode 1 | episode 2 | not longer |",
        "|---|---|---|---|",
    ]
    for name, played in {policy: one.played, **one.references}.items():
        first, second = played.summary()[:2]
        lines.append(
            f"| {name} | {first['steps']:.1f}, {100 * first['success']:.1f} % "
            f"| {second['steps']:.1f}, {100 * second['success']:.1f} % "
            f"| {100 * played.not_longer:.1f} % |"
        )
    return lines
