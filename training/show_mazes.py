"""Mazes as pictures: the walk of an agent seen from above, and what it saw on the way, as a GIF.

It must never play: it is given where somebody was, and what they saw.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from training.tasks.mazes.ground import SHIFT
from training.tasks.mazes.layouts import HEADINGS, Layout
from training.tasks.mazes.wad import CELL
from training.whole_files import write_picture

Path_ = Sequence[tuple[float, float]]
_ENLARGED = 6
_FRAME_MILLISECONDS = 114
"""Four tics of a thirty-fifth of a second."""
_COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:purple", "tab:brown")


def from_above(axes: Axes, maze: Layout, episodes: Sequence[Path_], title: str = "") -> None:
    """Walls, start, target, and one line an episode; positions as `play_trials` follows them."""
    height, width = maze.open.shape
    axes.imshow(
        ~np.pad(maze.open, 1),
        cmap="Greys_r",
        origin="lower",
        extent=(-1, width + 1, -1, height + 1),
        vmin=-1.5,
        vmax=1,
    )
    x, y = maze.target
    axes.fill([x, x + 1, x + 1, x], [y, y, y + 1, y + 1], color="tab:red")
    for number, episode in enumerate(episodes):
        walked = (np.array(episode) - SHIFT) / CELL
        axes.plot(
            walked[:, 0],
            walked[:, 1],
            color=_COLOURS[number % len(_COLOURS)],
            lw=1.6,
            alpha=0.85,
            label=f"episode {number + 1}: {len(episode)} steps",
        )
    dx, dy = HEADINGS[maze.heading]
    axes.arrow(
        maze.start[0] + 0.5,
        maze.start[1] + 0.5,
        0.25 * dx,
        0.25 * dy,
        head_width=0.2,
        color="black",
    )
    axes.set(xticks=[], yticks=[], title=title)


def draw_walks(
    path: Path, walks: Sequence[tuple[Layout, Sequence[Path_]]], columns: int = 3
) -> None:
    """A picture of several mazes."""
    rows = -(-len(walks) // columns)
    figure = Figure(figsize=(3.6 * columns, 4.0 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[len(walks) :]:
        axes.set_axis_off()
    for axes, (maze, episodes) in zip(panels, walks, strict=False):
        from_above(axes, maze, episodes)
        axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.01))
    write_picture(path, figure)


def write_video(
    path: Path, maze: Layout, frames: Sequence[tuple[int, tuple[float, float], NDArray[np.uint8]]]
) -> None:
    """A GIF of (episode, position, picture) after each step: what was seen, beside the map."""
    shown = []
    walked: list[tuple[float, float]] = []
    before = -1
    for episode, position, picture in frames:
        if episode != before:
            walked, before = [], episode
        walked.append(((position[0] - SHIFT) / CELL, (position[1] - SHIFT) / CELL))
        shown.append(_frame(maze, episode, walked, picture))
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    shown[0].save(
        partial,
        format="GIF",
        save_all=True,
        append_images=shown[1:],
        duration=_FRAME_MILLISECONDS,
        loop=0,
        optimize=True,
    )
    partial.replace(path)


def _frame(
    maze: Layout, episode: int, walked: Sequence[tuple[float, float]], picture: NDArray[np.uint8]
) -> Image.Image:
    high, wide = picture.shape[0] * _ENLARGED, picture.shape[1] * _ENLARGED
    seen = Image.fromarray(picture).resize((wide, high), Image.Resampling.NEAREST)
    frame = Image.new("RGB", (wide + high, high), "white")
    frame.paste(seen, (0, 0))
    draw = ImageDraw.Draw(frame)
    cells = maze.open.shape[0]
    side = (high - 16) / (cells + 2)

    def at(x: float, y: float) -> tuple[float, float]:
        return wide + 8 + (x + 1) * side, high - 8 - (y + 1) * side

    for y in range(-1, cells + 1):
        for x in range(-1, cells + 1):
            colour = "white" if maze.is_open((x, y)) else "#555555"
            if (x, y) == maze.target:
                colour = "#cc2222"
            left, bottom = at(x, y)
            draw.rectangle((left, bottom - side, left + side, bottom), fill=colour)
    if len(walked) > 1:
        draw.line([at(*one) for one in walked], fill="#1f77b4", width=2)
    u, v = at(*walked[-1])
    draw.ellipse((u - 4, v - 4, u + 4, v + 4), fill="#1f77b4")
    draw.text((wide + 10, 2), f"episode {episode + 1}, step {len(walked)}", fill="white")
    return frame.quantize(64)
