"""The map explorer and what it stands on: sight, walking, and the search for the shortest way."""

from __future__ import annotations

import numpy as np

from training.evaluate_mazes import ExplorerPlayer, InformedPlayer, play_trials, unseen_layouts
from training.tasks.mazes.explorer import Known, advise
from training.tasks.mazes.ground import MARKS, Ground, marks
from training.tasks.mazes.layouts import Layout
from training.tasks.mazes.shortest import shortest
from training.tasks.mazes.sight import COLUMNS, features
from training.tasks.mazes.wad import CELL
from training.tasks.mazes.walking import FORWARD, LEFT, RIGHT, standing, walk
from training.tasks.mazes.worlds import ModelWorld


def corridor(heading: int = 0) -> Layout:
    """Five cells in a row, the target at its east end."""
    grid = np.zeros((5, 5), bool)
    grid[0] = True
    return Layout(grid, (0, 0), heading, (4, 0))


def test_rays_measure_the_wall_ahead_and_see_the_target() -> None:
    ground = Ground.of([corridor(), corridor(1)])
    sight = ground.look(ground.at_start())
    middle = slice(COLUMNS // 2 - 1, COLUMNS // 2 + 1)
    np.testing.assert_allclose(sight.depth[0, middle], 3.5 * CELL, atol=1e-9)
    assert sight.red[0, middle].all() and not sight.red[1].any()
    np.testing.assert_allclose(sight.depth[1], 0.5 * CELL)  # a wall square ahead, in every column
    assert features(sight).shape == (2, 3 * COLUMNS)
    assert np.abs(features(sight)).max() <= 1.0


def test_turning_is_slow_at_first_and_a_quarter_turn_takes_seven_steps() -> None:
    solid = np.ones((1, 9, 9), bool)
    solid[:, 2:7, 2:7] = False
    at = standing(np.array([432.0]), np.array([432.0]), np.array([0.0]))
    turned = []
    for _ in range(7):
        at = walk(at, np.array([LEFT]), solid)
        turned.append(float(at.angle[0]))
    np.testing.assert_allclose(np.diff([0.0, *turned])[:3], [7.03, 12.30, 14.06], atol=0.01)
    assert 89.0 < turned[-1] < 90.0
    at = walk(at, np.array([FORWARD]), solid)
    assert walk(at, np.array([RIGHT]), solid).angle[0] > turned[-1] - 7.1


def test_walls_stop_a_player_a_radius_away() -> None:
    ground = Ground.of([corridor()])
    at = ground.at_start()
    for _ in range(40):
        at = walk(at, np.array([FORWARD]), ground.solid)
    assert ground.touching(at)[0]
    assert CELL * (2 + 4) - 17.0 < at.x[0] < CELL * (2 + 4)


def test_the_explorer_knows_nothing_that_it_has_not_seen() -> None:
    """Two mazes that look alike so far get the same advice, whatever they are beyond."""
    mazes = unseen_layouts("small", 2, 0)
    flipped = Layout(mazes[0].open, mazes[0].start, mazes[0].heading, mazes[0].target)
    ground = Ground.of([mazes[0], flipped])
    known = Known.nothing(2, 5)
    at = ground.at_start()
    sight = ground.look(at)
    known.see(sight, np.array([ground.target[0], [99, 99]]))
    hidden = not sight.red[0].any()
    assert hidden == (known.target[0, 0] < 0)
    if hidden:
        actions, _ = advise(known, at)
        assert actions[0] == actions[1]


def test_advice_needs_no_compass() -> None:
    """A maze turned by a quarter is walked by the same actions."""
    maze = unseen_layouts("small", 1, 4)[0]
    side = len(maze.open) - 1

    def turned(cell: tuple[int, int]) -> tuple[int, int]:
        return side - cell[1], cell[0]

    grid = np.rot90(maze.open, -1)  # rows run north: this turns the maze counter-clockwise
    other = Layout(grid, turned(maze.start), (maze.heading + 1) % 4, turned(maze.target))
    walked = []
    for one in (maze, other):
        world = ModelWorld([one], 1)
        player = ExplorerPlayer(world)
        walked.append(play_trials(world, player, trials=1, episodes=2, episode_steps=250).steps)
    np.testing.assert_array_equal(walked[0], walked[1])


def test_the_explorer_always_finds_the_target_and_then_goes_straight_to_it() -> None:
    """Steps are of 200 layouts; the paper's agent took 52.4 and 39.1, and forgot after that."""
    world = ModelWorld(unseen_layouts("small", 200, 3), 200)
    played = play_trials(world, ExplorerPlayer(world), trials=200, episodes=4, episode_steps=250)
    assert played.found.all()
    by_episode = played.steps.mean(0)
    assert by_episode[0] < 52.0 and by_episode[1] < 35.0
    assert (played.steps[:, 2:] <= played.steps[:, 1:2]).all()  # what was seen since may help
    assert played.not_longer > 0.95


def test_the_search_finds_shorter_ways_than_one_who_knows_the_map() -> None:
    mazes = unseen_layouts("small", 24, 3)
    least = shortest(mazes, width=60)
    world = ModelWorld(mazes, 24)
    informed = play_trials(
        world, InformedPlayer(world), trials=24, episodes=1, episode_steps=250
    ).steps[:, 0]
    assert (least <= informed + 1).all()
    assert 0.8 * informed.mean() < least.mean() < 0.95 * informed.mean()


def test_marks_say_where_a_player_is_in_its_start_s_own_frame() -> None:
    """The same walk from starts that look east and north leaves the same marks."""
    maze = corridor()
    grid = maze.open.T.copy()
    north = Layout(grid, (0, 0), 1, (0, 4))
    told = []
    for one in (maze, north):
        ground = Ground.of([one])
        known = Known.nothing(1, 5)
        at = ground.at_start()
        for _ in range(3):
            at = walk(at, np.array([FORWARD]), ground.solid)
        known.see(ground.look(at), ground.target)
        _, wanted = advise(known, at)
        told.append(marks(ground, known, at, wanted))
    assert told[0].shape == (1, MARKS)
    assert told[0][0, 0] > 0.1 and abs(told[0][0, 1]) < 1e-6  # ahead, and not aside
    np.testing.assert_allclose(told[0][:, :10], told[1][:, :10], atol=1e-5)
