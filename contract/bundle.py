"""The bundle: the directory that carries a policy from training to service, and its manifest.

`decide.onnx`, `learn.onnx`, `manifest.json`, `parity.npz`, `report.md`. This module reads and
checks the files; `contract.policy` runs the graphs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from contract.encode import context_size, slots_of
from contract.parts import Sha256
from contract.source import Problem
from contract.spec import WorkflowSpec

GRAPHS = ("decide", "learn")
BUNDLE_FILES = ("decide.onnx", "learn.onnx", "parity.npz")
"""The files whose SHA-256 the manifest pins; `report.md` and its pictures are for people."""

GraphName = Literal["decide", "learn"]

_KNOWN = frozenset({"shared", "rows", "context", "action_features"})
STEP: dict[GraphName, tuple[frozenset[str], frozenset[str]]] = {
    "decide": (_KNOWN | {"action_mask", "horizon_left"}, frozenset({"probabilities", "value"})),
    "learn": (_KNOWN | {"action", "reward", "done"}, frozenset({"shared_next", "rows_next"})),
}
"""What each graph may take, and what it gives, by name; `learn` may leave out a memory part."""


class BundleError(ValueError):
    """A bundle is broken, or does not fit its workflow. The message names file and field."""

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)
        """What of a workflow does not fit, one by one."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Tensor(_Part):
    """Shape and dtype of one graph input or output; `B` and `K` are dynamic axes."""

    shape: list[int | Literal["B", "K"]]
    dtype: Literal["float32", "int64", "bool"]


class Graph(_Part):
    """What one ONNX graph takes and gives, by name."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


class ActionRange(_Part):
    """How many actions the policy takes."""

    min: Annotated[int, Field(ge=2)]
    max: Annotated[int, Field(ge=2)]


class Blank(_Part):
    """The memory of an account that nothing is known of: `shared` [G], and one `row` [H]."""

    shared: list[float]
    row: list[float]


class Provenance(_Part):
    """Where the weights come from."""

    command: str
    seed: int
    date: str
    steps: int
    """Environment steps (interactions) of training."""
    versions: dict[str, str]
    torch_parity: float
    """Largest absolute difference between torch and onnxruntime over the parity vectors."""


class Manifest(_Part):
    """What a bundle says of itself."""

    format: Literal[1] = 1
    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]*$")]
    version: Annotated[int, Field(ge=1)]
    network: str
    task_family: str
    actions: ActionRange
    context_size: Annotated[int, Field(ge=0)] = 0
    action_feature_size: Annotated[int, Field(ge=0)] = 0
    shared_size: Annotated[int, Field(ge=0)]
    """G, floats."""
    row_size: Annotated[int, Field(ge=0)]
    """H, floats an action; 0: the memory has no rows."""
    blank: Blank
    graphs: dict[GraphName, Graph]
    sha256: dict[str, Sha256]
    provenance: Provenance

    @model_validator(mode="after")
    def _whole(self) -> Manifest:
        for name, (inputs, outputs) in STEP.items():
            if name not in self.graphs:
                raise ValueError(f"graphs.{name}: expected its inputs and outputs, got nothing")
            takes, gives = set(self.graphs[name].inputs), set(self.graphs[name].outputs)
            if not takes <= inputs:
                raise ValueError(
                    f"graphs.{name}.inputs: expected some of {sorted(inputs)}, got {sorted(takes)}"
                )
            if not gives <= outputs or (name == "decide" and gives != outputs):
                raise ValueError(
                    f"graphs.{name}.outputs: expected {sorted(outputs)}, got {sorted(gives)}"
                )
        for part, size, floats in (
            ("shared", self.shared_size, self.blank.shared),
            ("row", self.row_size, self.blank.row),
        ):
            if len(floats) != size:
                raise ValueError(
                    f"blank.{part}: expected {size} floats as {part}_size says, got {len(floats)}"
                )
        return self

    @property
    def policy(self) -> str:
        """The policy's name and version, `bandits/1`."""
        return f"{self.name}/{self.version}"

    def refuse_misfit(self, spec: WorkflowSpec) -> None:
        """Raises BundleError when this policy cannot serve the workflow."""
        if problems := self.misfits(spec):
            raise BundleError("\n".join(map(str, problems)), problems)

    def misfits(self, spec: WorkflowSpec) -> list[Problem]:
        """What of the workflow this policy cannot take, each in its place."""
        problems = []
        few, many = self.actions.min, self.actions.max
        if not few <= (count := len(spec.actions)) <= many:
            too_many = f"actions.{many}" if count > many else "actions"
            message = f"expected {few} to {many} actions for policy {self.policy}, got {count}"
            problems.append(spec.problem(too_many, message))
        if (slots := context_size(spec)) > self.context_size:
            message = (
                f"expected at most {self.context_size} slots that feed policy {self.policy}, got "
                f"{slots}; a feature with `feeds: rules` takes none"
            )
            first_too_many = _first_beyond(spec, self.context_size)
            problems.append(spec.problem(f"context.{first_too_many}", message))
        if (features := len(spec.actions[0].features)) > self.action_feature_size > 0:
            message = (
                f"expected at most {self.action_feature_size} features an action for policy "
                f"{self.policy}, got {features}"
            )
            problems.append(spec.problem("actions.0.features", message))
        return problems


def _first_beyond(spec: WorkflowSpec, room: int) -> str:
    """The first feature, as the file has them, that the slots up to it leave no room for."""
    taken = 0
    for name, feature in spec.context.items():
        taken += slots_of(feature)
        if taken > room:
            return name
    raise ValueError(f"{room} slots are enough")


def load_manifest(directory: Path) -> Manifest:
    """The manifest of a bundle whose files are whole. Raises BundleError."""
    path = directory / "manifest.json"
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BundleError(f"{path}: expected a bundle's manifest, but {error.strerror}") from error
    except ValidationError as error:
        raise BundleError(f"{path}: {_first_problem(error)}") from error
    for name in BUNDLE_FILES:
        if name not in manifest.sha256:
            raise BundleError(f"{path}: sha256.{name}: expected a SHA-256, got nothing")
        try:
            found = sha256_of(directory / name)
        except OSError as error:
            raise BundleError(f"{directory / name}: {error.strerror}") from error
        if found != manifest.sha256[name]:
            raise BundleError(
                f"{directory / name}: expected SHA-256 {manifest.sha256[name][:12]}…, "
                f"got {found[:12]}…: the file is not the one that was exported"
            )
    return manifest


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _first_problem(error: ValidationError) -> str:
    first: Any = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{field}: {message}" if field else message
