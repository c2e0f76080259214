"""The workflow families there are, and their accounts. Numpy only.

`docs/workflow-families.md` says what each family's latent parameters are and which verticals are
held out: no training, tuning or choice of a peer may touch those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from contract.spec import WorkflowSpec, load_workflow
from training.tasks.workflows import (
    aisle_navigation,
    fraud_step_up,
    gripper_calibration,
    lead_qualification,
    onboarding,
    retention_offer,
    support_routing,
)
from training.tasks.workflows.simulation import (
    Options,
    SimulatedAccounts,
    refuse_impossible_trial,
)
from training.tasks.workflows.verticals import Segments, Vertical

__all__ = [
    "FAMILIES",
    "HELD_OUT_VERTICALS",
    "TRAINING_VERTICALS",
    "Family",
    "Options",
    "build_accounts",
    "family_of",
    "family_spec",
    "verticals",
]

FILES = Path(__file__).parents[3] / "workflows"
"""Where the families' workflow files are."""


@dataclass(frozen=True)
class Family:
    """One workflow's simulator, and whom it simulates."""

    simulator: type[SimulatedAccounts]
    segments: Segments
    training: Mapping[str, Vertical]
    held_out: Mapping[str, Vertical]

    def population(self, vertical: str) -> Vertical:
        """The vertical of that name."""
        return {**self.training, **self.held_out}[vertical]


_BY_NAME: Mapping[str, Family] = {
    module.WORKFLOW: Family(simulator, module.SEGMENTS, module.TRAINING, module.HELD_OUT)
    for module, simulator in (
        (retention_offer, retention_offer.RetentionOffer),
        (support_routing, support_routing.SupportRouting),
        (fraud_step_up, fraud_step_up.FraudStepUp),
        (onboarding, onboarding.Onboarding),
        (lead_qualification, lead_qualification.LeadQualification),
        (gripper_calibration, gripper_calibration.GripperCalibration),
        (aisle_navigation, aisle_navigation.AisleNavigation),
    )
}

FAMILIES: tuple[str, ...] = tuple(_BY_NAME)
"""Workflow names."""

TRAINING_VERTICALS: Mapping[str, tuple[str, ...]] = {
    name: tuple(one.training) for name, one in _BY_NAME.items()
}
"""The verticals that may be trained and tuned on, by workflow."""

HELD_OUT_VERTICALS: Mapping[str, tuple[str, ...]] = {
    name: tuple(one.held_out) for name, one in _BY_NAME.items()
}
"""The verticals that only evaluations may play, by workflow."""


def verticals(workflow: str) -> tuple[str, ...]:
    """All verticals of a workflow, those for training first. Raises ValueError."""
    _refuse_unknown("workflow", workflow, FAMILIES)
    return TRAINING_VERTICALS[workflow] + HELD_OUT_VERTICALS[workflow]


def family_of(workflow: str) -> Family:
    """The family of a workflow. Raises ValueError."""
    _refuse_unknown("workflow", workflow, FAMILIES)
    return _BY_NAME[workflow]


def family_spec(workflow: str) -> WorkflowSpec:
    """The workflow as its file declares it. Raises ValueError."""
    _refuse_unknown("workflow", workflow, FAMILIES)
    return _load(workflow)


@lru_cache
def _load(workflow: str) -> WorkflowSpec:
    return load_workflow(FILES / f"{workflow}.yaml")


def build_accounts(
    workflow: str,
    vertical: str,
    *,
    accounts: int,
    steps: int,
    rng: np.random.Generator,
    options: Options = Options(),  # noqa: B008
    spec: WorkflowSpec | None = None,
) -> SimulatedAccounts:
    """`accounts` accounts of one vertical, `steps` decisions each; reset them before playing.

    The same seed gives the same accounts and the same luck whatever is played and whatever the
    options ask for. `spec` is another version of the workflow's file: policy, horizon, feedback and
    target are its own, and what the simulator knows by heart must be the family's.

    Raises ValueError naming the field and what was expected.
    """
    _refuse_unknown("vertical", vertical, verticals(workflow))
    refuse_impossible_trial(accounts=accounts, steps=steps, options=options)
    family = family_of(workflow)
    own = family_spec(workflow)
    if spec is not None:
        _refuse_other(spec, own)
    return family.simulator(
        spec or own, vertical, family.population(vertical), accounts, steps, rng, options
    )


def _refuse_unknown(field: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise ValueError(f"{field}: expected one of {', '.join(known)}, got {name!r}")


def _refuse_other(spec: WorkflowSpec, own: WorkflowSpec) -> None:
    """Refuses a spec whose decisions are not those that the simulator knows."""
    for field in ("workflow", "episodes", "actions", "context", "guardrails", "fallback", "reward"):
        if getattr(spec, field) != getattr(own, field):
            raise ValueError(f"spec: expected the {field} that {own.workflow}.yaml declares")
