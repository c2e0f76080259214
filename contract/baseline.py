"""A supervised baseline: one ONNX graph that says which reward to expect of each action, for use as
a fallback. It remembers nobody and learns nothing.

A directory with `baseline.onnx`, `baseline.json` and `parity.npz`. The graph takes `rows` float32
`[N, D]`, one row an action as `baseline_rows` makes them, and gives `reward` float32 `[N, 1]`,
scaled to [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contract.bundle import BundleError, sha256_of
from contract.encode import Float32, encode_action_features, encode_all_context
from contract.parts import Name
from contract.source import Problem
from contract.spec import WorkflowSpec

TOLERANCE = 1e-5
"""How far this machine's rewards may be from the exported ones before a baseline is refused."""
FILES = ("baseline.onnx", "parity.npz")


class BaselineManifest(BaseModel):
    """What a baseline says of itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    version: Annotated[int, Field(ge=1)]
    workflow: str
    actions: list[Name]
    """In the order of their slots; a workflow may have more by now, which are not scored."""
    context: list[str]
    """One name a slot: `plan=basic`, `tenure`."""
    action_features: list[Name]
    sha256: dict[str, str]
    fitted: dict[str, Any]
    """How: command, seed, date, decisions, and what it earned on accounts it had not seen."""

    @property
    def baseline(self) -> str:
        """Name and version, `offers/1`."""
        return f"{self.name}/{self.version}"


@dataclass(frozen=True)
class Baseline:
    """One that is whole, and gives on this machine what it was exported with."""

    manifest: BaselineManifest
    difference: float
    """The largest to its parity vectors."""
    session: ort.InferenceSession

    def rewards(self, spec: WorkflowSpec, context: Mapping[str, Any]) -> NDArray[np.float64]:
        """The reward to expect of each action, `[K]`, in a checked context; −inf of actions that
        came later. Raises what onnxruntime raises."""
        known = len(self.manifest.actions)
        (found,) = self.session.run(None, {"rows": baseline_rows(spec, context, known)})
        rewards = np.full(len(spec.actions), -np.inf)
        rewards[:known] = found[:, 0]
        return rewards

    def misfits(self, spec: WorkflowSpec) -> list[Problem]:
        """What of the workflow it was not fitted for."""
        told = self.manifest
        pairs = {
            "workflow": (told.workflow, spec.workflow),
            "actions": (told.actions, list(spec.action_ids[: len(told.actions)])),
            "context": (told.context, context_slots(spec)),
            "action features": (told.action_features, sorted(spec.actions[0].features)),
        }
        return [
            spec.problem(
                "fallback.model",
                f"expected a baseline for this workflow, got {told.baseline}, whose {what} "
                f"{'is' if what == 'workflow' else 'are'} {theirs}, not {ours}",
            )
            for what, (theirs, ours) in pairs.items()
            if theirs != ours
        ]


def baseline_rows(
    spec: WorkflowSpec, context: Mapping[str, Any], actions: int | None = None
) -> Float32:
    """A checked context as `[K, D]`, one row for each of the first `actions` actions: every context
    feature, those that feed rules alone too; which action it is, one-hot; its features."""
    count = len(spec.actions) if actions is None else actions
    features = encode_action_features(spec, len(spec.actions[0].features))[:count]
    shared = np.tile(encode_all_context(spec, context), (count, 1))
    return np.concatenate([shared, np.eye(count, dtype=np.float32), features], axis=1)


def context_slots(spec: WorkflowSpec) -> list[str]:
    """What each slot of a context is, in the order of `encode_all_context`."""
    slots = []
    for name, feature in sorted(spec.context.items()):
        values = getattr(feature, "values", None)
        slots += [name] if values is None else [f"{name}={value}" for value in values]
    return slots


def load_baseline(directory: Path) -> Baseline:
    """The baseline in `directory`, after it passed its parity vectors on this machine. Raises
    BundleError."""
    path = directory / "baseline.json"
    try:
        manifest = BaselineManifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BundleError(
            f"{path}: expected a baseline's manifest, but {error.strerror}"
        ) from error
    except ValidationError as error:
        first: Any = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{path}: {where}: {first['msg']}") from error
    for name in FILES:
        try:
            found = sha256_of(directory / name)
        except OSError as error:
            raise BundleError(f"{directory / name}: {error.strerror}") from error
        if found != manifest.sha256.get(name):
            raise BundleError(f"{directory / name}: the file is not the one that was exported")
    session = _session(directory / "baseline.onnx")
    return Baseline(manifest, _parity(directory / "parity.npz", session, manifest), session)


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own types, one a cause
        raise BundleError(f"{path}: onnxruntime cannot load it: {error}") from error


def _parity(path: Path, session: ort.InferenceSession, manifest: BaselineManifest) -> float:
    try:
        with np.load(path, allow_pickle=False) as stored:
            rows, wanted = stored["rows"], stored["reward"]
        (found,) = session.run(["reward"], {"rows": rows})
        if found.shape != wanted.shape or not len(rows):
            raise ValueError(f"expected rewards {wanted.shape}, got {found.shape}")
        difference = float(np.max(np.abs(found - wanted)))
    except Exception as error:  # zipfile, numpy and onnxruntime each raise their own types
        raise BundleError(f"{path}: expected whole parity vectors, but {error}") from error
    if not difference <= TOLERANCE:
        raise BundleError(
            f"{path}: baseline {manifest.baseline} is {difference:.2g} off its parity vectors on "
            f"this machine, expected at most {TOLERANCE:g}; it is not served"
        )
    return difference
