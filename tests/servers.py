"""Real servers for tests, found in this order: an address in the environment (what it names is
emptied), a server on PATH, a pip-installed one. Where there is none the test is skipped in print,
and under CI=true it fails.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, Protocol, TypeVar

import pytest

from tests.processes import Child, ProcessError

S = TypeVar("S")


class Server(Protocol):
    """What a test may do to a server; its address stays the same throughout."""

    @property
    def url(self) -> str:
        """The address, in the form that the service's settings take."""

    def start(self) -> None:
        """Bring it up, on the data it left; nothing if it is up."""

    def stop(self) -> None:
        """Shut it down in order; its data stays on disk."""

    def kill(self) -> None:
        """End it at once, as a power cut would."""

    def pause(self) -> contextlib.AbstractContextManager[object]:
        """Freeze it now, connections open; `resume()`, or leaving a `with`, thaws it."""

    def resume(self) -> None:
        """Thaw it."""

    def flush(self) -> None:
        """Empty it."""

    def close(self) -> None:
        """End it for good and delete what it stored."""


@dataclass
class OwnServer:
    """A server that the tests run themselves, on one port and one folder for its whole life."""

    url: str
    home: Path  # a temporary folder, deleted with the server
    command: list[str]
    answers: Callable[[], bool]
    empty: Callable[[], None]
    stop_signal: signal.Signals = signal.SIGTERM
    end_signal: signal.Signals = signal.SIGKILL
    account: tuple[int, int] | None = None
    _child: Child | None = field(default=None, init=False)

    @property
    def data_dir(self) -> Path:
        return self.home / "data"

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    def start(self) -> None:
        if self._child is not None:
            return
        log = self.home / "server.log"
        child = Child(self.command, log=log, cwd=self.home, account=self.account)
        try:
            child.wait_ready(self.answers, timeout_seconds=30)
        except BaseException:
            child.kill()
            raise
        self._child = child

    def stop(self) -> None:
        self._end(self.stop_signal)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def pause(self) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext() if self._child is None else self._child.pause()

    def resume(self) -> None:
        if self._child is not None:
            self._child.resume()

    def flush(self) -> None:
        self.empty()

    def close(self) -> None:
        self._end(self.end_signal)
        shutil.rmtree(self.home, ignore_errors=True)

    def _end(self, how: signal.Signals) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.terminate(how=how)


@dataclass(frozen=True)
class GivenServer:
    """A server that somebody else runs: a test may empty it, and is skipped if it needs more."""

    url: str
    empty: Callable[[], None]

    def start(self) -> None:
        """It is up already."""

    def resume(self) -> None:
        """It was never paused."""

    def close(self) -> None:
        """It is not ours to end."""

    def flush(self) -> None:
        self.empty()

    def stop(self) -> None:
        self._not_ours()

    def kill(self) -> None:
        self._not_ours()

    def pause(self) -> contextlib.AbstractContextManager[object]:
        self._not_ours()

    def _not_ours(self) -> NoReturn:
        unavailable("a server given by its address cannot be stopped by a test")


def unavailable(reason: str) -> NoReturn:
    """Skip the test, in print; under CI=true, where nothing may go untested, fail it."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"CI leaves nothing untested: {reason}", pytrace=False)
    print(f"SKIPPED: {reason}")
    pytest.skip(reason)


def first_that_starts(name: str, candidates: Iterable[Callable[[], S]]) -> S:
    """The first of `candidates` that comes up; otherwise a skip that says why none did."""
    reasons = [f"no {name} here could be started"]
    for candidate in candidates:
        try:
            return candidate()
        except (ProcessError, OSError) as error:
            reasons.append(str(error))
    unavailable("\n".join(reasons))


def installed_package(name: str) -> Path | None:
    """The folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(name)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent
