"""One ViZDoom engine: loads mazes of a WAD, acts, shows small pictures. The only file that runs it.

It must never decide anything about trials: episodes and their ends are counted elsewhere.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.tasks.mazes.wad import map_name
from training.tasks.mazes.walking import TICS

HEIGHT, WIDTH, CHANNELS = 30, 40, 3
"""Of a picture: the engine's 160×120, each pixel the mean of 4×4."""
PIXELS = HEIGHT * WIDTH * CHANNELS
POSE = 5
"""x, y, angle in degrees, and velocity in x and y: map units, and map units a tic."""
_SHRINK = 4
_SUM_OF_FOUR = np.uint64(0x0001_0001_0001_0001)
"""Times a word of four 16-bit numbers: the highest of them is then their sum."""
_HALF, _SIXTEENTH = np.uint64(8 << 48), np.uint64(52)
"""To be added before that sum is divided by 16, and the shift that takes it out, divided."""
_STARTS_AT = 14
"""The tic an episode starts at: before it, a player who has just appeared does not obey yet."""
SHARED_BYTES = 1_000_000
"""What one engine takes of /dev/shm at most."""

_BUTTONS = ([1, 0, 0], [0, 1, 0], [0, 0, 1])


class EngineError(RuntimeError):
    """The engine cannot run, or stopped. The message says why, and what would help."""


def refuse_missing_engine() -> None:
    """Raises EngineError where ViZDoom is not installed."""
    if importlib.util.find_spec("vizdoom") is None:
        raise EngineError(
            "the mazes need vizdoom: .venv/bin/pip install -e '.[train]' -c constraints.txt"
        )


def refuse_little_shared_memory(engines: int, folder: Path = Path("/dev/shm")) -> None:
    """Raises EngineError where the engines' pictures do not fit into shared memory.

    The engine itself would die of a bus error in the middle of a picture.
    """
    if not folder.is_dir():
        raise EngineError(f"{folder}: expected shared memory for {engines} engines, found none")
    needed, free = engines * SHARED_BYTES, shutil.disk_usage(folder).free
    if free < needed:
        raise EngineError(
            f"{folder}: expected {needed / 1e6:.0f} MB free for {engines} engines, found "
            f"{free / 1e6:.0f} MB; enlarge it (docker run --shm-size=1g) or use fewer engines"
        )


def check_wad(wad: Path) -> int:
    """How many mazes a WAD of ours holds. Raises EngineError for what is none."""
    try:
        data = wad.read_bytes()
    except OSError as error:
        raise EngineError(f"{wad}: expected a WAD of mazes, but {error.strerror}") from error
    count = int.from_bytes(data[4:8], "little") if data[:4] == b"PWAD" else -1
    at = int.from_bytes(data[8:12], "little")
    if count < 3 or count % 3 or len(data) < at + 16 * count:
        raise EngineError(f"{wad}: expected a whole WAD of mazes, got another file")
    first = data[at + 8 : at + 16].rstrip(b"\0")
    if first != map_name(0).encode() or data[at + 24 : at + 32].rstrip(b"\0") != b"TEXTMAP":
        raise EngineError(
            f"{wad}: expected a WAD of mazes that starts with map {map_name(0)} as text, "
            f"got one that starts with {first.decode('ascii', 'replace')}"
        )
    return count // 3


class Engine:
    """One engine, in a process of its own that ViZDoom starts."""

    def __init__(self, wad: Path, scratch: Path, seed: int = 0) -> None:
        """`scratch`: a folder for this engine alone."""
        import vizdoom as vzd

        self._game: Any = vzd.DoomGame()
        self._dead = (
            vzd.ViZDoomUnexpectedExitException,
            vzd.ViZDoomErrorException,
            vzd.ViZDoomIsNotRunningException,
            vzd.MessageQueueException,
            vzd.SharedMemoryException,
        )
        game = self._game
        game.set_doom_game_path(str(Path(vzd.__file__).parent / "freedoom2.wad"))
        game.set_doom_scenario_path(str(wad))
        game.set_doom_config_path(str(scratch / "engine.ini"))
        game.set_doom_map(map_name(0))
        game.set_screen_resolution(vzd.ScreenResolution.RES_160X120)
        game.set_screen_format(vzd.ScreenFormat.CRCGCB)
        for name in ("hud", "crosshair", "weapon", "decals", "particles", "messages"):
            getattr(game, f"set_render_{name}")(False)
        game.set_render_effects_sprites(False)
        game.set_available_buttons(
            [vzd.Button.TURN_LEFT, vzd.Button.TURN_RIGHT, vzd.Button.MOVE_FORWARD]
        )
        variable = vzd.GameVariable
        game.set_available_game_variables(
            [
                variable.POSITION_X,
                variable.POSITION_Y,
                variable.ANGLE,
                variable.VELOCITY_X,
                variable.VELOCITY_Y,
            ]
        )
        game.set_window_visible(False)
        game.set_sound_enabled(False)
        game.set_mode(vzd.Mode.PLAYER)
        game.set_episode_timeout(0)
        game.set_episode_start_time(_STARTS_AT)
        game.set_seed(seed)
        try:
            game.init()
        except self._dead as error:
            raise EngineError(f"ViZDoom did not start: {error}") from error

    def load(self, number: int) -> None:
        """An episode from the start of maze `number` of the WAD, which setting the map begins."""
        try:
            self._game.set_doom_map(map_name(number))
        except self._dead as error:
            raise EngineError(f"ViZDoom stopped: {error}") from error

    def restart(self) -> None:
        """An episode from the start of the same maze. Raises EngineError when the engine died."""
        try:
            self._game.new_episode()
        except self._dead as error:
            raise EngineError(f"ViZDoom stopped: {error}") from error

    def act(self, action: int) -> bool:
        """Four tics of one action. Returns whether the target was touched. Raises EngineError."""
        try:
            self._game.make_action(_BUTTONS[action], TICS)
            return bool(self._game.is_episode_finished())
        except self._dead as error:
            raise EngineError(f"ViZDoom stopped: {error}") from error

    def show(self, picture: NDArray[np.uint8], pose: NDArray[np.float64]) -> None:
        """Puts what the player sees into `picture` `[30, 40, 3]`, where it is into `pose`."""
        state = self._game.get_state()
        if state is None:
            raise EngineError("ViZDoom has no picture: the episode is over")
        make_small(state.screen_buffer, picture)
        pose[:] = state.game_variables

    def close(self) -> None:
        """Ends the engine's process."""
        self._game.close()


def make_small(screen: NDArray[np.uint8], picture: NDArray[np.uint8]) -> None:
    """Puts a screen `[3, 120, 160]` into `picture` `[30, 40, 3]`: means of 4×4, halves rounded up.

    Rows are added as 16-bit numbers, then four of these at once by one product: half the time of a
    library that makes pictures of any size smaller, and the same bytes.
    """
    rows = screen.reshape(CHANNELS * HEIGHT, _SHRINK, _SHRINK * WIDTH)
    sums = np.add(rows[:, 0], rows[:, 1], dtype=np.uint16)
    sums += rows[:, 2]
    sums += rows[:, 3]
    words = sums.view(np.uint64)
    words *= _SUM_OF_FOUR
    words += _HALF
    words >>= _SIXTEENTH
    picture[:] = words.reshape(CHANNELS, HEIGHT, WIDTH).transpose(1, 2, 0)
