"""The service as a process of its own, on a free port and a temporary folder.

It ends with the `with` block, however that ends, and takes its folder with it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

_PREFIX = "ACCLIMATE_"
_READY_SECONDS = 60.0
_STOP_SECONDS = 15.0
_LOG_LINES = 30


class ServiceError(RuntimeError):
    """The service did not start, or died. The message ends with the tail of its log."""


class ServerProcess:
    """A server that says at /readyz when it is up; it may be stopped and started on its port."""

    name = "the server"

    def __init__(self, folder: Path, command: Sequence[str], settings: Mapping[str, str]) -> None:
        """Not started yet. `command` gets `--port`; `settings` are ACCLIMATE_ variables, whole."""
        self.port = _free_port()
        self.log = folder / "service.log"
        self._command = [*command, "--port", str(self.port)]
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Starts it, and waits until /readyz is green. Raises ServiceError."""
        inherited = {n: value for n, value in os.environ.items() if not n.startswith(_PREFIX)}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=inherited | dict(self._settings),
                process_group=0,  # Ctrl-C reaches us alone, and we stop it in order
            )
        try:
            self._wait_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Asks it to end, waits, and kills it when it does not."""
        self.resume()
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except BaseException as error:  # not in time, or a second Ctrl-C
            process.kill()
            process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise

    def pause(self) -> None:
        """Freezes it: it takes no time of this machine until it is resumed."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Thaws it."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def died(self) -> str | None:
        """What its log ends with, once it has ended by itself."""
        if self._process is None or self._process.poll() is None:
            return None
        return f"{self.name} ended with status {self._process.returncode}:\n{self.log_tail()}"

    def log_tail(self) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-_LOG_LINES:])

    def _wait_ready(self) -> None:
        give_up_at = time.monotonic() + _READY_SECONDS
        with httpx.Client(base_url=self.base_url, trust_env=False, timeout=5.0) as client:
            while time.monotonic() < give_up_at:
                if (died := self.died()) is not None:
                    raise ServiceError(died)
                try:
                    if client.get("/readyz").status_code == httpx.codes.OK:
                        return
                except httpx.TransportError:
                    pass
                time.sleep(0.1)
        raise ServiceError(
            f"{self.name} was not ready after {_READY_SECONDS:g} s:\n{self.log_tail()}"
        )


class ServiceProcess(ServerProcess):
    """`python -m service` over one data folder."""

    name = "the service"

    def __init__(
        self, folder: Path, *, workflows: Path, policies: Path, settings: Mapping[str, str]
    ) -> None:
        """Not started yet. `settings` are ACCLIMATE_ variables, given whole."""
        self.data_dir = folder / "data"
        command = [
            *(sys.executable, "-m", "service", "--data-dir", str(self.data_dir)),
            *("--workflows", str(workflows), "--policies", str(policies)),
        ]
        super().__init__(folder, command, settings)


@contextmanager
def running_service(
    *, workflows: Path, policies: Path, installation_key: str
) -> Iterator[ServiceProcess]:
    """A service that is ready, for the length of a `with` block. Raises ServiceError."""
    with tempfile.TemporaryDirectory(prefix="acclimate-demo-") as folder:
        service = ServiceProcess(
            Path(folder),
            workflows=workflows,
            policies=policies,
            settings={f"{_PREFIX}INSTALLATION_KEY": installation_key},
        )
        try:
            service.start()
            yield service
        finally:
            service.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
