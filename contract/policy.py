"""A policy as it is served: two pure ONNX functions over one memory. It keeps no state.

decide(memory, …) → probabilities, value. learn(memory, …, action, reward, done) → memory.
onnxruntime, not torch, is the reference for stored memories.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from contract.bundle import GRAPHS, BundleError, Manifest, load_manifest

Array = NDArray[Any]

PARITY_TOLERANCE = 1e-5
"""How far this machine's outputs may be from the exported ones before a bundle is refused."""

ORT_TYPES = {"float32": "tensor(float)", "int64": "tensor(int64)", "bool": "tensor(bool)"}
"""The manifest's dtypes in onnxruntime's words."""

LARGEST_BATCH = 64
"""Rows of the largest batch of `learn` that is tried for bitwise equality."""


class Memory(NamedTuple):
    """The recurrent state of B accounts: `shared` [B, G] and `rows` [B, K, H], float32."""

    shared: Array
    rows: Array


@dataclass(frozen=True)
class Parity:
    """What the parity vectors said on this machine."""

    difference: float
    """Largest absolute difference to the exported outputs."""
    fingerprint: str
    """SHA-256 over the bits of the rolled memory: equal where `learn` is bitwise equal."""
    batch: int = 1
    """`learn` gives every row of a batch of up to so many the very bits that it gives it alone."""


class OnnxPolicy:
    """The two graphs of one bundle. Load with `OnnxPolicy.load`; thread-safe."""

    def __init__(self, manifest: Manifest, sessions: Mapping[str, ort.InferenceSession]) -> None:
        self.manifest = manifest
        self._sessions = sessions
        self._outputs = {name: list(manifest.graphs[name].outputs) for name in GRAPHS}  # type: ignore[index]

    @classmethod
    def load(cls, directory: Path) -> OnnxPolicy:
        """The policy in the bundle `directory`. Raises BundleError when a file is broken."""
        manifest = load_manifest(directory)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        sessions = {}
        for name in GRAPHS:
            path = directory / f"{name}.onnx"
            try:
                session = ort.InferenceSession(
                    str(path), options, providers=["CPUExecutionProvider"]
                )
            except Exception as error:  # onnxruntime raises its own types, one a cause
                raise BundleError(f"{path}: onnxruntime cannot load it: {error}") from error
            _refuse_other_signature(path, session, manifest)
            sessions[name] = session
        return cls(manifest, sessions)

    def blank(self, batch: int, actions: int) -> Memory:
        """The blank memory of `batch` accounts with `actions` rows each."""
        shared = np.array(self.manifest.blank.shared, np.float32)
        row = np.array(self.manifest.blank.row, np.float32)
        return Memory(np.tile(shared, (batch, 1)), np.tile(row, (batch, actions, 1)))

    def decide(
        self,
        memory: Memory,
        *,
        action_mask: Array,
        horizon_left: Array,
        context: Array | None = None,
        action_features: Array | None = None,
        options: ort.RunOptions | None = None,
    ) -> tuple[Array, Array]:
        """Probabilities `[B, K]` (0 where masked) and values `[B]`. Writes nothing. `options` may
        end the call.

        action_mask bool `[B, K]`; horizon_left `[B, 2]`; context `[B, C]`; action_features
        `[B, K, F]`. Inputs that the policy does not take are ignored.
        """
        outputs = self._run(
            "decide",
            {
                "shared": memory.shared,
                "rows": memory.rows,
                "context": context,
                "action_mask": action_mask,
                "horizon_left": horizon_left,
                "action_features": action_features,
            },
            options,
        )
        named = dict(zip(self._outputs["decide"], outputs, strict=True))
        return named["probabilities"], named["value"]

    def learn(
        self,
        memory: Memory,
        *,
        action: Array,
        reward: Array,
        done: Array,
        context: Array | None = None,
        action_features: Array | None = None,
    ) -> Memory:
        """The memory with one interaction folded in.

        action int64 `[B]`; reward, encoded, float32 `[B]`; done float32 `[B]`.
        """
        outputs = self._run(
            "learn",
            {
                "shared": memory.shared,
                "rows": memory.rows,
                "context": context,
                "action": action,
                "reward": reward,
                "done": done,
                "action_features": action_features,
            },
        )
        named = dict(zip(self._outputs["learn"], outputs, strict=True))
        return Memory(named.get("shared_next", memory.shared), named.get("rows_next", memory.rows))

    def _run(
        self,
        graph: str,
        feeds: Mapping[str, Array | None],
        options: ort.RunOptions | None = None,
    ) -> list[Array]:
        wanted = self.manifest.graphs[graph].inputs  # type: ignore[index]
        outputs: list[Array] = self._sessions[graph].run(
            self._outputs[graph], {name: feeds[name] for name in wanted}, options
        )
        return outputs


def verify_parity(policy: OnnxPolicy, directory: Path) -> Parity:
    """Runs the bundle's parity vectors on this machine. Raises BundleError when one is off.

    Vectors are `decide/<i>/in/<name>`, `decide/<i>/out/<name>`, the same for `learn`, and a roll of
    T interactions from the blank memory: `roll/action`, `roll/reward`, `roll/done` `[T]`, optional
    `roll/context` `[T, C]` and `roll/action_features` `[K, F]`, `roll/actions` (K), and the memory
    after it, `roll/shared` `[1, G]` and `roll/rows` `[1, K, H]`.
    """
    path = directory / "parity.npz"
    try:
        with np.load(path, allow_pickle=False) as stored:
            vectors = {name: stored[name] for name in stored.files}
        difference = max(_replay_calls(policy, vectors), default=0.0)
        steps = list(_roll(policy, vectors))
        rolled = steps[-1]
        expected = Memory(vectors["roll/shared"], vectors["roll/rows"])
    except Exception as error:  # zipfile, zlib, numpy and onnxruntime each raise their own types
        raise BundleError(f"{path}: expected whole parity vectors, but {error}") from error
    for part, wanted in zip(rolled, expected, strict=True):
        difference = max(difference, _distance(part, wanted))
    if not difference <= PARITY_TOLERANCE:
        raise BundleError(
            f"{path}: policy {policy.manifest.policy} is {difference:.2g} off its parity vectors "
            f"on this machine, expected at most {PARITY_TOLERANCE:g}; it is not served"
        )
    bits = b"".join(np.ascontiguousarray(part).tobytes() for part in rolled)
    return Parity(
        difference, hashlib.sha256(bits).hexdigest(), _exact_batch(policy, vectors, steps)
    )


def roll(policy: OnnxPolicy, vectors: Mapping[str, Array]) -> Memory:
    """The memory, batch 1, after the parity roll's interactions, one `learn` after another."""
    *_, memory = _roll(policy, vectors)
    return memory


def _roll(policy: OnnxPolicy, vectors: Mapping[str, Array]) -> Iterator[Memory]:
    """The memory, batch 1, before the parity roll and after each of its T interactions."""
    memory = policy.blank(1, int(vectors["roll/actions"]))
    yield memory
    for t in range(len(vectors["roll/action"])):
        memory = _roll_step(policy, vectors, memory, slice(t, t + 1))
        yield memory


def _roll_step(
    policy: OnnxPolicy, vectors: Mapping[str, Array], memory: Memory, at: slice
) -> Memory:
    """`learn` on the roll's interactions `at`, B of them, each from its own row of `memory`."""
    contexts, features = vectors.get("roll/context"), vectors.get("roll/action_features")
    actions = np.asarray(vectors["roll/action"][at], np.int64)
    return policy.learn(
        memory,
        action=actions,
        reward=vectors["roll/reward"][at],
        done=vectors["roll/done"][at],
        context=None if contexts is None else contexts[at],
        action_features=None if features is None else np.stack([features] * len(actions)),
    )


def _exact_batch(policy: OnnxPolicy, vectors: Mapping[str, Array], steps: Sequence[Memory]) -> int:
    """The largest batch such that it and every smaller one learns the roll's interactions to the
    bits that they were learned to one by one. `steps` are the roll's memories, T + 1 of them."""
    exact = 1
    for size in range(2, min(LARGEST_BATCH, len(steps) - 1) + 1):
        before = Memory(*(np.concatenate(parts) for parts in zip(*steps[:size], strict=True)))
        after = _roll_step(policy, vectors, before, slice(0, size))
        alone = (np.concatenate(parts) for parts in zip(*steps[1 : size + 1], strict=True))
        if any(a.tobytes() != b.tobytes() for a, b in zip(after, alone, strict=True)):
            break
        exact = size
    return exact


def _replay_calls(policy: OnnxPolicy, vectors: Mapping[str, Array]) -> list[float]:
    """Distances of every recorded `decide` and `learn` call to what this machine computes."""
    calls = sorted({tuple(key.split("/")[:2]) for key in vectors if key[0] in "dl"})
    if not {"decide", "learn"} <= {graph for graph, _ in calls}:
        raise ValueError("it has no call of decide or of learn")
    distances = []
    for graph, number in calls:
        prefix = f"{graph}/{number}"
        manifest = policy.manifest.graphs[graph]  # type: ignore[index]
        feeds = {name: vectors[f"{prefix}/in/{name}"] for name in manifest.inputs}
        outputs = policy._run(graph, feeds)
        for name, output in zip(manifest.outputs, outputs, strict=True):
            distances.append(_distance(output, vectors[f"{prefix}/out/{name}"]))
    return distances


def _distance(found: Array, wanted: Array) -> float:
    """Largest absolute difference; infinite for another shape or a NaN."""
    if found.shape != wanted.shape:
        return float("inf")
    if found.size == 0:
        return 0.0
    largest = float(np.max(np.abs(found - wanted)))
    return largest if np.isfinite(largest) else float("inf")


def _refuse_other_signature(path: Path, session: ort.InferenceSession, manifest: Manifest) -> None:
    """The graph must take and give exactly what the manifest names, in its shapes and dtypes."""
    declared = manifest.graphs[path.stem]  # type: ignore[index]
    for kind, found, wanted in (
        ("inputs", session.get_inputs(), declared.inputs),
        ("outputs", session.get_outputs(), declared.outputs),
    ):
        if {tensor.name for tensor in found} != set(wanted):
            raise BundleError(
                f"{path}: {kind}: expected {sorted(wanted)} as in the manifest, "
                f"got {sorted(tensor.name for tensor in found)}"
            )
        for tensor in found:
            told = wanted[tensor.name]
            if tensor.type != ORT_TYPES[told.dtype] or not _same_shape(tensor.shape, told.shape):
                raise BundleError(
                    f"{path}: {kind}.{tensor.name}: expected {told.dtype} {told.shape} as in the "
                    f"manifest, got {tensor.type} {tensor.shape}"
                )


def _same_shape(found: Sequence[int | str | None], wanted: Sequence[int | str]) -> bool:
    """Whether the sizes agree; a graph has its own names for the axes that are dynamic."""
    if len(found) != len(wanted):
        return False
    pairs = zip(found, wanted, strict=True)
    return all(a == b if isinstance(b, int) else not isinstance(a, int) for a, b in pairs)
