"""A bundle in mazes it was never trained on: steps and success by episode, beside who knows more.

The bundle's graphs play ViZDoom; the explorer and the shortest path play the same layouts. It must
never write a file: the report does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from contract.draw import sample
from contract.encode import horizon_left
from contract.policy import Memory, OnnxPolicy
from training.tasks.mazes.engine import PIXELS
from training.tasks.mazes.explorer import Known, advise
from training.tasks.mazes.layouts import SIZES, Layout, layouts
from training.tasks.mazes.streams import FOUND, LIVING
from training.tasks.mazes.trials import EPISODE_STEPS, WALL_HIT, into_wall
from training.tasks.mazes.walking import ACTIONS
from training.tasks.mazes.workers import Engines
from training.tasks.mazes.worlds import EngineWorld, ModelWorld, World, as_context, wad_for

Size = Literal["small", "large"]
Ints = NDArray[np.int64]

EPISODES = 5
PUBLISHED: dict[str, dict[str, list[tuple[float, float | None]]]] = {
    "small": {
        "RL²": [(52.4, 0.993), (39.1, 0.996), (42.6, 0.997), (43.5, 0.994), (43.9, 0.996)],
        "SNAIL": [(50.3, None), (34.8, None)],
    },
    "large": {
        "RL²": [(180.1, 0.971), (151.8, 0.967), (169.3, 0.958), (162.3, 0.956), (169.3, 0.961)],
        "SNAIL": [(140.5, None), (105.9, None)],
    },
}
"""Steps and success by episode: Duan et al. (2016), table 3; Mishra et al. (2018), table 5."""
PUBLISHED_NOT_LONGER = {"small": 0.917, "large": 0.714}


class Player(Protocol):
    """Who walks: one action for some of the players, and what came of it."""

    def begin(self, rows: Ints) -> None:
        """These rows start a new maze, of which nothing is known."""
        ...

    def choose(self, world: World, rows: Ints) -> Ints:
        """Actions of these rows `[n]`."""
        ...

    def learn(self, rows: Ints, actions: Ints, rewards: NDArray[np.float32], done: Ints) -> None:
        """What came of them."""
        ...


@dataclass(frozen=True)
class Episodes:
    """What N trials of E episodes came to."""

    steps: Ints
    """`[N, E]`; an episode that failed took all it may."""
    found: NDArray[np.bool_]
    """`[N, E]`."""
    paths: dict[int, list[list[tuple[float, float]]]]
    """Positions of the trials that were followed, by episode."""

    @property
    def not_longer(self) -> float:
        """Share of trials whose second episode took no more steps than the first."""
        return float((self.steps[:, 1] <= self.steps[:, 0]).mean())

    def summary(self) -> list[dict[str, float]]:
        """By episode: success, and steps of the successful ones with their standard error."""
        rows = []
        for episode in range(self.steps.shape[1]):
            found = self.found[:, episode]
            steps = self.steps[found, episode]
            enough = len(steps) > 1
            rows.append(
                {
                    "episode": episode + 1,
                    "success": float(found.mean()),
                    "steps": float(steps.mean()) if len(steps) else float("nan"),
                    "steps_se": float(steps.std(ddof=1) / np.sqrt(len(steps))) if enough else 0.0,
                }
            )
        return rows


class PolicyPlayer:
    """A bundle, whose memory it holds, row by row."""

    def __init__(self, policy: OnnxPolicy, trials: int, seed: int, greedy: bool = False) -> None:
        self._policy = policy
        self._memory = policy.blank(trials, len(ACTIONS))
        self._rng = np.random.default_rng(seed)
        self._greedy = greedy
        self._seen = np.zeros((trials, PIXELS), np.float32)

    def begin(self, rows: Ints) -> None:
        """See `Player`."""
        blank = self._policy.blank(len(rows), len(ACTIONS))
        self._memory.shared[rows] = blank.shared

    def choose(self, world: World, rows: Ints) -> Ints:
        """See `Player`."""
        assert isinstance(world, EngineWorld)
        self._seen[rows] = as_context(world.pictures()[rows])
        left = horizon_left(np.zeros(len(rows)), 1_000)
        probabilities, _ = self._policy.decide(
            self._of(rows),
            context=self._seen[rows],
            action_mask=np.ones((len(rows), len(ACTIONS)), bool),
            horizon_left=left,
            action_features=np.zeros((len(rows), len(ACTIONS), 0), np.float32),
        )
        if self._greedy:
            best: Ints = probabilities.argmax(1)
            return best
        return sample(probabilities, self._rng.random(len(rows)))

    def learn(self, rows: Ints, actions: Ints, rewards: NDArray[np.float32], done: Ints) -> None:
        """See `Player`."""
        after = self._policy.learn(
            self._of(rows),
            context=self._seen[rows],
            action=actions,
            reward=rewards,
            done=done.astype(np.float32),
            action_features=np.zeros((len(rows), len(ACTIONS), 0), np.float32),
        )
        self._memory.shared[rows] = after.shared

    def _of(self, rows: Ints) -> Memory:
        return Memory(self._memory.shared[rows], self._memory.rows[rows])


class ExplorerPlayer:
    """The lessons' teacher, which knows where it stands and what its sight has met."""

    def __init__(self, world: World) -> None:
        grid = world.ground.walls
        self._known = Known.nothing(len(grid), grid.shape[1] - 4)
        self._advice = np.zeros(len(grid), np.int64)

    def begin(self, rows: Ints) -> None:
        """See `Player`."""
        self._known.forget(rows)

    def choose(self, world: World, rows: Ints) -> Ints:
        """See `Player`."""
        self._known.see(world.ground.look(world.at), world.ground.target)
        advice, _ = advise(self._known, world.at)
        chosen: Ints = advice[rows]
        return chosen

    def learn(self, rows: Ints, actions: Ints, rewards: NDArray[np.float32], done: Ints) -> None:
        """It has seen all there is to learn."""


class InformedPlayer(ExplorerPlayer):
    """The same, told the whole maze beforehand: steps of a scripted agent that knows the map."""

    def begin(self, rows: Ints) -> None:
        """See `Player`."""
        self._fresh = True

    def choose(self, world: World, rows: Ints) -> Ints:
        """See `Player`."""
        self._known.tell(world.ground.walls, world.ground.target)
        advice, _ = advise(self._known, world.at)
        chosen: Ints = advice[rows]
        return chosen


def play_trials(
    world: World,
    player: Player,
    *,
    trials: int,
    episodes: int,
    episode_steps: int,
    on_step: Callable[[int], None] = lambda count: None,
    followed: Sequence[int] = (),
    on_picture: Callable[[int, int], None] | None = None,
) -> Episodes:
    """Plays mazes 0 … trials − 1 of the world, as many at once as it has players."""
    B = len(world.at.x)
    steps, found = np.zeros((trials, episodes), int), np.zeros((trials, episodes), bool)
    trial = np.arange(B)
    episode = np.zeros(B, int)
    paths: dict[int, list[list[tuple[float, float]]]] = {
        one: [[] for _ in range(episodes)] for one in followed
    }
    following = trials
    live = np.flatnonzero(trial < trials)
    world.load(live, [int(one) for one in live])
    player.begin(live)
    following = int(live.size)
    while live.size:
        for row in live:
            if int(trial[row]) in paths:
                at = (float(world.at.x[row]), float(world.at.y[row]))
                paths[int(trial[row])][episode[row]].append(at)
                if on_picture is not None:
                    on_picture(int(row), int(episode[row]))
        actions = player.choose(world, live)
        touched = world.act(actions, live)
        hit = into_wall(world.ground, world.at, live, actions) & ~touched
        rewards = (LIVING + FOUND * touched + WALL_HIT * hit).astype(np.float32)
        steps[trial[live], episode[live]] += 1
        spent = steps[trial[live], episode[live]] >= episode_steps
        ended = touched | spent
        player.learn(live, actions, rewards, ended.astype(np.int64))
        found[trial[live], episode[live]] = touched
        over = live[ended]
        episode[over] += 1
        world.again(over[episode[over] < episodes])
        finished = over[episode[over] >= episodes]
        on_step(len(finished))
        fresh = []
        for row in finished:
            trial[row] = following
            episode[row] = 0
            if following < trials:
                fresh.append(int(row))
            following += 1
        if fresh:
            rows = np.array(fresh)
            world.load(rows, [int(trial[row]) for row in rows])
            player.begin(rows)
        live = np.flatnonzero(trial < trials)
    return Episodes(steps, found, paths)


def unseen_layouts(size: Size, trials: int, seed: int) -> list[Layout]:
    """Different layouts, none of which any training has met."""
    return list(islice(layouts(SIZES[size], "test", seed), trials))


def evaluate(
    policy: OnnxPolicy,
    *,
    size: Size,
    trials: int,
    seed: int,
    episodes: int = EPISODES,
    engines: int = 8,
    workers: int = 1,
    greedy: bool = False,
    varied: bool = False,
    on_trial: Callable[[int], None] = lambda count: None,
    followed: Sequence[int] = (),
) -> Episodes:
    """The bundle in `trials` test layouts. Raises EngineError when the engine cannot run."""
    mazes = unseen_layouts(size, trials, seed)
    count = min(engines, trials)
    with tempfile.TemporaryDirectory(prefix="acclimate-mazes-") as folder:
        wad = wad_for(mazes, Path(folder), looks=np.random.default_rng(seed) if varied else None)
        with Engines(wad, count, min(workers, count), seed) as running:
            world = EngineWorld(mazes, running)
            return play_trials(
                world,
                PolicyPlayer(policy, count, seed, greedy),
                trials=trials,
                episodes=episodes,
                episode_steps=EPISODE_STEPS[size],
                on_step=on_trial,
                followed=followed,
            )


def references(size: Size, trials: int, seed: int) -> dict[str, Episodes]:
    """Who knows more, on the same layouts, in the model of the engine."""
    mazes = unseen_layouts(size, trials, seed)
    made: dict[str, Callable[[World], Player]] = {
        "map explorer": ExplorerPlayer,
        "knows the map": InformedPlayer,
    }
    return {
        name: play_trials(
            world := ModelWorld(mazes, min(256, trials)),
            make(world),
            trials=trials,
            episodes=2,
            episode_steps=EPISODE_STEPS[size],
        )
        for name, make in made.items()
    }


def refuse_misfit(policy: OnnxPolicy, trials: int) -> None:
    """Raises ValueError naming the field of what cannot be evaluated."""
    if trials < 2:
        raise ValueError(f"trials: expected at least 2, for a standard error, got {trials}")
    manifest = policy.manifest
    if manifest.context_size != PIXELS:
        raise ValueError(
            f"policy: expected one that sees pictures (context_size {PIXELS}), "
            f"got {manifest.policy} with context_size {manifest.context_size}"
        )
    if not manifest.actions.min <= len(ACTIONS) <= manifest.actions.max:
        raise ValueError(
            f"policy: expected one that takes {len(ACTIONS)} actions, got {manifest.policy} with "
            f"{manifest.actions.min} to {manifest.actions.max}"
        )


def to_json(played: Episodes) -> dict[str, Any]:
    """The evaluation as plain numbers."""
    return {"episodes": played.summary(), "not_longer": played.not_longer}


@dataclass(frozen=True)
class Bar:
    """What an episode must reach."""

    steps: float
    success: float | None = None


def bars(size: Size) -> list[Bar]:
    """By episode: the published figures of RL², whose later episodes forget; these may not."""
    first, second = ((steps, success) for steps, success in PUBLISHED[size]["RL²"][:2])
    return [Bar(*first), Bar(*second), *(Bar(second[0]) for _ in range(EPISODES - 2))]
