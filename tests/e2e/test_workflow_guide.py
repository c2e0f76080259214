"""The guide to workflows, followed as a new user would: every command, and what it prints."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.bundles import write_default_bundle
from tests.house.tree import ROOT
from tests.service_process import ServiceProcess, environment
from training.tasks.workflows.families import FILES

GUIDE = ROOT / "docs" / "workflows.md"
BLOCK = re.compile(r"^```(?P<kind>sh|text)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
NEEDED = ("bash", "curl", "jq")


class Step(NamedTuple):
    """Commands of the guide, and lines that it says they print."""

    commands: str
    printed: list[str]


def steps() -> list[Step]:
    found: list[Step] = []
    for block in BLOCK.finditer(GUIDE.read_text()):
        if block["kind"] == "sh":
            found.append(Step(block["text"], []))
        else:
            found[-1].printed.extend(block["text"].splitlines())
    return found


def prints(line: str, output: list[str]) -> bool:
    """Whether a line of the guide, in which … stands for anything, is in the output."""
    pattern = ".*".join(map(re.escape, line.split("…")))
    return any(re.fullmatch(pattern, one) for one in output)


@pytest.mark.skipif(not all(map(shutil.which, NEEDED)), reason=f"needs {', '.join(NEEDED)}")
def test_every_command_of_the_guide_does_what_it_says(
    tmp_path: Path, service_process: Callable[..., ServiceProcess]
) -> None:
    write_default_bundle(tmp_path / "policies")
    (tmp_path / "workflows").symlink_to(FILES)
    service = service_process(
        start=False,
        workflows=tmp_path / "my-workflows",
        policies=tmp_path / "policies",
        data_dir=tmp_path / "my-data",
    )
    acclimate = tmp_path / "bin" / "acclimate"
    acclimate.parent.mkdir()
    acclimate.write_text(f'#!/bin/sh\nexec {sys.executable} -m acclimate "$@"\n')
    acclimate.chmod(0o755)
    env = environment({}) | {
        "PATH": f"{acclimate.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    served = False
    for step in steps():
        commands = step.commands.replace("localhost:8000", f"127.0.0.1:{service.port}").replace(
            "acclimate simulate ", f"acclimate simulate --url http://127.0.0.1:{service.port} "
        )
        if commands.startswith("acclimate serve"):
            assert commands.split() == (
                ["acclimate", "serve", "--workflows", "my-workflows", "--data-dir", "my-data"]
            )
            service.start()
            served = True
            continue
        ended = subprocess.run(
            ["bash", "-c", commands],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        output = ended.stdout.splitlines()
        for line in step.printed:
            assert prints(line, output), f"{commands}{ended.stdout}{ended.stderr}"
        assert "Traceback" not in ended.stderr
    assert served
