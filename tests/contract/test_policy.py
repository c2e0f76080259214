"""Decide and learn are two pure functions over one memory, and this machine computes them right."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from contract.bundle import BundleError, load_manifest
from contract.policy import PARITY_TOLERANCE, Memory, OnnxPolicy, roll, verify_parity
from tests.bundles import CONTEXT, FEATURES, ROW, SHARED
from tests.contract.conftest import pin

Array = NDArray[Any]


@pytest.fixture(scope="module")
def policy(whole_bundle: Path) -> OnnxPolicy:
    return OnnxPolicy.load(whole_bundle)


def step_of(rng: np.random.Generator, batch: int, actions: int) -> dict[str, Array]:
    """One interaction for each account of a batch."""
    return {
        "context": rng.random((batch, CONTEXT), np.float32),
        "action": rng.integers(0, actions, batch),
        "reward": rng.choice(np.array([-1, 0.25, 1], np.float32), batch),
        "done": rng.choice(np.array([0, 1], np.float32), batch),
        "action_features": rng.random((batch, actions, FEATURES), np.float32),
    }


def asked_of(rng: np.random.Generator, batch: int, actions: int) -> dict[str, Array]:
    """What decide takes beside the memory, for a batch; every account has an action left."""
    mask = rng.random((batch, actions)) < 0.6
    mask[np.arange(batch), rng.integers(0, actions, batch)] = True
    return {
        "context": rng.random((batch, CONTEXT), np.float32),
        "action_mask": mask,
        "horizon_left": rng.random((batch, 2), np.float32),
        "action_features": rng.random((batch, actions, FEATURES), np.float32),
    }


def memory_of(rng: np.random.Generator, batch: int, actions: int) -> Memory:
    """Memories of accounts that have lived: as many wins as pulls at most."""
    rows = np.sort(rng.random((batch, actions, ROW), np.float32) * 9, axis=2)
    return Memory(rng.random((batch, SHARED), np.float32), rows)


def account(inputs: Mapping[str, Array], index: int) -> dict[str, Array]:
    """The inputs of one account of a batch, as a batch of one."""
    return {name: value[index : index + 1] for name, value in inputs.items()}


# The two functions


def test_a_blank_memory_is_the_bundles_for_every_account_and_action(bundle: Path) -> None:
    file = bundle / "manifest.json"
    manifest = json.loads(file.read_text()) | {"blank": {"shared": [0.5, -1], "row": [2, 3]}}
    file.write_text(json.dumps(manifest))
    blank = OnnxPolicy.load(bundle).blank(3, 4)
    assert {blank.shared.dtype, blank.rows.dtype} == {np.dtype(np.float32)}
    assert blank.shared.tolist() == [[0.5, -1]] * 3
    assert blank.rows.tolist() == [[[2, 3]] * 4] * 3


def test_learning_folds_one_interaction_into_the_row_of_its_action(policy: OnnxPolicy) -> None:
    step = {
        "context": np.array([[1, 0, 0.5]], np.float32),
        "action": np.array([2]),
        "done": np.array([1], np.float32),
        "action_features": np.zeros((1, 4, 1), np.float32),
    }
    memory = policy.learn(policy.blank(1, 4), reward=np.array([1], np.float32), **step)
    memory = policy.learn(memory, reward=np.array([-1], np.float32), **step)
    assert memory.rows.tolist() == [[[0, 0], [0, 0], [1, 2], [0, 0]]]  # one win in two pulls
    assert memory.shared.tolist() == [[2, 3]]  # two ends, twice a context of 1.5


def test_deciding_follows_what_was_learned(policy: OnnxPolicy) -> None:
    rows = np.array([[[0, 0], [3, 3], [1, 1]]], np.float32)
    memory = Memory(np.zeros((1, SHARED), np.float32), rows)
    asked = {
        "context": np.zeros((1, CONTEXT), np.float32),
        "horizon_left": np.ones((1, 2), np.float32),
        "action_features": np.zeros((1, 3, FEATURES), np.float32),
    }
    probabilities, value = policy.decide(memory, action_mask=np.ones((1, 3), bool), **asked)
    odds = np.exp([0, 3, 2])  # 4 × wins / (pulls + 1)
    np.testing.assert_allclose(probabilities[0], odds / odds.sum(), atol=1e-6)
    np.testing.assert_allclose(value, [probabilities.max()], atol=1e-6)
    probabilities, _ = policy.decide(memory, action_mask=np.array([[True, False, True]]), **asked)
    np.testing.assert_allclose(probabilities[0], odds * [1, 0, 1] / odds[[0, 2]].sum(), atol=1e-6)
    assert probabilities[0, 1] == 0


@given(st.integers(1, 6), st.integers(2, 9), st.integers(0, 2**32))
def test_a_batch_computes_what_each_account_would_alone_to_the_bit(
    policy: OnnxPolicy, batch: int, actions: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    memory = memory_of(rng, batch, actions)
    step, asked = step_of(rng, batch, actions), asked_of(rng, batch, actions)
    learned = policy.learn(memory, **step)
    probabilities, values = policy.decide(memory, **asked)
    for i in range(batch):
        alone = Memory(memory.shared[i : i + 1], memory.rows[i : i + 1])
        one = policy.learn(alone, **account(step, i))
        assert one.rows.tobytes() == learned.rows[i].tobytes()
        assert one.shared.tobytes() == learned.shared[i].tobytes()
        distribution, value = policy.decide(alone, **account(asked, i))
        np.testing.assert_allclose(distribution[0], probabilities[i], atol=1e-6)
        np.testing.assert_allclose(value[0], values[i], atol=1e-6)


@given(st.integers(1, 6), st.integers(2, 9), st.integers(0, 2**32))
def test_neither_function_writes_into_what_it_was_given(
    policy: OnnxPolicy, batch: int, actions: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    memory = memory_of(rng, batch, actions)
    given_inputs = step_of(rng, batch, actions), asked_of(rng, batch, actions)
    before = [part.copy() for part in (*memory, *(v for one in given_inputs for v in one.values()))]
    policy.learn(memory, **given_inputs[0])
    policy.decide(memory, **given_inputs[1])
    after = [*memory, *(v for one in given_inputs for v in one.values())]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


class _Recorded:
    """Stands where an onnxruntime session would, and remembers what it was fed."""

    def __init__(self, **outputs: Array) -> None:
        self.outputs = outputs
        self.fed: dict[str, Array] = {}

    def run(
        self, names: list[str], feeds: dict[str, Array], options: ort.RunOptions | None = None
    ) -> list[Array]:
        self.fed = feeds
        return [self.outputs[name] for name in names]


def narrowed(manifest_of: Path, graph: str, inputs: set[str], outputs: list[str]) -> Any:
    """The manifest of a policy that takes and gives less, in this order."""
    manifest = load_manifest(manifest_of)
    whole = manifest.graphs[graph]  # type: ignore[index]
    kept = whole.model_copy(
        update={
            "inputs": {name: one for name, one in whole.inputs.items() if name in inputs},
            "outputs": {name: whole.outputs[name] for name in outputs},
        }
    )
    return manifest.model_copy(update={"graphs": manifest.graphs | {graph: kept}})


def test_outputs_are_matched_by_name_whatever_their_order(whole_bundle: Path) -> None:
    session = _Recorded(value=np.array([7.0]), probabilities=np.array([[0.5, 0.5]]))
    for order in (["value", "probabilities"], ["probabilities", "value"]):
        manifest = narrowed(whole_bundle, "decide", set(), order)
        policy = OnnxPolicy(manifest, {"decide": session})
        probabilities, value = policy.decide(
            policy.blank(1, 2), action_mask=np.ones((1, 2), bool), horizon_left=np.ones((1, 2))
        )
        assert probabilities.tolist() == [[0.5, 0.5]]
        assert value.tolist() == [7]


def test_a_policy_is_fed_what_its_manifest_names_and_nothing_else(
    whole_bundle: Path, policy: OnnxPolicy
) -> None:
    session = _Recorded(rows_next=np.ones((1, 4, ROW), np.float32))
    manifest = narrowed(whole_bundle, "learn", {"rows", "action", "reward"}, ["rows_next"])
    memory = memory_of(np.random.default_rng(0), 1, 4)
    step = step_of(np.random.default_rng(1), 1, 4)
    after = OnnxPolicy(manifest, {"learn": session}).learn(memory, **step)
    assert {name: id(value) for name, value in session.fed.items()} == {
        "rows": id(memory.rows),
        "action": id(step["action"]),
        "reward": id(step["reward"]),
    }
    # What it does not give stays as it was.
    assert after.rows is session.outputs["rows_next"]
    assert after.shared is memory.shared


# The graphs are those of the manifest


def test_a_graph_that_is_none_is_refused_by_its_file(bundle: Path) -> None:
    (bundle / "learn.onnx").write_bytes(b"not a graph")
    pin(bundle)
    with pytest.raises(BundleError) as caught:
        OnnxPolicy.load(bundle)
    assert str(caught.value).startswith(f"{bundle / 'learn.onnx'}: onnxruntime cannot load it")


def test_two_graphs_that_changed_places_are_refused(bundle: Path) -> None:
    (bundle / "decide.onnx").rename(bundle / "aside")
    (bundle / "learn.onnx").rename(bundle / "decide.onnx")
    (bundle / "aside").rename(bundle / "learn.onnx")
    pin(bundle)
    with pytest.raises(BundleError, match=r"decide\.onnx: inputs: expected .*action_mask"):
        OnnxPolicy.load(bundle)


@pytest.mark.parametrize(
    ("graph", "kind", "name", "tensor", "expected"),
    [
        ("decide", "inputs", "context", None, "inputs: expected ['action_features', 'action_mask'"),
        ("learn", "inputs", "done", None, "inputs: expected ['action', 'action_features'"),
        ("learn", "outputs", "rows_next", None, "outputs: expected ['shared_next'] as in"),
        (
            "learn",
            "inputs",
            "action",
            (["B"], "float32"),
            "inputs.action: expected float32 ['B'] as in the manifest, got tensor(int64)",
        ),
        (
            "decide",
            "inputs",
            "context",
            (["B", 5], "float32"),
            "inputs.context: expected float32 ['B', 5] as in the manifest, got tensor(float)",
        ),
        ("decide", "inputs", "context", (["B", "K"], "float32"), "inputs.context: expected"),
        ("decide", "inputs", "rows", (["B", ROW], "float32"), "inputs.rows: expected"),
        ("decide", "outputs", "value", (["B", 1], "float32"), "outputs.value: expected"),
        ("decide", "outputs", "value", ([1], "float32"), "outputs.value: expected"),
    ],
)
def test_a_graph_of_another_signature_than_the_manifests_is_refused(
    bundle: Path, graph: str, kind: str, name: str, tensor: tuple[Any, str] | None, expected: str
) -> None:
    file = bundle / "manifest.json"
    manifest = json.loads(file.read_text())
    declared = manifest["graphs"][graph][kind]
    if tensor is None:
        del declared[name]
    else:
        declared[name] = {"shape": tensor[0], "dtype": tensor[1]}
    file.write_text(json.dumps(manifest))
    with pytest.raises(BundleError) as caught:
        OnnxPolicy.load(bundle)
    assert str(caught.value).startswith(f"{bundle / graph}.onnx: {expected}")


# Parity


def vectors_of(home: Path) -> dict[str, Array]:
    with np.load(home / "parity.npz") as stored:
        return {name: stored[name] for name in stored.files}


def write_vectors(home: Path, vectors: dict[str, Array]) -> None:
    np.savez(home / "parity.npz", **vectors)  # type: ignore[arg-type]


def parity_refusal(policy: OnnxPolicy, home: Path) -> str:
    """What is said of a bundle whose parity vectors do not hold."""
    with pytest.raises(BundleError) as caught:
        verify_parity(policy, home)
    message = str(caught.value)
    assert message.startswith(f"{home / 'parity.npz'}: ")
    return message


def test_a_bundle_passes_its_own_vectors_and_its_fingerprint_is_that_of_the_rolled_memory(
    policy: OnnxPolicy, whole_bundle: Path, bundle: Path
) -> None:
    parity = verify_parity(policy, whole_bundle)
    assert parity.difference == 0
    assert verify_parity(OnnxPolicy.load(bundle), bundle).fingerprint == parity.fingerprint
    vectors = vectors_of(bundle)
    vectors["roll/reward"] = -vectors["roll/reward"]
    rolled = roll(policy, vectors)
    write_vectors(bundle, vectors | {"roll/shared": rolled.shared, "roll/rows": rolled.rows})
    assert verify_parity(policy, bundle).fingerprint != parity.fingerprint


def test_a_roll_is_one_learn_after_another_from_the_blank_memory(
    policy: OnnxPolicy, whole_bundle: Path
) -> None:
    vectors = vectors_of(whole_bundle)
    memory = policy.blank(1, 4)
    for t in range(100):
        memory = policy.learn(
            memory,
            action=vectors["roll/action"][[t]],
            reward=vectors["roll/reward"][[t]],
            done=vectors["roll/done"][[t]],
            context=vectors["roll/context"][[t]],
            action_features=vectors["roll/action_features"][None],
        )
    rolled = roll(policy, vectors)
    assert rolled.rows[0, :, 1].sum() == 100
    for one, other in zip(rolled, memory, strict=True):
        assert one.tobytes() == other.tobytes()


OUTPUTS = [
    "decide/0/out/probabilities",
    "decide/0/out/value",
    "learn/0/out/shared_next",
    "learn/0/out/rows_next",
    "roll/shared",
    "roll/rows",
]


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("value", ["off", "NaN", "infinite", "of another shape"])
def test_a_machine_that_is_off_one_vector_does_not_serve(
    policy: OnnxPolicy, bundle: Path, name: str, value: str
) -> None:
    vectors = vectors_of(bundle)
    one = vectors[name]
    match value:
        case "off":
            one.flat[-1] += 1e-3
        case "NaN":
            one.flat[-1] = np.nan
        case "infinite":
            one.flat[-1] = -np.inf
        case _:
            vectors[name] = one[..., None]
    write_vectors(bundle, vectors)
    message = parity_refusal(policy, bundle)
    assert "counting/1" in message
    assert f"{'0.001' if value == 'off' else 'inf'} off its parity vectors" in message
    assert "it is not served" in message


def test_a_machine_within_the_tolerance_serves_and_says_how_far_off_it_is(
    policy: OnnxPolicy, bundle: Path
) -> None:
    vectors = vectors_of(bundle)
    vectors["decide/0/out/probabilities"][0, 0] += PARITY_TOLERANCE / 2
    write_vectors(bundle, vectors)
    assert verify_parity(policy, bundle).difference == pytest.approx(PARITY_TOLERANCE / 2, rel=0.1)


@pytest.mark.parametrize(
    "name",
    [
        *OUTPUTS,
        "decide/0/in/action_mask",
        "learn/0/in/shared",
        "roll/action",
        "roll/reward",
        "roll/actions",
        "roll/context",
    ],
)
def test_parity_vectors_that_lack_one_are_refused(
    policy: OnnxPolicy, bundle: Path, name: str
) -> None:
    vectors = vectors_of(bundle)
    del vectors[name]
    write_vectors(bundle, vectors)
    assert "expected whole parity vectors" in parity_refusal(policy, bundle)


@pytest.mark.parametrize("graph", ["decide", "learn"])
def test_parity_vectors_without_a_call_of_each_graph_are_refused(
    policy: OnnxPolicy, bundle: Path, graph: str
) -> None:
    vectors = {k: v for k, v in vectors_of(bundle).items() if not k.startswith(graph)}
    write_vectors(bundle, vectors)
    assert "no call of decide or of learn" in parity_refusal(policy, bundle)


def _array(home: Path) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


def _pickled(home: Path) -> bytes:
    buffer = io.BytesIO()
    beside = {"roll/note": np.array([{"a": 1}], object)}
    np.savez(buffer, **vectors_of(home) | beside)  # type: ignore[arg-type]
    return buffer.getvalue()


def _flipped(home: Path) -> bytes:
    content = bytearray((home / "parity.npz").read_bytes())
    content[200] ^= 0xFF
    return bytes(content)


@pytest.mark.parametrize(
    "content",
    [
        lambda home: b"",
        lambda home: b"not an archive",
        lambda home: (home / "parity.npz").read_bytes()[:-30],
        lambda home: (home / "parity.npz").read_bytes()[:1000],
        _array,
        _pickled,
        _flipped,
    ],
    ids=["empty", "text", "no end", "a start", "one array", "pickled", "a flipped byte"],
)
def test_parity_vectors_that_cannot_be_read_are_refused(
    policy: OnnxPolicy, bundle: Path, content: Callable[[Path], bytes]
) -> None:
    (bundle / "parity.npz").write_bytes(content(bundle))
    assert "expected whole parity vectors" in parity_refusal(policy, bundle)


def test_parity_vectors_that_are_missing_are_refused(policy: OnnxPolicy, bundle: Path) -> None:
    (bundle / "parity.npz").unlink()
    assert "expected whole parity vectors" in parity_refusal(policy, bundle)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("decide/0/in/shared", np.zeros((3, SHARED))),
        ("learn/0/in/rows", np.zeros((3, 4, ROW + 1), np.float32)),
        ("learn/0/in/action", np.array([0, 3, 99])),
        ("roll/actions", np.array(2)),
        ("roll/reward", np.zeros(3, np.float32)),
    ],
)
def test_parity_vectors_that_the_graphs_cannot_take_are_refused(
    policy: OnnxPolicy, bundle: Path, name: str, wrong: Array
) -> None:
    write_vectors(bundle, vectors_of(bundle) | {name: wrong})
    parity_refusal(policy, bundle)


def test_graphs_other_than_those_of_the_vectors_do_not_serve(
    bundle: Path, tmp_path: Path, policy: OnnxPolicy
) -> None:
    other = shutil.copytree(bundle, tmp_path / "other")
    file = other / "manifest.json"
    blank = {"shared": [0.0] * SHARED, "row": [0.0, 1.0]}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"blank": blank}))
    assert "1 off its parity vectors" in parity_refusal(OnnxPolicy.load(other), other)
