"""Prometheus's own programs for tests, where they are on PATH (Debian: `prometheus`,
`prometheus-alertmanager`); `.ci/run` installs them."""

from __future__ import annotations

import shutil
import subprocess

from tests.house.tree import ROOT
from tests.servers import unavailable

PROMETHEUS = ROOT / "infra" / "prometheus"


def program(name: str, package: str) -> str:
    """Where the program is; a skip in print where it is not, and under CI=true a failure."""
    found = shutil.which(name)
    if found is None:
        unavailable(f"no {name} on PATH: apt-get install {package}")
    return found


def run(name: str, package: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The program run to its end."""
    return subprocess.run(
        [program(name, package), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def promtool(*arguments: object) -> None:
    """Runs promtool, which finds nothing wrong."""
    done = run("promtool", "prometheus", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
