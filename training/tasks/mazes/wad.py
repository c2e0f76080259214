"""Layouts written as a Doom WAD of UDMF text maps. It writes files and never runs an engine.

A map is three lumps: its marker, `TEXTMAP` and `ENDMAP`. The engine builds the nodes as it loads
one, so there is no node builder and no script. UDMF: Haley et al. 2009, specification 1.1.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.tasks.mazes.layouts import HEADINGS, Cell, Layout

CELL = 96
"""Side of a cell, in map units."""
_HEIGHT = 96
_PLAYER_START = 1
_SECTOR_BORDER = ((0, 0), (0, 1), (1, 1), (1, 0))
"""Corners of a cell, clockwise, so that a line's front, its right, lies inside."""


@dataclass(frozen=True)
class Looks:
    """How a maze is painted and lit. Textures are Freedoom's names."""

    wall: str = "BRICK7"
    target: str = "REDWALL"
    floor: str = "FLOOR4_8"
    ceiling: str = "CEIL3_5"
    light: int = 200
    """0 is dark, 255 bright."""


OTHER_WALLS = ("BRICK7", "BRICK1", "BRICK10", "STONE2", "STARTAN3", "BROWN1", "GRAY1", "TEKWALL1")
OTHER_FLOORS = ("FLOOR4_8", "FLOOR0_1", "FLAT5_4", "FLAT1", "MFLR8_1", "CEIL5_1")


def varied(rng: np.random.Generator) -> Looks:
    """Other textures and another light: the sites of one fleet do not look alike."""
    return Looks(
        wall=str(rng.choice(OTHER_WALLS)),
        floor=str(rng.choice(OTHER_FLOORS)),
        ceiling=str(rng.choice(OTHER_FLOORS)),
        light=int(rng.integers(112, 256)),
    )


def map_name(number: int) -> str:
    """The marker of map 0, 1, …: at most eight characters."""
    return f"M{number:06d}"


def write_wad(path: Path, mazes: Sequence[Layout], looks: Sequence[Looks] | None = None) -> None:
    """One map a layout, in their order. The file appears whole or not at all."""
    painted = looks or [Looks()] * len(mazes)
    lumps: list[tuple[str, bytes]] = []
    for number, (maze, look) in enumerate(zip(mazes, painted, strict=True)):
        text = textmap(maze, look).encode("ascii")
        lumps += [(map_name(number), b""), ("TEXTMAP", text), ("ENDMAP", b"")]
    body, entries, at = [], [], 12
    for name, data in lumps:
        entries.append(struct.pack("<ii8s", at, len(data), name.encode("ascii")))
        body.append(data)
        at += len(data)
    header = struct.pack("<4sii", b"PWAD", len(lumps), at)
    unfinished = path.with_suffix(".part")
    unfinished.write_bytes(b"".join([header, *body, *entries]))
    unfinished.replace(path)


def textmap(maze: Layout, looks: Looks) -> str:
    """The map as UDMF text: one sector, walls where open cells meet closed ones or the target."""
    vertices: dict[Cell, int] = {}
    lines: list[str] = []
    sides: list[str] = []

    def side(texture: str) -> int:
        sides.append(f'sidedef {{ sector = 0; texturemiddle = "{texture}"; }}')
        return len(sides) - 1

    height, width = maze.open.shape
    walkable = [(x, y) for y in range(height) for x in range(width) if maze.is_open((x, y))]
    for cell in walkable:
        if cell == maze.target:
            continue
        x, y = cell
        for i, (dx, dy) in enumerate(((-1, 0), (0, 1), (1, 0), (0, -1))):
            beyond = (x + dx, y + dy)
            if maze.is_open(beyond) and beyond != maze.target:
                continue
            a, b = _SECTOR_BORDER[i], _SECTOR_BORDER[(i + 1) % 4]
            v1, v2 = (vertices.setdefault((x + c[0], y + c[1]), len(vertices)) for c in (a, b))
            if beyond == maze.target:
                # Special 243, Exit_Normal, on a push: touching the block ends the episode.
                special = " special = 243; playerpush = true; repeatspecial = true;"
                front = side(looks.target)
            else:
                special, front = "", side(looks.wall)
            ends = f"v1 = {v1}; v2 = {v2}; sidefront = {front}"
            lines.append(f"linedef {{ {ends}; blocking = true;{special} }}")
    corners = [f"vertex {{ x = {x * CELL}.0; y = {y * CELL}.0; }}" for x, y in vertices]
    centre = tuple((c + 0.5) * CELL for c in maze.start)
    dx, dy = HEADINGS[maze.heading]
    angle = {(1, 0): 0, (0, 1): 90, (-1, 0): 180, (0, -1): 270}[(dx, dy)]
    skills = " ".join(f"skill{n} = true;" for n in range(1, 6))
    thing = (
        f"thing {{ x = {centre[0]}; y = {centre[1]}; angle = {angle}; type = {_PLAYER_START}; "
        f"{skills} single = true; }}"
    )
    sector = (
        f'sector {{ heightfloor = 0; heightceiling = {_HEIGHT}; texturefloor = "{looks.floor}"; '
        f'textureceiling = "{looks.ceiling}"; lightlevel = {looks.light}; }}'
    )
    parts = ['namespace = "zdoom";', thing, *corners, *lines, *sides, sector]
    return "\n".join(parts) + "\n"
