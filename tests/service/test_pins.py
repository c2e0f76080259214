"""A bundle that is not the pinned one is not served, whatever of it was changed."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from acclimate import main
from contract.bundle import BundleError, sha256_of
from contract.spec import parse_workflow
from service.bundles import Bundles
from service.pins import read_pins
from service.settings import SettingError, Settings
from tests.service.conftest import WORKFLOW, Open


@pytest.fixture
def policies(tmp_path: Path, counting_policies: Path) -> Path:
    """A directory of bundles of the test's own."""
    copy = tmp_path / "policies"
    shutil.copytree(counting_policies, copy)
    return copy


def sha256sum(policies: Path) -> str:
    """What the tool prints."""
    files = [str(one.relative_to(policies)) for one in policies.glob("*/*/manifest.json")]
    return subprocess.run(
        ["sha256sum", *files], cwd=policies, check=True, capture_output=True, text=True
    ).stdout


def change(policies: Path) -> None:
    """Another bundle of the same name, sound in itself."""
    path = policies / "counting" / "1" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["provenance"]["command"] = "by somebody else"
    path.write_text(json.dumps(manifest))


async def test_the_pinned_bundle_is_served_and_another_of_its_name_is_not(
    open_client: Open, policies: Path, tmp_path: Path
) -> None:
    pins = tmp_path / "pins"
    pins.write_text("# by hand\n" + sha256sum(policies))
    async with open_client(policies=policies, policy_pins=pins) as client:
        assert (await client.decide()).status_code == 200
    change(policies)
    with pytest.raises(BundleError, match=r"counting/1/manifest.json: expected SHA-256 .*pinned"):
        async with open_client(policies=policies, policy_pins=pins):
            pass
    async with open_client(policies=policies) as client:  # nothing else is wrong with it
        assert (await client.decide()).status_code == 200


async def test_a_bundle_that_is_not_among_the_pins_is_not_served(
    open_client: Open, policies: Path, tmp_path: Path
) -> None:
    pins = tmp_path / "pins"
    pins.write_text(sha256sum(policies).replace("counting/1", "counting/2"))
    with pytest.raises(BundleError, match="expected it among ACCLIMATE_POLICY_PINS"):
        async with open_client(policies=policies, policy_pins=pins):
            pass


async def test_a_workflow_may_pin_its_bundle(
    open_client: Open, settings: Settings, policies: Path
) -> None:
    pinned = sha256_of(policies / "counting" / "1" / "manifest.json")
    text = WORKFLOW.replace(
        "policy: counting/1\n", f"policy: counting/1\npolicy_sha256: {pinned}\n"
    )
    (settings.workflows / "help.yaml").write_text(text)
    async with open_client(policies=policies) as client:
        assert (await client.decide()).status_code == 200
    change(policies)
    with pytest.raises(BundleError, match=r"help.yaml:4: policy: expected a bundle, but .*pinned"):
        async with open_client(policies=policies):
            pass


def test_a_pinned_bundle_is_checked_before_any_of_it_is_run(policies: Path) -> None:
    pins = {"counting/1": "0" * 64}
    for file in ("decide.onnx", "learn.onnx", "parity.npz"):
        (policies / "counting" / "1" / file).write_bytes(b"not to be opened")
    with pytest.raises(BundleError, match="as it is pinned"):
        Bundles(policies, pins).policy("counting/1")


def test_a_supervised_model_is_held_to_its_pin_too(tmp_path: Path) -> None:
    home = tmp_path / "logistic" / "1"
    home.mkdir(parents=True)
    (home / "baseline.json").write_text("{}")
    with pytest.raises(BundleError, match="expected it among ACCLIMATE_POLICY_PINS"):
        Bundles(tmp_path, {}).baseline("logistic/1")
    with pytest.raises(BundleError, match="as it is pinned"):
        Bundles(tmp_path, {"logistic/1": "0" * 64}).baseline("logistic/1")


def test_a_bundle_in_use_is_held_to_a_pin_that_comes_later(policies: Path) -> None:
    bundles = Bundles(policies)
    sha256 = bundles.policy("counting/1").sha256
    assert bundles.policy("counting/1", sha256).sha256 == sha256
    with pytest.raises(BundleError, match="as it is pinned"):
        bundles.policy("counting/1", "0" * 64)


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "0" * 63 + "  counting/1/manifest.json",
        "0" * 64 + "  counting/1/decide.onnx",
        "0" * 64 + "  counting/manifest.json",
        f"{'0' * 64}  counting/1/manifest.json\n{'1' * 64}  counting/1/manifest.json",
    ],
)
def test_a_file_of_pins_that_is_off_is_refused_by_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "pins"
    path.write_text(line)
    with pytest.raises(SettingError, match=rf"pins:{line.count(chr(10)) + 1}: expected what"):
        read_pins(path)
    with pytest.raises(SettingError, match="cannot be read"):
        read_pins(tmp_path / "none")


def test_check_says_what_to_pin(settings: Settings, policies: Path) -> None:
    file = settings.workflows / "help.yaml"
    told = CliRunner().invoke(main, ["check", str(file), "--policies", str(policies), "--json"])
    summary = json.loads(told.stdout)["files"][0]["summary"]
    assert summary["policy_sha256"] == sha256_of(policies / "counting" / "1" / "manifest.json")


def test_a_pin_is_part_of_a_workflow_and_none_changes_nothing() -> None:
    pinned = parse_workflow(WORKFLOW + f"policy_sha256: {'ab' * 32}\n")
    assert pinned.sha256 != parse_workflow(WORKFLOW).sha256
    assert "policy_sha256" not in parse_workflow(WORKFLOW).canonical
