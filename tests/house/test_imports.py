"""Imports run one way, and what serves needs no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.house.tree import ROOT

# Every module of the rooms that serve, imported where importing torch raises.
IMPORT_ALL = """
import importlib, pkgutil, sys
sys.modules["torch"] = None
for room in ("contract", "guardrails", "service", "benchmarks"):
    package = importlib.import_module(room)
    for module in pkgutil.walk_packages(package.__path__, room + "."):
        if not module.name.endswith((".__main__", ".env")):
            importlib.import_module(module.name)
import acclimate
"""


def test_the_rooms_import_one_another_in_one_direction() -> None:
    lint_imports = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run([lint_imports], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_serving_the_demo_and_the_command_line_import_no_torch() -> None:
    command = [sys.executable, "-c", IMPORT_ALL]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
