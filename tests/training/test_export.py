"""A bundle says what torch says, proves it, appears whole, and is refused when tampered with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from contract.bundle import BundleError, load_manifest, sha256_of
from contract.draw import sample
from contract.encode import horizon_left
from contract.policy import Memory, OnnxPolicy, verify_parity
from tests.training.test_checkpoints import go
from tests.training.trials import SMALL, TINY, TINY_BANDITS, shake, tiny_learner
from training import export, graphs, report
from training.checkpoints import save
from training.export import ExportError, export_bundle, write_graphs
from training.graphs import describe
from training.policies.network import Network, build
from training.run import machine

PROVENANCE = {"command": "a test", "seed": 1, "date": "2026-11-22", "steps": 1, "versions": {}}


def shaken(name: str, sizes: dict[str, int]) -> Network:
    network = build(name, sizes)
    shake(network, scale=0.1)
    return network


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A whole bundle of a policy with context and action features."""
    directory = tmp_path_factory.mktemp("bundle") / "1"
    directory.mkdir()
    write_graphs(shaken("actionwise", SMALL), directory, "small", 1, "bandits", PROVENANCE)
    yield directory


def test_a_policy_with_a_belief_is_exported_as_faithfully(tmp_path: Path) -> None:
    write_graphs(
        shaken("actionwise", SMALL | {"belief": True}), tmp_path, "b", 1, "bandits", PROVENANCE
    )
    policy = OnnxPolicy.load(tmp_path)
    parity = verify_parity(policy, tmp_path)
    assert parity.difference == 0.0
    assert parity.batch == 64
    memory = policy.blank(1, 4)
    for _ in range(500):
        memory = policy.learn(
            memory,
            context=np.zeros((1, 3), np.float32),
            action=np.array([2]),
            reward=np.array([-1.0], np.float32),
            done=np.ones(1, np.float32),
            action_features=np.zeros((1, 4, 2), np.float32),
        )
    assert memory.rows[0, 2, 4:7].tolist() == [500, -500, 500]
    assert memory.shared[0, -1] == 500


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def test_a_bundle_verifies_its_own_parity_vectors(bundle: Path) -> None:
    policy = OnnxPolicy.load(bundle)
    assert verify_parity(policy, bundle).difference == 0.0
    assert policy.manifest.provenance.torch_parity <= 1e-5
    with np.load(bundle / "parity.npz") as vectors:
        assert vectors["roll/action"].shape == (100,)
        actions = {vectors[key].shape[1] for key in vectors if key.endswith("in/action_mask")}
        masked = [vectors[key].all() for key in vectors if key.endswith("in/action_mask")]
    assert {2, 4, 5, 50} <= actions
    assert not all(masked)


@pytest.mark.parametrize(
    ("name", "sizes", "K"), [("actionwise", {}, 5), ("gru", {"actions": 4, "hidden": 8}, 4)]
)
def test_a_trial_in_torch_is_the_same_trial_through_the_graphs(
    name: str, sizes: dict[str, int], K: int, tmp_path: Path
) -> None:
    network = shaken(name, sizes)
    write_graphs(network, tmp_path, "trial", 1, "bandits", PROVENANCE)
    policy = OnnxPolicy.load(tmp_path)
    rng = np.random.default_rng(0)
    shared, rows = network.blank(3, K)
    memory = policy.blank(3, K)
    mask = np.ones((3, K), bool)
    nothing = {"context": torch.zeros(3, 0), "action_features": torch.zeros(3, K, 0)}
    for t in range(100):
        u, horizon = rng.random(3), np.tile(horizon_left(t, 100), (3, 1))
        with torch.no_grad():
            expected, _ = network.decide(
                shared,
                rows,
                action_mask=torch.from_numpy(mask),
                horizon_left=torch.from_numpy(horizon),
                **nothing,
            )
        found, _ = policy.decide(memory, action_mask=mask, horizon_left=horizon)
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)
        action = sample(found, u)
        np.testing.assert_array_equal(action, sample(expected.numpy(), u))
        reward = rng.choice(np.array([-1.0, 1.0], np.float32), 3)
        done = np.ones(3, np.float32)
        memory = policy.learn(memory, action=action, reward=reward, done=done)
        with torch.no_grad():
            shared, rows = network.learn(
                shared,
                rows,
                action=torch.from_numpy(action),
                reward=torch.from_numpy(reward),
                done=torch.from_numpy(done),
                **nothing,
            )
    np.testing.assert_allclose(memory.shared, shared.numpy(), atol=1e-6)
    np.testing.assert_allclose(memory.rows, rows.numpy(), atol=1e-6)


def test_folding_with_padded_actions_gives_the_same_bits(bundle: Path) -> None:
    policy = OnnxPolicy.load(bundle)
    rng = np.random.default_rng(0)
    short, long = policy.blank(1, 4), policy.blank(1, 9)
    features = rng.uniform(-1, 1, (1, 9, 2)).astype(np.float32)
    for _ in range(100):
        step: dict[str, Any] = {
            "action": rng.integers(0, 4, 1),
            "reward": rng.uniform(-1, 1, 1).astype(np.float32),
            "done": np.ones(1, np.float32),
            "context": rng.uniform(-1, 1, (1, 3)).astype(np.float32),
        }
        short = policy.learn(short, **step, action_features=features[:, :4])
        long = policy.learn(long, **step, action_features=features)
    assert short.shared.tobytes() == long.shared.tobytes()
    assert short.rows.tobytes() == np.ascontiguousarray(long.rows[:, :4]).tobytes()


def test_parts_of_size_zero_are_left_out_of_the_graphs() -> None:
    flat = describe(build("gru", {"actions": 3}))
    assert list(flat["decide"].inputs) == ["shared", "action_mask"]
    assert list(flat["learn"].inputs) == ["shared", "action", "reward", "done"]
    assert list(flat["learn"].outputs) == ["shared_next"]
    assert flat["decide"].inputs["action_mask"].shape == ["B", 3]
    plain = describe(build("actionwise", {}))
    assert list(plain["decide"].inputs) == ["shared", "rows", "action_mask", "horizon_left"]
    assert plain["learn"].outputs["rows_next"].shape == ["B", "K", 32]


def forge(directory: Path, name: str) -> None:
    """Makes the manifest vouch for a changed file."""
    path = directory / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["sha256"][name] = sha256_of(directory / name)
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", ["decide.onnx", "learn.onnx", "parity.npz"])
def test_a_bundle_with_a_changed_file_is_refused(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(BundleError, match=name):
        load_manifest(copy)


@pytest.mark.parametrize(
    "key", ["decide/2/out/probabilities", "learn/0/out/rows_next", "roll/rows"]
)
def test_a_bundle_that_no_longer_does_what_it_did_is_refused(copy: Path, key: str) -> None:
    with np.load(copy / "parity.npz") as stored:
        vectors = {name: stored[name].copy() for name in stored.files}
    vectors[key].reshape(-1)[-1] += 1e-4
    np.savez(copy / "parity.npz", allow_pickle=False, **vectors)
    forge(copy, "parity.npz")
    with pytest.raises(BundleError, match="off its parity vectors"):
        verify_parity(OnnxPolicy.load(copy), copy)


def test_graphs_that_are_not_the_network_are_never_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, out = tmp_path / "c.pt", tmp_path / "policies" / "1"
    go(tiny_learner(), checkpoint, 1)
    other = build("actionwise", {"shared": 5, "row": 4, "width": 6}, seed=9)
    monkeypatch.setattr(export, "build", lambda _, name, graph: graphs.build(other, name, graph))
    with pytest.raises(ExportError, match="are not the network"):
        export_bundle(checkpoint, out, name="x", version=1, evaluation_trials=0)
    assert list(out.parent.iterdir()) == []


def test_an_export_is_whole_has_a_report_and_replaces_nothing_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "CELLS", ((10, 5, 1), (10, 4, 10)))
    monkeypatch.setattr(report, "WITHIN_TRIAL", (10, 3, 20))
    checkpoint, out = tmp_path / "c.pt", tmp_path / "policies" / "tiny" / "1"
    learner = tiny_learner()
    go(learner, checkpoint, 3)
    manifest = export_bundle(
        checkpoint, out, name="tiny", version=1, note="Nothing else.", evaluation_trials=20
    )
    files = {file.name for file in out.iterdir()}
    assert files >= {"decide.onnx", "learn.onnx", "manifest.json", "parity.npz", "report.md"}
    assert files >= {"curve.png", "within-trial.png"}
    assert manifest.policy == "tiny/1"
    assert manifest.blank.row == learner.policy.state_dict()["blank_row"].tolist()
    written = (out / "report.md").read_text()
    assert "a test" in written
    assert "Nothing else." in written
    assert "| 10 | 5 | 20 |" in written
    assert "| 10 | 4 | 2 |" in written
    with pytest.raises(ExportError, match="exists"):
        export_bundle(checkpoint, out, name="tiny", version=1, evaluation_trials=0)
    seen = tmp_path / "seen"
    seen.mkdir()
    (seen / "report.md").write_text("# tiny/1 on bandits\n\nMeasured.\n\n## n = 3\n\n![p](p.png)\n")
    (seen / "p.png").write_bytes(b"a picture")
    export_bundle(
        checkpoint, out, name="tiny", version=1, evaluation_trials=0, evaluation=seen, replace=True
    )
    written = (out / "report.md").read_text()
    assert "## Evaluation: tiny/1 on bandits\n\nMeasured.\n\n### n = 3" in written
    assert (out / "p.png").read_bytes() == b"a picture"
    export_bundle(checkpoint, out, name="tiny", version=1, evaluation_trials=0, replace=True)
    assert [file.name for file in out.parent.iterdir()] == ["1"]
    verify_parity(OnnxPolicy.load(out), out)


def test_a_bundle_claims_the_versions_it_was_trained_with_where_they_were_recorded(
    tmp_path: Path,
) -> None:
    checkpoint = tmp_path / "c.pt"
    learner = tiny_learner()
    record = go(learner, checkpoint, 1)
    old = export_bundle(checkpoint, tmp_path / "p" / "1", name="x", version=1, evaluation_trials=0)
    assert old.provenance.versions == export.versions()
    trained = machine(threads=1)
    trained["versions"] |= {"torch": "0.0.1", "python": "3.0"}
    save(learner, {**record, "machine": trained}, TINY, TINY_BANDITS, checkpoint)
    new = export_bundle(checkpoint, tmp_path / "p" / "2", name="x", version=2, evaluation_trials=0)
    assert new.provenance.versions == export.versions() | {"torch": "0.0.1", "python": "3.0"}
    assert new.sha256["decide.onnx"] == old.sha256["decide.onnx"]


def test_the_blank_memory_in_the_manifest_is_the_networks_own(bundle: Path) -> None:
    network = shaken("actionwise", SMALL)
    shared, rows = network.blank(2, 3)
    blank = OnnxPolicy.load(bundle).blank(2, 3)
    expected = Memory(shared.detach().numpy(), rows.detach().numpy())
    np.testing.assert_array_equal(blank.shared, expected.shared)
    np.testing.assert_array_equal(blank.rows, expected.rows)
