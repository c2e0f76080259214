"""Child processes for tests: started on free ports, stopped, paused, killed, and never left behind.

A child gets a session of its own, so that Ctrl-C reaches the tests alone and they end it in order.
A watcher ends it even when the tests themselves are killed.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

WATCHER = 'cat > /dev/null; kill -KILL "$1" 2> /dev/null'


class ProcessError(Exception):
    """A child process ended, or did not become ready, when it should have run."""


def free_port() -> int:
    """A TCP port of the loopback interface that nothing listens on."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_until(
    condition: Callable[[], bool], *, timeout_seconds: float, interval_seconds: float = 0.02
) -> bool:
    """Whether `condition` came true in time."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(interval_seconds)
    return True


class Child:
    """One child process, its log file, and the signals a test may send it."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        account: tuple[int, int] | None = None,
    ) -> None:
        """Start `command`; `account` is the (uid, gid) to run as, where that is not ours."""
        self.command = list(command)
        self.log = log
        uid, gid = account or (None, None)
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                cwd=cwd,
                user=uid,
                group=gid,
                extra_groups=None if account is None else [],
                start_new_session=True,
            )
        # The watcher reads a pipe that only we hold: it closes when we are gone, however we went.
        self._watcher = subprocess.Popen(
            ["sh", "-c", WATCHER, "watcher", str(self.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def wait_ready(self, ready: Callable[[], bool], *, timeout_seconds: float) -> None:
        """Return once `ready()`; raise with the end of the log if that does not come."""
        wait_until(lambda: ready() or not self.running, timeout_seconds=timeout_seconds)
        if self.running and ready():
            return
        state = "is not ready" if self.running else f"ended with {self.process.returncode}"
        self.kill()
        raise ProcessError(f"{' '.join(self.command)} {state}\n{self.log_tail()}")

    def pause(self) -> contextlib.ExitStack:
        """Freeze the whole process tree now; `resume()`, or leaving a `with`, thaws it."""
        self._signal_tree(signal.SIGSTOP)
        stack = contextlib.ExitStack()
        stack.callback(self.resume)
        return stack

    def resume(self) -> None:
        self._signal_tree(signal.SIGCONT)

    def terminate(
        self, *, how: signal.Signals = signal.SIGTERM, timeout_seconds: float = 15
    ) -> int:
        """Ask it to end, and kill it when it does not; the exit status."""
        if self.running:
            self.resume()
            self.process.send_signal(how)
            try:
                self.process.wait(timeout_seconds)
            except subprocess.TimeoutExpired:
                return self.kill()
        return self._gone()

    def kill(self) -> int:
        """End it and its children at once, as a power cut would; the exit status."""
        self._signal_tree(signal.SIGKILL)
        return self._gone()

    def log_tail(self, lines: int = 60) -> str:
        """The last lines of what it printed."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _signal_tree(self, number: signal.Signals) -> None:
        if not self.running:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self.pid)
            # Parent first, so that it starts no new children while we go through the old ones.
            for process in [parent, *parent.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)

    def _gone(self) -> int:
        status = self.process.wait()
        if self._watcher.poll() is None:
            self._watcher.kill()
            self._watcher.wait()
        if self._watcher.stdin is not None:
            self._watcher.stdin.close()
        return status
