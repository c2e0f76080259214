"""Layouts: spanning trees, by seed, train and test apart; and the WADs they are written into."""

from __future__ import annotations

import struct
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from training.tasks.mazes.layouts import Layout, LayoutError, Split, layouts, split_of
from training.tasks.mazes.wad import CELL, Looks, map_name, textmap, varied, write_wad


def some(split: Split, count: int, rooms: int = 3, seed: int = 0) -> list[Layout]:
    return list(islice(layouts(rooms, split, seed), count))


@pytest.mark.parametrize("rooms", [2, 3, 5])
def test_a_layout_is_a_spanning_tree_over_its_rooms(rooms: int) -> None:
    for maze in some("train", 50, rooms):
        assert maze.open.shape == (2 * rooms - 1, 2 * rooms - 1)
        assert maze.open[::2, ::2].all()
        assert not maze.open[1::2, 1::2].any()
        assert maze.open.sum() == 2 * rooms * rooms - 1  # rooms, and one way fewer
        assert len(maze.distances) == maze.open.sum()  # every cell has a path to the target


def test_nothing_of_the_tests_is_ever_trained_on() -> None:
    """Not even with another start, heading or target, and whatever the seeds."""
    walls = {maze.open.tobytes() for seed in range(5) for maze in some("test", 200, 3, seed)}
    for seed in range(5):
        assert not walls & {maze.open.tobytes() for maze in some("train", 200, 3, seed)}


def test_a_seed_fixes_the_sequence_and_no_layout_comes_twice() -> None:
    first = [maze.key for maze in some("test", 1_000)]
    assert first == [maze.key for maze in some("test", 1_000)]
    assert len(set(first)) == 1_000
    assert first != [maze.key for maze in some("test", 1_000, seed=1)]
    assert all(split_of(maze) == "test" for maze in some("test", 20))


def test_a_maze_without_a_path_is_refused() -> None:
    grid = np.zeros((3, 3), bool)
    grid[0, 0] = grid[2, 2] = True
    with pytest.raises(LayoutError, match=r"target: expected a path from the start \(0, 0\)"):
        Layout(grid, (0, 0), 0, (2, 2))
    with pytest.raises(LayoutError, match="start: expected an open cell"):
        Layout(grid, (1, 0), 0, (2, 2))
    with pytest.raises(LayoutError, match="target: expected another cell"):
        Layout(grid, (0, 0), 0, (0, 0))
    with pytest.raises(LayoutError, match="rooms: expected at least 2"):
        next(layouts(1, "train"))


def test_a_wad_has_three_lumps_a_maze_and_its_text_says_where_things_are(tmp_path: Path) -> None:
    mazes = some("train", 4)
    path = tmp_path / "m.wad"
    write_wad(path, mazes)
    data = path.read_bytes()
    kind, count, at = struct.unpack_from("<4sii", data)
    assert (kind, count) == (b"PWAD", 12)
    names = [data[at + 16 * i + 8 : at + 16 * i + 16].rstrip(b"\0").decode() for i in range(count)]
    assert names[:4] == [map_name(0), "TEXTMAP", "ENDMAP", map_name(1)]
    start, size = struct.unpack_from("<ii", data, at + 16)
    text = data[start : start + size].decode()
    assert text == textmap(mazes[0], Looks())
    x, y = mazes[0].start
    assert f"x = {(x + 0.5) * CELL}; y = {(y + 0.5) * CELL};" in text
    assert 1 <= text.count("special = 243") <= 4  # a side a way in
    assert sorted(tmp_path.iterdir()) == [path]


def test_other_looks_change_textures_and_light_and_nothing_else() -> None:
    maze = some("train", 1)[0]
    looks = {varied(np.random.default_rng(seed)) for seed in range(20)}
    assert len(looks) > 15
    plain = textmap(maze, Looks())
    for one in looks:
        text = textmap(maze, one)
        assert text.count("linedef") == plain.count("linedef")
        assert f'"{one.wall}"' in text and f"lightlevel = {one.light};" in text
