"""The demo against the real service, small: its files, its exit status, and what it leaves."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest
from typer.testing import CliRunner

from benchmarks.cli import app
from benchmarks.demo import WORKFLOW, accounts_of, brand_choice
from benchmarks.player import Account, Journey, Player, play_all
from benchmarks.service_process import ServiceProcess
from tests.bundles import write_counting_bundle, write_default_bundle
from training.household_baselines import BASELINES
from training.tasks.households import FAMILIES, load_panels

ROOT = Path(__file__).parents[2]
WORKFLOWS = ROOT / "workflows"


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small bundles in place of shipped ones, under their names."""
    folder = tmp_path_factory.mktemp("policies")
    write_counting_bundle(folder, "bandits", 1)
    write_default_bundle(folder)
    shutil.copytree(WORKFLOWS.parent / "policies" / "mazes", folder / "mazes")
    return folder


def arguments(policies: Path, folder: Path) -> list[str]:
    options = {
        "--workflows": WORKFLOWS,
        "--policies": policies,
        "--plot": folder / "demo.png",
        "--json": folder / "demo.json",
    }
    return ["demo", *(str(part) for option in options.items() for part in option)]


def test_a_small_demo_writes_its_numbers_and_its_picture(policies: Path, tmp_path: Path) -> None:
    size = ["--households", "2", "--seeds", "2", "--baseline-seeds", "3"]
    before = psutil.Process().children(recursive=True)
    result = CliRunner().invoke(app, arguments(policies, tmp_path) + size)
    assert result.exit_code == 0, result.stderr
    numbers = json.loads((tmp_path / "demo.json").read_text())
    assert set(numbers) == {"families", "decisions_per_s", "p50_ms", "p99_ms"}
    assert [each["family"] for each in numbers["families"]] == list(FAMILIES)
    for family in numbers["families"]:
        assert family["households"] == 2
        assert tuple(family["baselines"]) == BASELINES
        for baseline in family["baselines"].values():
            assert set(baseline) == {"reward", "difference", "difference_se"}
            difference = family["reward"] - baseline["reward"]
            assert baseline["difference"] == pytest.approx(difference)
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert psutil.Process().children(recursive=True) == before
    words = " ".join(result.stdout.split())
    for said in ("not persuasion", "Every decision was the policy's own", "make serve", "curl"):
        assert said in words


def test_a_service_that_cannot_start_fails_the_demo_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    result = CliRunner().invoke(
        app, [*arguments(tmp_path / "none", tmp_path), "--households", "2", "--baseline-seeds", "3"]
    )
    assert result.exit_code == 1
    assert "universal/1" in result.stderr
    assert not (tmp_path / "demo.json").exists()


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--plot", "picture.txt", ".png"),
        ("--plot", "/dev/null/picture.png", "/dev/null"),
        ("--json", "{folder}", "Is a directory"),
        ("--baseline-seeds", "1", "at least"),
    ],
)
def test_what_cannot_be_written_or_compared_is_refused_before_anything_is_played(
    policies: Path, tmp_path: Path, option: str, value: str, said: str
) -> None:
    value = value.format(folder=tmp_path)
    result = CliRunner().invoke(app, [*arguments(policies, tmp_path), option, value])
    assert result.exit_code == 2
    assert said in result.stderr
    assert "starting the service" not in result.stderr


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_demo_stopped_half_way_leaves_no_process_and_no_folder(
    policies: Path, tmp_path: Path, how: signal.Signals
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-c", "from benchmarks.cli import app; app()"]
    demo = subprocess.Popen(
        [*command, *arguments(policies, tmp_path)],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(scratch)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert demo.stderr is not None
    said = ""
    while "is ready at" not in said:
        said = demo.stderr.readline()
        assert said, "the demo ended before its service was ready"
    started = psutil.Process(demo.pid).children(recursive=True)
    time.sleep(0.5)
    demo.send_signal(how)
    _, rest = demo.communicate(timeout=30)
    assert demo.returncode == 130
    assert "interrupted" in rest
    assert started
    assert not [process for process in started if process.is_running()]
    assert not list(scratch.glob("acclimate-demo-*"))


def test_a_service_restarted_half_way_goes_on_with_the_same_decisions(
    policies: Path, tmp_path: Path
) -> None:
    spec = brand_choice(WORKFLOWS)
    panel = load_panels()["yogurt"]
    accounts = [
        Account(account.account_id, account.rewarded[:40])
        for account in accounts_of(panel, 1, spec.action_ids)[:8]
    ]
    played = {}
    for name in ("undisturbed", "restarted"):
        (tmp_path / name).mkdir()
        playing = _play(tmp_path / name, policies, accounts, restart=name == "restarted")
        played[name] = asyncio.run(playing)
    undisturbed, restarted = played["undisturbed"], played["restarted"]
    assert [one.actions for one in restarted] == [one.actions for one in undisturbed]
    assert [one.reasons for one in restarted] == [one.reasons for one in undisturbed]


async def _play(
    folder: Path, policies: Path, accounts: list[Account], *, restart: bool
) -> list[Journey]:
    """Plays the accounts; a restart comes when half of the interactions are done."""
    service = ServiceProcess(
        folder,
        workflows=WORKFLOWS,
        policies=policies,
        settings={"ACCLIMATE_INSTALLATION_KEY": "the same in both runs"},
    )
    service.start()
    half = asyncio.Event()
    left = sum(len(account.rewarded) for account in accounts) // 2

    def count(account: Account) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            half.set()

    async def restart_at_half() -> None:
        await half.wait()
        if restart:
            await asyncio.to_thread(service.stop)
            await asyncio.to_thread(service.start)

    try:
        async with httpx.AsyncClient(base_url=service.base_url, trust_env=False) as client:
            restarting = asyncio.create_task(restart_at_half())
            player = Player(client, WORKFLOW)
            journeys = await play_all(player, accounts, count)
            await restarting
            return journeys
    finally:
        service.stop()
