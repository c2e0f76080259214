"""A bundle whose memory can be read: rows count wins and pulls, shared sums done and context."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
from onnx.parser import parse_model

from contract.bundle import (
    ActionRange,
    Blank,
    Graph,
    Manifest,
    Provenance,
    Tensor,
    sha256_of,
)
from contract.policy import Memory, OnnxPolicy, roll
from contract.spec import DEFAULT_POLICY


class Sizes(NamedTuple):
    """Floats of each part of a memory, and of what is shown."""

    shared: int = 2
    row: int = 2
    context: int = 3
    features: int = 1


COUNTING = Sizes()
SHARED, ROW, CONTEXT, FEATURES = COUNTING

# A wins' share of pulls, a nudge from context and feature, and a masked softmax.
DECIDE = """<ir_version: 9, opset_import: ["" : 18]>
decide (float[B, 2] shared, float[B, K, 2] rows, float[B, 3] context, bool[B, K] action_mask,
        float[B, 2] horizon_left, float[B, K, 1] action_features)
    => (float[B, K] probabilities, float[B] value)
    <int64[1] last = {2}, int64[1] one = {1}, int64[2] split = {1, 1}, float[1] low = {-1e30},
     float prior = {1.0}, float scale = {4.0}, float nudge = {0.1}, float zero = {0.0}>
{
    wins, pulls = Split <axis = 2> (rows, split)
    smoothed = Add (pulls, prior)
    share = Div (wins, smoothed)
    steep = Mul (share, scale)
    summed = ReduceSum <keepdims = 1> (context, one)
    wide = Unsqueeze (summed, last)
    featured = ReduceSum <keepdims = 1> (action_features, last)
    felt = Mul (wide, featured)
    small = Mul (felt, nudge)
    scores = Add (steep, small)
    logits = Squeeze (scores, last)
    masked = Where (action_mask, logits, low)
    soft = Softmax <axis = 1> (masked)
    probabilities = Where (action_mask, soft, zero)
    value = ReduceMax <keepdims = 0> (probabilities, one)
}"""

LEARN = """<ir_version: 9, opset_import: ["" : 18]>
learn (float[B, 2] shared, float[B, K, 2] rows, float[B, 3] context, int64[B] action,
       float[B] reward, float[B] done, float[B, K, 1] action_features)
    => (float[B, 2] shared_next, float[B, K, 2] rows_next)
    <int64[1] one = {1}, int64[1] last = {2}, int64 axis1 = {1}, float[2] off_on = {0.0, 1.0},
     float half = {0.5}, float unit = {1.0}>
{
    shape = Shape (rows)
    depth = Gather <axis = 0> (shape, axis1)
    hot = OneHot <axis = 1> (action, depth, off_on)
    up = Add (reward, unit)
    win = Mul (up, half)
    win1 = Unsqueeze (win, one)
    won = Mul (hot, win1)
    won3 = Unsqueeze (won, last)
    hot3 = Unsqueeze (hot, last)
    change = Concat <axis = 2> (won3, hot3)
    rows_next = Add (rows, change)
    done1 = Unsqueeze (done, one)
    summed = ReduceSum <keepdims = 1> (context, one)
    both = Concat <axis = 1> (done1, summed)
    shared_next = Add (shared, both)
}"""

# Sound on the parity vectors, NaN (0 wins / 0 pulls) for an account nothing is known of.
NAN_WHEN_BLANK = DECIDE.replace("    probabilities = Where", "    sound = Where").replace(
    "    value =",
    """    rate = Div (wins, pulls)
    rates = Squeeze (rate, last)
    nothing = Mul (rates, zero)
    probabilities = Add (sound, nothing)
    value =""",
)

# What one account learned leaks into the others of its batch: right alone, wrong in company.
LEAKS = LEARN.replace(
    "    shared_next = Add (shared, both)",
    """    all_of_batch = ReduceSum <keepdims = 1> (shared, first)
    shared_next = Add (all_of_batch, both)""",
).replace("<int64[1] one = {1}", "<int64[1] first = {0}, int64[1] one = {1}")


def write_counting_bundle(
    directory: Path,
    name: str = "counting",
    version: int = 1,
    *,
    decide: str = DECIDE,
    learn: str = LEARN,
    sizes: Sizes = COUNTING,
) -> Path:
    """A whole bundle at `directory/<name>/<version>`, parity vectors and all.

    Graphs of other `sizes` than the counting ones' bring both their texts.
    """
    home = directory / name / str(version)
    home.mkdir(parents=True)
    for graph, text in (("decide", decide), ("learn", learn)):
        model = parse_model(text)
        onnx.checker.check_model(model)
        onnx.save(model, str(home / f"{graph}.onnx"))
    (home / "report.md").write_text("A policy for tests.\n")
    np.savez(home / "parity.npz", **_vectors(home, sizes))
    manifest = _manifest(home, name, version, sizes)
    (home / "manifest.json").write_text(manifest.model_dump_json(indent=1))
    return home


DEFAULT_SIZES = Sizes(context=16, features=4)
"""As roomy as the default policy."""


def write_default_bundle(directory: Path) -> Path:
    """The counting policy in the default policy's place and with its room, for workflows that name
    no policy."""
    name, version = DEFAULT_POLICY.split("/")
    decide, learn = (
        graph.replace("[B, 3] context", "[B, 16] context").replace(
            "[B, K, 1] action_features", "[B, K, 4] action_features"
        )
        for graph in (DECIDE, LEARN)
    )
    return write_counting_bundle(
        directory, name, int(version), decide=decide, learn=learn, sizes=DEFAULT_SIZES
    )


def _manifest(home: Path, name: str, version: int, sizes: Sizes) -> Manifest:
    f32 = "float32"
    memory = {"shared": ["B", sizes.shared], "rows": ["B", "K", sizes.row]}
    extra = {"context": ["B", sizes.context], "action_features": ["B", "K", sizes.features]}

    def graph(inputs: dict[str, tuple[list[Any], str]], outputs: dict[str, list[Any]]) -> Graph:
        return Graph(
            inputs={key: Tensor(shape=shape, dtype=kind) for key, (shape, kind) in inputs.items()},
            outputs={key: Tensor(shape=shape, dtype=f32) for key, shape in outputs.items()},
        )

    common = {key: (shape, f32) for key, shape in (memory | extra).items()}
    return Manifest(
        name=name,
        version=version,
        network="counting",
        task_family="none",
        actions=ActionRange(min=2, max=50),
        context_size=sizes.context,
        action_feature_size=sizes.features,
        shared_size=sizes.shared,
        row_size=sizes.row,
        blank=Blank(shared=[0.0] * sizes.shared, row=[0.0] * sizes.row),
        graphs={
            "decide": graph(
                common | {"action_mask": (["B", "K"], "bool"), "horizon_left": (["B", 2], f32)},
                {"probabilities": ["B", "K"], "value": ["B"]},
            ),
            "learn": graph(
                common | {"action": (["B"], "int64"), "reward": (["B"], f32), "done": (["B"], f32)},
                {"shared_next": memory["shared"], "rows_next": memory["rows"]},
            ),
        },
        sha256={key: sha256_of(home / key) for key in ("decide.onnx", "learn.onnx", "parity.npz")},
        provenance=Provenance(
            command="none", seed=0, date="2026-11-22", steps=0, versions={}, torch_parity=0.0
        ),
    )


def _vectors(home: Path, sizes: Sizes) -> dict[str, Any]:
    """Parity vectors of the graphs in `home`, as an export writes them."""
    rng = np.random.default_rng(0)
    batch, actions = 3, 4
    state = {
        "shared": rng.random((batch, sizes.shared), np.float32),
        "rows": np.cumsum(rng.random((batch, actions, sizes.row), np.float32), axis=2),
        "context": rng.random((batch, sizes.context), np.float32),
        "action_features": rng.random((batch, actions, sizes.features), np.float32),
    }
    mask = np.ones((batch, actions), bool)
    mask[0, 1] = False
    calls: dict[str, dict[str, Any]] = {
        "decide": state | {"action_mask": mask, "horizon_left": rng.random((batch, 2), np.float32)},
        "learn": state
        | {
            "action": np.array([0, 3, 1]),
            "reward": np.array([-1, 1, 0.5], np.float32),
            "done": np.ones(batch, np.float32),
        },
    }
    vectors: dict[str, Any] = {}
    for graph, feeds in calls.items():
        session = ort.InferenceSession(str(home / f"{graph}.onnx"))
        names = [output.name for output in session.get_outputs()]
        wanted = {one.name for one in session.get_inputs()}
        outputs = session.run(names, {key: feeds[key] for key in wanted})
        vectors |= {f"{graph}/0/in/{key}": feeds[key] for key in wanted}
        vectors |= {f"{graph}/0/out/{key}": one for key, one in zip(names, outputs, strict=True)}
    steps = 100
    vectors |= {
        "roll/actions": np.array(actions),
        "roll/action": rng.integers(0, actions, steps),
        "roll/reward": rng.choice(np.array([-1, 1], np.float32), steps),
        "roll/done": np.ones(steps, np.float32),
        "roll/context": rng.random((steps, sizes.context), np.float32),
        "roll/action_features": rng.random((actions, sizes.features), np.float32),
    }
    rolled = _roll(home, vectors, sizes)
    return vectors | {"roll/shared": rolled.shared, "roll/rows": rolled.rows}


def _roll(home: Path, vectors: dict[str, Any], sizes: Sizes) -> Memory:
    sessions = {"learn": ort.InferenceSession(str(home / "learn.onnx"))}
    (home / "parity.npz").write_bytes(b"")
    return roll(OnnxPolicy(_manifest(home, "counting", 1, sizes), sessions), vectors)


def edit_manifest(home: Path, **changes: Any) -> None:
    """Writes fields over the manifest of a bundle."""
    path = home / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
