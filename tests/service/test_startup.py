"""What is not fit to be served is refused at start, by name, with nothing written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.bundle import BundleError
from contract.spec import SpecError
from service.server import RefusedToStartError, serve
from service.settings import Settings
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
        "help.yaml: workflow help does not fit policy counting/1: actions: expected 2 to 2, got 3",
    ),
    "no room for the context": (
        lambda home: edit_manifest(home, context_size=1),
        "context: expected at most 1 slots that feed the policy, got 3",
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
        "guardrails.limits.1.forbid: expected a CEL condition over context.tenure",
    ),
    "action: mail": ("action: fly", "help.yaml:31: fallback.action must be one of"),
    "policy: counting/1": ("policy: missing/1", "missing/1/manifest.json"),
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


def test_the_installation_key_is_made_once_and_is_nobody_elses_to_read(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "new")
    key = settings.draw_key()
    assert len(key) == 64
    assert settings.draw_key() == key
    assert (tmp_path / "new" / "installation.key").stat().st_mode & 0o077 == 0
    assert Settings(data_dir=tmp_path / "other").draw_key() != key
