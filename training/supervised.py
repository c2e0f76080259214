"""Fits a supervised baseline to an exported ledger: what to expect of an action in a context.

A forest of regression trees (Breiman 2001) on the decisions that came to a reward, by scikit-learn,
exported by skl2onnx. It knows no account: it is what a team would run without one that adapts.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from contract.baseline import (
    FILES,
    BaselineManifest,
    baseline_rows,
    context_slots,
    load_baseline,
)
from contract.bundle import sha256_of
from contract.encode import ContextError, check_context
from contract.spec import WorkflowSpec
from training.ledger_rows import LogError, rows_of

HELD_OUT = 0.2
"""The share of accounts that it is judged on and not fitted to."""
LEAST = 100
"""Decisions with a reward, below which nothing is fitted."""
PARITY_ROWS = 200
OPSET = {"": 18, "ai.onnx.ml": 3}


@dataclass(frozen=True)
class Examples:
    """N decisions that came to a reward."""

    rows: NDArray[np.float32]
    """`[N, K, D]`: what the model is told of every action."""
    action: NDArray[np.int64]
    reward: NDArray[np.float64]
    """Scaled to [0, 1]."""
    probability: NDArray[np.float64]
    """Of the action, as logged; 1 where nothing was drawn."""
    offered: NDArray[np.bool_]
    """`[N, K]`."""
    account: NDArray[np.int64]


@dataclass(frozen=True)
class Fitted:
    """What came of it."""

    manifest: BaselineManifest
    directory: Path
    difference: float
    """Between scikit-learn and onnxruntime, at most, over the parity vectors."""


def read_examples(
    path: Path, spec: WorkflowSpec, on_rows: Callable[[int], None] = lambda _: None
) -> Examples:
    """The workflow's decisions in an exported file. Raises LogError and OSError."""
    row_of = {action: row for row, action in enumerate(spec.action_ids)}
    accounts: dict[tuple[str, str], int] = {}
    told, action, reward, probability, offered, account = [], [], [], [], [], []
    low, span = spec.reward.min, spec.reward.max - spec.reward.min
    for place, row in rows_of(path):
        on_rows(1)
        if row.get("workflow", spec.workflow) != spec.workflow or row.get("reward") is None:
            continue
        where = f"{path}, {place}"
        raw = row["context"]
        try:
            context, _ = check_context(spec, json.loads(raw) if isinstance(raw, str) else raw)
            action.append(row_of[row["action"]])
        except ContextError as error:
            raise LogError(f"{where}: {error}") from error
        except KeyError as error:
            raise LogError(f"{where}: expected an action of {list(row_of)}, got {error}") from error
        told.append(baseline_rows(spec, context))
        reward.append((float(row["reward"]) - low) / span)
        probability.append(float(row.get("probability") or 1.0))
        left = row.get("actions_left") or row.get("asked_for") or spec.action_ids
        offered.append([one in left for one in spec.action_ids])
        key = str(row.get("tenant", "")), str(row.get("account_id", ""))
        account.append(accounts.setdefault(key, len(accounts)))
    if len(told) < LEAST:
        raise LogError(
            f"{path}: expected at least {LEAST} decisions of {spec.workflow} with a reward, found "
            f"{len(told)}"
        )
    return Examples(
        np.array(told, np.float32),
        np.array(action, np.int64),
        np.clip(np.array(reward), 0.0, 1.0),
        np.array(probability),
        np.array(offered, np.bool_),
        np.array(account, np.int64),
    )


def fit_baseline(
    spec: WorkflowSpec,
    examples: Examples,
    out: Path,
    *,
    name: str,
    number: int,
    seed: int = 0,
    trees: int = 50,
    command: str = "",
    replace: bool = False,
) -> Fitted:
    """Fits on most accounts, judges on the others, and writes the baseline to `out`, whole or not
    at all; over the one there only where `replace` says so. Raises OSError, and BundleError when
    what was written does not load."""
    from skl2onnx import to_onnx
    from sklearn.ensemble import RandomForestRegressor

    rng = np.random.default_rng(seed)
    held = rng.random(int(examples.account.max()) + 1)[examples.account] < HELD_OUT
    taken = examples.rows[np.arange(len(held)), examples.action]
    forest = RandomForestRegressor(
        trees,
        min_samples_leaf=max(5, int((~held).sum()) // 400),
        max_features=0.5,
        random_state=seed,
        n_jobs=-1,
    )
    forest.fit(taken[~held], examples.reward[~held])
    parity = rng.permutation(len(taken))[:PARITY_ROWS]
    rows = np.ascontiguousarray(taken[parity])
    graph = to_onnx(forest, rows[:1], target_opset=OPSET)
    _name_ends(graph)
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    (reward,) = session.run(["reward"], {"rows": rows})
    difference = float(np.abs(reward[:, 0] - forest.predict(rows)).max())
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".baseline-") as draft:
        home = Path(draft) / "whole"
        home.mkdir()
        (home / "baseline.onnx").write_bytes(graph.SerializeToString())
        np.savez(home / "parity.npz", rows=rows, reward=reward)
        manifest = BaselineManifest(
            name=name,
            version=number,
            workflow=spec.workflow,
            actions=list(spec.action_ids),
            context=context_slots(spec),
            action_features=sorted(spec.actions[0].features),
            sha256={file: sha256_of(home / file) for file in FILES},
            fitted={
                "command": command,
                "seed": seed,
                "date": datetime.now(UTC).date().isoformat(),
                "decisions": len(held),
                "held_out_decisions": int(held.sum()),
                **_judged(forest, examples, held),
                "versions": {one: version(one) for one in ("scikit-learn", "skl2onnx")},
            },
        )
        (home / "baseline.json").write_text(manifest.model_dump_json(indent=2) + "\n")
        load_baseline(home)
        if replace and out.exists():
            out.rename(Path(draft) / "before")
        home.rename(out)
    return Fitted(manifest, out, difference)


def _judged(forest: Any, examples: Examples, held: NDArray[np.bool_]) -> dict[str, float]:
    """On accounts that it was not fitted to: how much of the rewards' variance it explains, and
    what its choices would have earned by what was logged (SNIPS, Swaminathan and Joachims 2015),
    beside what was earned."""
    if not held.any():
        return {}
    size, actions, _ = examples.rows[held].shape
    told = examples.rows[held].reshape(size * actions, -1)
    expected = forest.predict(told).reshape(size, actions)
    action, reward = examples.action[held], examples.reward[held]
    mine = expected[np.arange(size), action]
    spread = float(((reward - reward.mean()) ** 2).sum())
    choice = np.where(examples.offered[held], expected, -np.inf).argmax(axis=1)
    weights = (choice == action) / examples.probability[held]
    total = float(weights.sum())
    return {
        "explained": 1.0 - float(((reward - mine) ** 2).sum()) / spread if spread else 0.0,
        "logged_reward": float(reward.mean()),
        "snips_reward": float((weights * reward).sum() / total) if total else float("nan"),
    }


def _name_ends(graph: Any) -> None:
    """Calls the graph's input `rows` and its output `reward`."""
    renamed = {graph.graph.input[0].name: "rows", graph.graph.output[0].name: "reward"}
    for end in (*graph.graph.input, *graph.graph.output):
        end.name = renamed[end.name]
    for node in graph.graph.node:
        for names in (node.input, node.output):
            for i, one in enumerate(names):
                names[i] = renamed.get(one, one)
