"""`acclimate evaluate mazes` and `acclimate play mazes`: how a bundle does in ViZDoom, and a look.

They must never write anything but the report or the pictures they were asked for.
"""

from __future__ import annotations

import json
import sys
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from contract.bundle import BundleError
from contract.policy import OnnxPolicy
from training.evaluate_mazes import (
    PUBLISHED,
    Episodes,
    PolicyPlayer,
    evaluate,
    play_trials,
    references,
    refuse_misfit,
    to_json,
    unseen_layouts,
)
from training.progress import progress_bar
from training.tasks.mazes.engine import EngineError
from training.tasks.mazes.layouts import LayoutError
from training.tasks.mazes.shortest import shortest
from training.tasks.mazes.trials import EPISODE_STEPS
from training.tasks.mazes.workers import Engines
from training.tasks.mazes.worlds import EngineWorld, wad_for

BAD_INPUT = 2
_SEARCHED = 100
"""Layouts that the shortest way is searched in: the search takes longer than the play."""
_DRAWN = 6

play_app = typer.Typer(help="Watch a policy at work.", no_args_is_help=True)


@play_app.callback()
def play() -> None:
    """Watch a policy at work."""


class SizeName(StrEnum):
    """The sizes there are."""

    small = "small"
    large = "large"


def mazes(
    policy: Annotated[Path, typer.Option(help="The bundle's directory.")],
    size: Annotated[
        SizeName, typer.Option(help="small: 5×5 cells, 3×3 rooms. large: 9×9 cells, 5×5 rooms.")
    ] = SizeName.small,
    trials: Annotated[int, typer.Option(help="Layouts, at least 2.")] = 1_000,
    seed: Annotated[int, typer.Option(min=0, help="Fixes the layouts and every draw.")] = 0,
    episodes: Annotated[int, typer.Option(min=2, help="Episodes a trial.")] = 5,
    greedy: Annotated[
        bool, typer.Option("--greedy", help="Take the most probable action instead of sampling.")
    ] = False,
    engines: Annotated[int, typer.Option(min=1, help="Mazes walked at once.")] = 8,
    workers: Annotated[int, typer.Option(min=1, help="Processes that run engines.")] = 1,
    varied: Annotated[
        bool, typer.Option("--varied", help="Mazes differ in textures and light.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help="Also write report.md and pictures of both sizes here.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Only JSON on standard output.")] = False,
) -> None:
    """ViZDoom mazes that no training has met: success and steps, episode by episode.

    Every trial is one maze, the same start in each of its episodes, 250 steps an episode (1,000 in
    large ones). `not_longer` is the share of trials whose second episode took no more steps than
    the first.
    """
    notes = Console(stderr=True)
    played: dict[str, Episodes] = {}
    sizes = ["small", "large"] if report is not None else [size.value]
    try:
        loaded = OnnxPolicy.load(policy)
        refuse_misfit(loaded, trials)
        with progress_bar(notes) as bar:
            task = bar.add_task(loaded.manifest.policy, total=trials * len(sizes))
            for one in sizes:
                played[one] = evaluate(
                    loaded,
                    size=one,  # type: ignore[arg-type]
                    trials=trials,
                    seed=seed,
                    episodes=episodes,
                    engines=engines,
                    workers=workers,
                    greedy=greedy,
                    varied=varied,
                    on_trial=lambda count: bar.advance(task, count),
                    followed=range(min(trials, _DRAWN)),
                )
        if report is not None:
            _report(report, loaded, played, trials, seed)
            notes.print(f"report: {report / 'report.md'}", highlight=False, soft_wrap=True)
    except (BundleError, EngineError, LayoutError, ValueError) as error:
        _refuse(notes, error)
    if as_json:
        told = to_json(played[size.value]) if report is None else None
        shown = told or {one: to_json(result) for one, result in played.items()}
        typer.echo(json.dumps(shown, indent=2))
        return
    for one, result in played.items():
        Console().print(_table(one, result, loaded.manifest.policy))
    Console().print(f"{trials:,} layouts, seed {seed}; ± is one standard error.")


@play_app.command("mazes")
def play_mazes(
    policy: Annotated[Path, typer.Option(help="The bundle's directory.")],
    out: Annotated[Path, typer.Option(help="Where the pictures go.")] = Path("runs/play-mazes"),
    size: Annotated[SizeName, typer.Option(help="small or large.")] = SizeName.small,
    maze: Annotated[int, typer.Option(min=0, help="Which of the seed's test layouts.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Fixes the layouts.")] = 0,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes.")] = 2,
) -> None:
    """Play one trial, and write `above.png` (its walks on the map) and `trial.gif` (what it saw).

    Example: acclimate play mazes --policy policies/mazes/1 --maze 3
    """
    notes = Console(stderr=True)
    try:
        loaded = OnnxPolicy.load(policy)
        refuse_misfit(loaded, 2)
        played = show_trial(loaded, out, size.value, maze, seed, episodes)
    except (BundleError, EngineError, LayoutError, OSError, ValueError) as error:
        _refuse(notes, error)
    for episode, (steps, found) in enumerate(zip(played.steps[0], played.found[0], strict=True), 1):
        typer.echo(f"episode {episode}: {steps} steps, {'found' if found else 'not found'}")
    typer.echo(f"{out / 'above.png'}  {out / 'trial.gif'}")


def show_trial(
    loaded: OnnxPolicy, out: Path, size: str, maze: int, seed: int, episodes: int
) -> Episodes:
    """Plays one test layout, and writes its pictures into `out`."""
    from training.show_mazes import draw_walks, write_video

    layout = unseen_layouts(size, maze + 1, seed)[maze]  # type: ignore[arg-type]
    out.mkdir(parents=True, exist_ok=True)
    frames: list[tuple[int, tuple[float, float], NDArray[np.uint8]]] = []
    with tempfile.TemporaryDirectory(prefix="acclimate-mazes-") as folder:
        wad = wad_for([layout], Path(folder))
        with Engines(wad, 1, 1, seed) as running:
            world = EngineWorld([layout], running)

            def keep(row: int, episode: int) -> None:
                at = (float(world.at.x[row]), float(world.at.y[row]))
                frames.append((episode, at, world.pictures()[row].copy()))

            played = play_trials(
                world,
                PolicyPlayer(loaded, 1, seed, greedy=False),
                trials=1,
                episodes=episodes,
                episode_steps=EPISODE_STEPS[size],
                followed=(0,),
                on_picture=keep,
            )
    draw_walks(out / "above.png", [(layout, played.paths[0])], columns=1)
    write_video(out / "trial.gif", layout, frames)
    return played


def _report(
    directory: Path, loaded: OnnxPolicy, played: dict[str, Episodes], trials: int, seed: int
) -> None:
    from training.report_mazes import Evaluated, write_maze_report

    show_trial(loaded, directory, "small", 0, seed, 2)
    sizes = []
    for one, result in played.items():
        searched = min(trials, _SEARCHED if one == "small" else _SEARCHED // 2)
        layouts = unseen_layouts(one, trials, seed)  # type: ignore[arg-type]
        others = references(one, trials, seed)  # type: ignore[arg-type]
        walked = others["knows the map"].steps[:searched, 0]
        least = float(np.minimum(shortest(layouts[:searched]), walked).mean())
        sizes.append(
            Evaluated(
                one,  # type: ignore[arg-type]
                result,
                others,
                (least, searched),
                layouts,
            )
        )
    command = " ".join(["acclimate", *sys.argv[1:]])
    write_maze_report(directory, loaded.manifest, sizes, command=command, seed=seed)


def _refuse(notes: Console, error: Exception) -> NoReturn:
    notes.print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
    raise typer.Exit(BAD_INPUT) from error


def _table(size: str, played: Episodes, policy: str) -> Table:
    table = Table(title=f"{policy}, {size} mazes", title_justify="left")
    table.add_column("episode")
    for column in ("success", "steps", "in print: RL²", "SNAIL"):
        table.add_column(column, justify="right")
    for row in played.summary():
        at = int(row["episode"]) - 1
        printed = []
        for name in ("RL²", "SNAIL"):
            figures = PUBLISHED[size][name]
            printed.append(f"{figures[at][0]:.1f}" if at < len(figures) else "")
        table.add_row(
            str(at + 1),
            f"{100 * row['success']:.1f} %",
            f"{row['steps']:.1f} ± {row['steps_se']:.1f}",
            *printed,
        )
    table.caption = f"second episode not longer than the first: {100 * played.not_longer:.1f} %"
    return table
