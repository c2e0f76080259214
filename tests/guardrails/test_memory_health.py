"""Memories like those of training are healthy, and broken ones are not, on the shipped policies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.bundle import BundleError, load_manifest
from contract.memory_reference import FILE, MemoryReference, load_reference
from contract.policy import Memory, OnnxPolicy
from guardrails.memory_health import OLDEST, measure, sickness
from tests.house.tree import ROOT

POLICIES = ROOT / "policies"
GRU = POLICIES / "bandits-gru" / "1"


def reference_of(bundle: Path) -> MemoryReference:
    found = load_reference(bundle, load_manifest(bundle))
    assert found is not None
    return found


def lived(
    bundle: Path, actions: int, steps: int, accounts: int = 400
) -> tuple[MemoryReference, Memory]:
    """Memories of accounts of bandits with random play, as old as `steps`."""
    policy = OnnxPolicy.load(bundle)
    rng = np.random.default_rng(11)
    chances = rng.random((accounts, actions))
    memory = policy.blank(accounts, actions)
    for _ in range(steps):
        action = rng.integers(0, actions, accounts)
        won = rng.random(accounts) < chances[np.arange(accounts), action]
        memory = policy.learn(
            memory,
            action=action,
            reward=np.where(won, 1, -1).astype(np.float32),
            done=np.ones(accounts, np.float32),
            context=np.zeros((accounts, policy.manifest.context_size), np.float32),
            action_features=np.zeros(
                (accounts, actions, policy.manifest.action_feature_size), np.float32
            ),
        )
    return reference_of(bundle), memory


def sick_share(reference: MemoryReference, memory: Memory, position: int) -> float:
    found = [
        sickness(reference, Memory(memory.shared[i : i + 1], memory.rows[i : i + 1]), position)
        for i in range(len(memory.shared))
    ]
    return float(np.mean([one is not None for one in found]))


@pytest.mark.parametrize("name", ["bandits-gru/1", "bandits/1", "bandits/2"])
@pytest.mark.parametrize("steps", [2, 9])
def test_accounts_that_live_as_in_training_are_healthy(name: str, steps: int) -> None:
    reference, memory = lived(POLICIES / name, 10, steps)
    assert sick_share(reference, memory, steps) <= 0.01


@pytest.mark.parametrize("name", ["bandits-gru/1", "bandits/2"])
def test_memories_that_are_blown_up_or_of_another_age_are_found(name: str) -> None:
    reference, memory = lived(POLICIES / name, 10, 9, 100)
    large = Memory(memory.shared * 20, memory.rows * 20)
    assert sick_share(reference, large, 9) == 1.0


def test_saturated_units_are_found() -> None:
    reference, memory = lived(GRU, 10, 9, 50)
    assert reference.shared_bounded.sum() > 200
    stuck = np.where(reference.shared_bounded, np.sign(memory.shared), memory.shared)
    some = Memory(stuck[:1].astype(np.float32), memory.rows[:1])
    assert measure(reference, some, 9).saturation > 0.9
    found = sickness(reference, some, 9)
    assert found is not None
    assert found.measure in ("saturation", "distance")


def test_what_is_not_finite_is_found_at_any_age_and_without_a_reference() -> None:
    broken = Memory(np.array([[np.nan, 1]], np.float32), np.zeros((1, 3, 2), np.float32))
    found = sickness(None, broken, 10_000)
    assert found is not None
    assert found.measure == "not_finite"


def test_an_age_that_no_training_saw_is_not_judged() -> None:
    reference, memory = lived(GRU, 10, 9, 1)
    large = Memory(memory.shared * 100, memory.rows)
    oldest = int(reference.positions[-1])
    assert sickness(reference, large, oldest) is not None
    assert sickness(reference, large, int(OLDEST * oldest) + 1) is None


@pytest.mark.parametrize("bundle", sorted(POLICIES.glob("*/*/manifest.json")), ids=str)
def test_every_shipped_bundle_without_pictures_says_what_its_memories_are_like(
    bundle: Path,
) -> None:
    manifest = load_manifest(bundle.parent)
    if manifest.context_size <= 1_000:
        assert reference_of(bundle.parent).positions[0] == 1


def copy(tmp_path: Path) -> Path:
    for path in GRU.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_a_reference_that_is_not_the_pinned_one_is_refused(tmp_path: Path) -> None:
    bundle = copy(tmp_path)
    (bundle / FILE).write_bytes(b"nothing")
    with pytest.raises(BundleError, match=r"memory\.npz: expected the file"):
        load_reference(bundle, load_manifest(bundle))
    (bundle / FILE).unlink()
    with pytest.raises(BundleError, match=r"memory\.npz"):
        load_reference(bundle, load_manifest(bundle))


def test_a_bundle_from_before_there_were_references_is_served_as_it_was(tmp_path: Path) -> None:
    manifest: Any = load_manifest(copy(tmp_path))
    without = {name: one for name, one in manifest.sha256.items() if name != FILE}
    old = manifest.model_copy(update={"sha256": without})
    (tmp_path / "manifest.json").write_text(old.model_dump_json())
    assert load_reference(tmp_path, load_manifest(tmp_path)) is None
