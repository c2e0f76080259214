"""The service as its own process on a free port, for tests that stop, kill and restart it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from tests.processes import Child, free_port

ROOT = Path(__file__).parent.parent
PREFIX = "ACCLIMATE_"
ADMIN_KEY = "an-admin-key-for-tests-and-nobody-else"
AUTHORIZATION = {"Authorization": f"Bearer {ADMIN_KEY}"}
"""What a service on Redis or PostgreSQL asks for; an embedded one takes it and needs none."""


def environment(settings: dict[str, str]) -> dict[str, str]:
    """Our environment with these ACCLIMATE_ settings and no other."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return inherited | {PREFIX + name.upper(): value for name, value in settings.items()}


class ServiceProcess:
    """`python -m service` with its own port, data folder and log; the address never changes."""

    def __init__(self, data_dir: Path, *arguments: str, **settings: object) -> None:
        """Not started yet. A setting is named as in the service, in lower case: `redis_url=...`."""
        self.port = free_port()
        self.data_dir = data_dir
        self.arguments = arguments
        self.settings: dict[str, object] = {
            "host": "127.0.0.1",
            "port": self.port,
            "data_dir": data_dir,
        } | settings
        if {"redis_url", "ledger_url"} & set(settings):
            self.settings.setdefault("admin_key", ADMIN_KEY)
        self.log = data_dir.with_name(data_dir.name + ".log")
        self._child: Child | None = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    def start(self, *, timeout_seconds: float = 60, wait: bool = True) -> None:
        """Start it on the data it left, and wait until /readyz is green."""
        if self._child is not None and self._child.running:
            return
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._child = Child(self._command(), log=self.log, env=self._environment(), cwd=ROOT)
        if wait:
            self.wait_ready(timeout_seconds=timeout_seconds)

    def run(self, *, timeout_seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """Run it to its end, for a start that it should refuse; its exit status and output."""
        return subprocess.run(
            self._command(),
            env=self._environment(),
            cwd=ROOT,
            timeout=timeout_seconds,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def wait_ready(self, *, timeout_seconds: float = 60) -> None:
        if self._child is not None:
            self._child.wait_ready(self.ready, timeout_seconds=timeout_seconds)

    def ready(self) -> bool:
        """Whether /readyz is green."""
        try:
            with urllib.request.urlopen(f"{self.base_url}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def terminate(self) -> int | None:
        """Ask it to end in order; its exit status."""
        child, self._child = self._child, None
        return None if child is None else child.terminate()

    def ended(self, *, timeout_seconds: float) -> int | None:
        """Wait until it has ended by itself; its exit status, None when it does not."""
        if self._child is None:
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._child.process.wait(timeout_seconds)
        return None

    def kill(self) -> int | None:
        """End it at once, as a power cut would."""
        child, self._child = self._child, None
        return None if child is None else child.kill()

    def restart(self) -> None:
        """End it in order and start it again on the same data."""
        self.terminate()
        self.start()

    def log_tail(self, lines: int = 60) -> str:
        """The last lines of what all its runs printed."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "service", *self.arguments]

    def _environment(self) -> dict[str, str]:
        return environment({name: str(value) for name, value in self.settings.items()})
