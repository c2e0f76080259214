"""A checkpoint to a bundle: graphs, manifest, parity vectors and report, whole or not at all.

Every output in the parity vectors is onnxruntime's, the reference for stored memory. A bundle that
torch disagrees with, or that fails its own vectors, is never put in place.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from contract.bundle import (
    BUNDLE_FILES,
    ActionRange,
    Blank,
    Graph,
    Manifest,
    Provenance,
    load_manifest,
    sha256_of,
)
from contract.policy import OnnxPolicy, verify_parity
from training import checkpoints
from training.graphs import build, call, describe
from training.memory_reference import ACCOUNTS, TooFewAccountsError, add_reference
from training.policies.network import Network
from training.policies.vision import Vision, told_rays

Array = NDArray[Any]
Vectors = dict[str, Array]

MEMORY_TOLERANCE = 5e-6
"""How far the memories of torch and onnxruntime may be apart before an export is refused; a network
may allow more, up to what a service allows."""
DECISION_TOLERANCE = 1e-5
"""The same for probabilities and values: a softmax multiplies the distance of its logits."""
ROLL_STEPS = 100
MOST_SLOTS = 1_000
"""Slots of a context of which memories are still looked at; more are a picture's."""
_PARITY_SEED = 271_828


class ExportError(RuntimeError):
    """A bundle cannot be written. The message says why; nothing was left behind."""


def export_bundle(
    checkpoint: Path,
    out: Path,
    *,
    name: str,
    version: int,
    note: str = "",
    evaluation_trials: int = 10_000,
    evaluation: Path | None = None,
    reference_accounts: int = ACCOUNTS,
    replace: bool = False,
    on_evaluation: Callable[[], None] = lambda: None,
) -> Manifest:
    """Writes the bundle of a checkpoint's policy to the directory `out`.

    Versions are the training machine's where the checkpoint recorded it; onnx and onnxruntime are
    this one's, which make the graphs. What memories are like is learned from `reference_accounts`
    accounts of each age, on the curriculum's own tasks; 0: not at all, and so where contexts are
    pictures, which take too long to play, or where the tasks are hardly any. `on_evaluation` hears
    that the long part begins.
    """
    from training.report import write_report

    if out.exists() and not replace:
        raise ExportError(f"{out} exists; a bundle is replaced only when asked to (--force)")
    learner, record, hyperparameters, curriculum = checkpoints.load(checkpoint)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        provenance = {
            "command": str(record["command"]),
            "seed": int(record["seed"]),
            "date": datetime.now(UTC).date().isoformat(),
            "steps": learner.steps,
            "versions": versions() | record.get("machine", {}).get("versions", {}),
        }
        manifest = write_graphs(
            _as_served(learner.policy), partial, name, version, str(record["task"]), provenance
        )
        if reference_accounts and manifest.context_size <= MOST_SLOTS:
            with suppress(TooFewAccountsError):  # served as well, and its memories not judged
                add_reference(partial, curriculum=curriculum, accounts=reference_accounts)
            manifest = load_manifest(partial)
        if evaluation_trials:
            on_evaluation()
        write_report(
            partial,
            manifest,
            learner,
            record,
            hyperparameters,
            curriculum,
            note,
            evaluation_trials,
            checkpoint.parent,
            evaluation,
        )
        partial.chmod(0o755)
        _put_in_place(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def _as_served(policy: Network) -> Network:
    """A service is shown pictures, also where training told rays."""
    return told_rays(policy, False) if isinstance(policy, Vision) else policy


def write_graphs(
    policy: Network,
    directory: Path,
    name: str,
    version: int,
    task_family: str,
    provenance: dict[str, Any],
) -> Manifest:
    """Graphs, parity vectors and manifest of a policy, checked. Raises ExportError."""
    graphs = describe(policy)
    for function, graph in graphs.items():
        (directory / f"{function}.onnx").write_bytes(build(policy, function, graph))
    vectors, apart = parity_vectors(policy, directory, graphs)
    memory_tolerance = getattr(policy, "memory_tolerance", MEMORY_TOLERANCE)
    for function, tolerance in (("learn", memory_tolerance), ("decide", DECISION_TOLERANCE)):
        if not apart[function] <= tolerance:
            raise ExportError(
                f"{function}: torch and onnxruntime are {apart[function]:.2g} apart, expected "
                f"at most {tolerance:g}: the graphs are not the network"
            )
    with (directory / "parity.npz").open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **vectors)
    shared, rows = policy.blank(1, policy.action_range[0])
    manifest = Manifest(
        name=name,
        version=version,
        network=policy.name,
        task_family=task_family,
        actions=ActionRange(min=policy.action_range[0], max=policy.action_range[1]),
        context_size=policy.sizes.context,
        action_feature_size=policy.sizes.action_features,
        shared_size=shared.shape[1],
        row_size=rows.shape[2],
        blank=Blank(shared=shared[0].tolist(), row=rows[0, 0].tolist()),
        graphs=graphs,
        sha256={file: sha256_of(directory / file) for file in BUNDLE_FILES},
        provenance=Provenance(torch_parity=max(apart.values()), **provenance),
    )
    (directory / "manifest.json").write_text(manifest.model_dump_json(indent=2) + "\n")
    verify_parity(OnnxPolicy.load(directory), directory)
    return manifest


def parity_vectors(
    policy: Network, directory: Path, graphs: dict[str, Graph]
) -> tuple[Vectors, dict[str, float]]:
    """Calls of both graphs and a roll, by onnxruntime, and by graph torch's largest distance."""
    rng = np.random.default_rng(_PARITY_SEED)
    sessions = {name: _session(directory / f"{name}.onnx") for name in graphs}
    low, high = policy.action_range
    four, five = (max(low, min(high, some)) for some in (4, 5))
    shapes = sorted({(1, low), (1, four), (7, five), (3, high)})
    vectors: Vectors = {}
    apart = dict.fromkeys(graphs, 0.0)
    for number, (batch, actions) in enumerate(shapes):
        for name, graph in graphs.items():
            inputs = _random_inputs(rng, policy, graph, batch, actions)
            outputs = sessions[name].run(list(graph.outputs), inputs)
            expected = _torch_call(policy, name, graph, inputs)
            for key, value in inputs.items():
                vectors[f"{name}/{number}/in/{key}"] = value
            for key, found, wanted in zip(graph.outputs, outputs, expected, strict=True):
                vectors[f"{name}/{number}/out/{key}"] = found
                apart[name] = max(apart[name], _distance(found, wanted))
    rolled, apart_after = _roll(
        policy, rng, sessions["learn"], graphs["learn"], min(high, max(low, 8))
    )
    apart["learn"] = max(apart["learn"], apart_after)
    return {**vectors, **rolled}, apart


def _roll(
    policy: Network, rng: np.random.Generator, session: Any, graph: Graph, actions: int
) -> tuple[Vectors, float]:
    """A trial of `ROLL_STEPS` interactions from the blank memory, batch 1, both ways."""
    C, F = policy.sizes.context, policy.sizes.action_features
    drawn: Vectors = {
        "action": rng.integers(0, actions, ROLL_STEPS),
        "reward": rng.choice(np.array([-1.0, 1.0], np.float32), ROLL_STEPS),
        "done": rng.choice(np.array([0.0, 1.0], np.float32), ROLL_STEPS, p=[0.1, 0.9]),
    }
    if C:
        drawn["context"] = rng.uniform(-1, 1, (ROLL_STEPS, C)).astype(np.float32)
    features = rng.uniform(-1, 1, (actions, F)).astype(np.float32)
    shared, rows = policy.blank(1, actions)
    memory = {"shared": shared.detach().numpy().copy(), "rows": rows.detach().numpy().copy()}
    torch_memory = dict(memory)
    for t in range(ROLL_STEPS):
        step = {key: value[t : t + 1] for key, value in drawn.items()}
        step["action_features"] = features[None]
        feeds = {key: {**step, **memory}[key] for key in graph.inputs}
        memory.update(_next(graph, session.run(list(graph.outputs), feeds)))
        feeds = {key: {**step, **torch_memory}[key] for key in graph.inputs}
        torch_memory.update(_next(graph, _torch_call(policy, "learn", graph, feeds)))
    vectors = {f"roll/{key}": value for key, value in drawn.items()}
    vectors |= {f"roll/{key}": value for key, value in memory.items()}
    vectors["roll/actions"] = np.array(actions, np.int64)
    if F:
        vectors["roll/action_features"] = features
    return vectors, max(_distance(memory[key], torch_memory[key]) for key in memory)


def _next(graph: Graph, outputs: list[Array]) -> Vectors:
    named = zip(graph.outputs, outputs, strict=True)
    return {name.removesuffix("_next"): output for name, output in named}


def _session(path: Path) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _torch_call(policy: Network, name: str, graph: Graph, inputs: Vectors) -> list[Array]:
    """The torch network on the same inputs, those outputs that the graph has."""
    with torch.no_grad():
        outputs = call(policy, name, {key: torch.from_numpy(v) for key, v in inputs.items()})
    keys = ("probabilities", "value") if name == "decide" else ("shared_next", "rows_next")
    return [
        output.numpy() for key, output in zip(keys, outputs, strict=True) if key in graph.outputs
    ]


def _random_inputs(
    rng: np.random.Generator, policy: Network, graph: Graph, batch: int, actions: int
) -> Vectors:
    """Inputs as a service may see them, with at least one action allowed in every row."""
    made: Vectors = _some_memory(rng, policy, batch, actions)
    made = {name: made[name] for name in made if name in graph.inputs}
    for name, tensor in graph.inputs.items():
        if name in made:
            continue
        shape = [batch if s == "B" else actions if s == "K" else int(s) for s in tensor.shape]
        match name:
            case "action_mask":
                made[name] = rng.random(shape) < 0.7
                made[name][np.arange(batch), rng.integers(0, actions, batch)] = True
            case "action":
                made[name] = rng.integers(0, actions, shape)
            case "done":
                made[name] = (rng.random(shape) < 0.5).astype(np.float32)
            case "horizon_left":
                made[name] = rng.uniform(0, 1, shape).astype(np.float32)
            case _:
                made[name] = rng.uniform(-1, 1, shape).astype(np.float32)
    return made


def _some_memory(rng: np.random.Generator, policy: Network, batch: int, actions: int) -> Vectors:
    """Memories `[B, …]` that a service may see: what a few random interactions leave behind. What
    a memory holds need not make sense otherwise: a covariance has to be one."""
    shared, rows = policy.blank(batch, actions)
    C, F = policy.sizes.context, policy.sizes.action_features
    features = torch.as_tensor(rng.uniform(-1, 1, (batch, actions, F)).astype(np.float32))
    with torch.no_grad():
        for _ in range(int(rng.integers(1, 2 * actions))):
            shared, rows = policy.learn(
                shared,
                rows,
                torch.as_tensor(rng.uniform(-1, 1, (batch, C)).astype(np.float32)),
                torch.as_tensor(rng.integers(0, actions, batch)),
                torch.as_tensor(rng.choice(np.array([-1.0, 1.0], np.float32), batch)),
                torch.as_tensor(rng.choice(np.array([0.0, 1.0], np.float32), batch)),
                features,
            )
    return {"shared": shared.detach().numpy().copy(), "rows": rows.detach().numpy().copy()}


def _distance(found: Array, wanted: Array) -> float:
    """Largest difference, relative where numbers are above 1."""
    if found.size == 0:
        return 0.0
    largest = float(np.max(np.abs(found - wanted) / np.maximum(np.abs(wanted), 1.0)))
    return largest if np.isfinite(largest) else float("inf")


def _put_in_place(partial: Path, out: Path) -> None:
    """Renames a finished directory to `out`; one that is there is moved away, then dropped."""
    if not out.exists():
        partial.rename(out)
        return
    old = out.with_name(f".{out.name}.{os.getpid()}.old")
    out.rename(old)
    try:
        partial.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old)


def versions() -> dict[str, str]:
    """What is installed here."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": ort.__version__,
        "numpy": np.__version__,
    }
