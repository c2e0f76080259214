"""The process the demo starts: it ends with the demo, however that ends, and leaves nothing."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from benchmarks.service_process import ServiceError, running_service
from tests.processes import wait_until

ANSWERING = """
import http.server, sys
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Ready).serve_forever()
"""
REFUSING = """
import sys
sys.exit("cannot serve: workflows/brand-choice.yaml:3: policy: unknown")
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `python -m service` is a script of the test's own."""
    (tmp_path / "service").mkdir()
    (tmp_path / "scratch").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    return tmp_path / "service" / "__main__.py"


def start() -> None:
    with running_service(
        workflows=Path("workflows"),
        policies=Path("policies"),
        installation_key="a key for these tests",
    ):
        raise AssertionError("it must not become ready")


def test_a_service_that_refuses_to_start_is_an_error_that_ends_with_its_log(
    stand_in: Path,
) -> None:
    stand_in.write_text(REFUSING)
    with pytest.raises(ServiceError, match=r"status 1:\n(.*\n)*cannot serve: workflows"):
        start()
    assert not list(Path("scratch").iterdir())


@pytest.mark.parametrize("ending", [None, KeyboardInterrupt, RuntimeError])
def test_the_process_and_its_folder_are_gone_after_the_block(
    stand_in: Path, ending: type[BaseException] | None
) -> None:
    stand_in.write_text(ANSWERING)
    seen: list[int] = []

    def block() -> None:
        with running_service(
            workflows=Path("workflows"),
            policies=Path("policies"),
            installation_key="a key for these tests",
        ) as service:
            assert service.pid is not None
            seen.append(service.pid)
            assert list(Path("scratch").iterdir())
            if ending is not None:
                raise ending

    if ending is None:
        block()
    else:
        with pytest.raises(ending):
            block()
    assert seen
    assert not psutil.pid_exists(seen[0])
    assert not list(Path("scratch").iterdir())


def test_the_block_can_say_that_the_service_died(stand_in: Path) -> None:
    stand_in.write_text(ANSWERING)
    with running_service(
        workflows=Path("workflows"),
        policies=Path("policies"),
        installation_key="a key for these tests",
    ) as service:
        assert service.died() is None
        assert service.pid is not None
        os.kill(service.pid, signal.SIGKILL)
        assert wait_until(lambda: service.died() is not None, timeout_seconds=5)
        assert "ended with status -9" in (service.died() or "")
