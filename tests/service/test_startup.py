"""What is not fit to be served is refused at start, by name, with nothing written."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner

from contract.bundle import BundleError
from contract.spec import SpecError
from service.cli import app
from service.server import RefusedToStartError, serve
from service.settings import SettingError, Settings
from tests.bundles import NAN_WHEN_BLANK, edit_manifest, write_counting_bundle
from tests.service.conftest import WORKFLOW, Open


def spoil(path: Path) -> None:
    """Flips one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


BUNDLES: dict[str, tuple[Callable[[Path], object], str]] = {
    "spoiled graph": (lambda home: spoil(home / "learn.onnx"), "learn.onnx: expected SHA-256"),
    "spoiled vectors": (lambda home: spoil(home / "parity.npz"), "parity.npz: expected SHA-256"),
    "no manifest": (lambda home: (home / "manifest.json").unlink(), "manifest.json"),
    "no graph": (lambda home: (home / "decide.onnx").unlink(), "decide.onnx"),
    "another name": (lambda home: edit_manifest(home, name="other"), "expected policy counting/1"),
    "too few actions": (
        lambda home: edit_manifest(home, actions={"min": 2, "max": 2}),
        "help.yaml:11: actions.2: expected 2 to 2 actions for policy counting/1, got 3",
    ),
    "no room for the context": (
        lambda home: edit_manifest(home, context_size=1),
        "help.yaml:15: context.plan: expected at most 1 slots that feed policy counting/1, got 3",
    ),
}


@pytest.mark.parametrize("case", BUNDLES)
async def test_a_broken_bundle_is_not_served(open_client: Open, tmp_path: Path, case: str) -> None:
    breaks, message = BUNDLES[case]
    breaks(write_counting_bundle(tmp_path / "policies"))
    with pytest.raises(BundleError) as refused:
        async with open_client(policies=tmp_path / "policies"):
            pass
    assert message in str(refused.value)


async def test_a_policy_without_a_distribution_for_new_accounts_is_not_served(
    open_client: Open, tmp_path: Path
) -> None:
    write_counting_bundle(tmp_path / "policies", decide=NAN_WHEN_BLANK)
    with pytest.raises(BundleError, match="counting/1 gives no distribution for a new account"):
        async with open_client(policies=tmp_path / "policies"):
            pass


WORKFLOWS = {
    "fallback:\n": ("falback:\n", "help.yaml:28: falback: unknown field"),
    "max: 100}": ("max: -1}", "help.yaml:14: context.tenure: min must be below max"),
    "- id: mail": ("- id: wait", "help.yaml:6: actions must be distinct, got ['wait']"),
    "forbid: 'context.age > 5'": (
        "forbid: 'context.aged > 5'",
        "help.yaml:26: guardrails.limits.1.forbid: expected a CEL condition over context.tenure",
    ),
    "action: mail": ("action: fly", "help.yaml:31: fallback.action must be one of"),
    "policy: counting/1": (
        "policy: missing/1",
        "missing/1: no such bundle, there are counting/1",
    ),
    "context.age > 5": (
        "context.age + 1 > 5",
        "help.yaml:26: guardrails.limits.1.forbid: expected a double on either side of `+`",
    ),
    "'context.age > 5'": ("'true'", "help.yaml:26: guardrails.limits.1.forbid: expected a limit"),
}


@pytest.mark.parametrize("old", WORKFLOWS)
async def test_a_workflow_file_with_a_mistake_is_not_served(
    open_client: Open, settings: Settings, old: str
) -> None:
    new, message = WORKFLOWS[old]
    assert old in WORKFLOW
    (settings.workflows / "help.yaml").write_text(WORKFLOW.replace(old, new, 1))
    with pytest.raises((SpecError, BundleError)) as refused:
        async with open_client():
            pass
    assert message in str(refused.value)
    (settings.workflows / "help.yaml").write_text(WORKFLOW)
    async with open_client() as client:  # the refusal left no version behind
        assert client.service.catalog.workflows["help"].version == 1


async def test_two_files_of_one_workflow_and_none_at_all_are_refused(
    open_client: Open, settings: Settings
) -> None:
    (settings.workflows / "copy.yml").write_text(WORKFLOW)
    with pytest.raises(SpecError, match="'help' is declared by another file too"):
        async with open_client():
            pass
    for path in settings.workflows.iterdir():
        path.unlink()
    with pytest.raises(SpecError, match="expected at least one workflow file"):
        async with open_client():
            pass


def test_the_process_says_why_it_does_not_start_and_exits_with_2(settings: Settings) -> None:
    (settings.workflows / "help.yaml").write_text("schema: 1\n")
    command = [sys.executable, "-m", "service", "--workflows", str(settings.workflows)]
    environment = os.environ | {
        "ACCLIMATE_DATA_DIR": str(settings.data_dir),
        "ACCLIMATE_POLICIES": str(settings.policies),
    }
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "acclimate: cannot serve: " in ended.stderr
    assert "help.yaml:1: workflow: Field required" in ended.stderr
    assert "Traceback" not in ended.stderr
    ended = subprocess.run(
        command,
        env=environment | {"ACCLIMATE_PORT": "many"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "ACCLIMATE_PORT: Input should be a valid integer" in ended.stderr


def test_a_port_that_is_taken_is_refused_by_name(settings: Settings) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(RefusedToStartError, match=r"cannot listen on 127\.0\.0\.1"):
            serve(settings.model_copy(update={"port": taken.getsockname()[1]}))


REFUSED = {
    "http://h": ("redis_url", "expected redis://, rediss:// or unix://"),
    "": ("redis_url", "expected redis://, rediss:// or unix://"),
    "redis://:hush@h:port": ("redis_url", "expected redis://, rediss:// or unix://"),
    "redis://h?nope=hush": ("redis_url", "expected redis://, rediss:// or unix://"),
    "hush": ("ledger_url", "expected sqlite:///<file> or postgresql+psycopg://"),
    "mysql://u:hush@h/d": ("ledger_url", "got mysql://"),
    "postgresql+nope://u:hush@h/d": ("ledger_url", "whose driver is unknown or not installed"),
    "postgresql+psycopg2cffi://u:hush@h/d": ("ledger_url", "unknown or not installed"),
    "postgresql+asyncpg://u:hush@h/d": ("ledger_url", "got postgresql+asyncpg://, whose driver is"),
    "postgresql+psycopg://u:hush@h:port/d": ("ledger_url", "expected sqlite:///<file>"),
    "hush-hush-hush": ("installation_key", "expected at least 16 characters, got 14"),
    " ": ("installation_key", "expected at least 16 characters, got 1"),
    "-1": ("drain_seconds", "greater than or equal to 0"),
}


@pytest.mark.parametrize("value", REFUSED)
def test_a_setting_that_cannot_be_served_under_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str
) -> None:
    name, message = REFUSED[value]
    variable = f"ACCLIMATE_{name.upper()}"
    monkeypatch.setenv(variable, value)
    ended = CliRunner().invoke(app, ["--data-dir", str(tmp_path / "data")])
    assert ended.exit_code == 2
    assert f"acclimate: {variable}: " in ended.stderr
    assert message in ended.stderr
    assert "Value error" not in ended.stderr
    assert "hush" not in ended.output  # addresses and keys are secrets
    assert not (tmp_path / "data").exists()


def test_an_empty_installation_key_is_refused_like_a_short_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ACCLIMATE_INSTALLATION_KEY", "")
    ended = CliRunner().invoke(app, [])
    assert ended.exit_code == 2
    assert "ACCLIMATE_INSTALLATION_KEY: expected at least 16 characters, got 0" in ended.stderr


def test_addresses_of_every_kind_that_is_served_are_taken() -> None:
    for redis_url in ("redis://redis:6379/0", "rediss://:p@h", "unix:///run/redis.sock?db=1"):
        assert Settings(redis_url=redis_url).redis_url == redis_url
    for ledger_url in ("sqlite:////var/ledger.sqlite", "postgresql+psycopg://u:p@h:5432/d"):
        assert Settings(ledger_url=ledger_url).ledger == ledger_url


def test_the_installation_key_is_made_once_and_is_nobody_elses_to_read(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "new")
    key = settings.draw_key()
    assert len(key) == 64
    assert settings.draw_key() == key
    assert (tmp_path / "new" / "installation.key").stat().st_mode & 0o077 == 0
    assert Settings(data_dir=tmp_path / "other").draw_key() != key


@pytest.mark.parametrize("kept", [b"", b"fifteen letters"])
def test_an_installation_key_file_that_is_not_whole_is_refused(
    settings: Settings, kept: bytes
) -> None:
    settings.data_dir.mkdir()
    (settings.data_dir / "installation.key").write_bytes(kept)
    with pytest.raises(RefusedToStartError, match=r"installation\.key: expected at least 16"):
        serve(settings)
    assert (settings.data_dir / "installation.key").read_bytes() == kept


def test_a_crash_while_the_installation_key_is_made_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(data_dir=tmp_path)
    for step in ("fsync", "link"):
        monkeypatch.setattr(os, step, _disk_full)
        with pytest.raises(SettingError, match=r"installation\.key: .*No space left"):
            settings.draw_key()
        assert list(tmp_path.iterdir()) == []
        monkeypatch.undo()
    assert len(settings.draw_key()) == 64
    assert [path.name for path in tmp_path.iterdir()] == ["installation.key"]


def _disk_full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_processes_that_start_at_once_on_one_folder_share_one_key(tmp_path: Path) -> None:
    for round_ in range(20):
        settings = Settings(data_dir=tmp_path / str(round_))
        together = threading.Barrier(8)

        def start(settings: Settings, together: threading.Barrier) -> bytes:
            together.wait()
            return settings.draw_key()

        with ThreadPoolExecutor(8) as pool:
            started = [pool.submit(start, settings, together) for _ in range(8)]
        keys = {one.result() for one in started}
        assert keys == {(settings.data_dir / "installation.key").read_bytes()}


def test_a_data_folder_that_cannot_hold_the_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SettingError, match="ACCLIMATE_INSTALLATION_KEY"):
        Settings(data_dir=tmp_path / "file").draw_key()
