"""The workflow families there are, and their accounts. Numpy only.

`docs/workflow-families.md` says what each family's latent parameters are and which verticals are
held out: no training, tuning or choice of a peer may touch those.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

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
from training.tasks.workflows.accounts import Accounts
from training.tasks.workflows.simulation import (
    Options,
    SimulatedAccounts,
    refuse_impossible_trial,
)

__all__ = [
    "FAMILIES",
    "HELD_OUT_VERTICALS",
    "TRAINING_VERTICALS",
    "Options",
    "build_accounts",
    "family_spec",
    "verticals",
]

FILES = Path(__file__).parent / "pending"
"""Where the families' workflow files are."""

_SIMULATORS: Mapping[str, type[SimulatedAccounts]] = {
    "retention-offer": retention_offer.RetentionOffer,
    "support-routing": support_routing.SupportRouting,
    "fraud-step-up": fraud_step_up.FraudStepUp,
    "onboarding": onboarding.Onboarding,
    "lead-qualification": lead_qualification.LeadQualification,
    "gripper-calibration": gripper_calibration.GripperCalibration,
    "aisle-navigation": aisle_navigation.AisleNavigation,
}
_MODULES: Mapping[str, ModuleType] = {
    "retention-offer": retention_offer,
    "support-routing": support_routing,
    "fraud-step-up": fraud_step_up,
    "onboarding": onboarding,
    "lead-qualification": lead_qualification,
    "gripper-calibration": gripper_calibration,
    "aisle-navigation": aisle_navigation,
}

FAMILIES: tuple[str, ...] = tuple(_SIMULATORS)
"""Workflow names."""

TRAINING_VERTICALS: Mapping[str, tuple[str, ...]] = {
    name: tuple(module.TRAINING) for name, module in _MODULES.items()
}
"""The verticals that may be trained and tuned on, by workflow."""

HELD_OUT_VERTICALS: Mapping[str, tuple[str, ...]] = {
    name: tuple(module.HELD_OUT) for name, module in _MODULES.items()
}
"""The verticals that only evaluations may play, by workflow."""


def verticals(workflow: str) -> tuple[str, ...]:
    """All verticals of a workflow, those for training first. Raises ValueError."""
    _refuse_unknown("workflow", workflow, FAMILIES)
    return TRAINING_VERTICALS[workflow] + HELD_OUT_VERTICALS[workflow]


def family_spec(workflow: str) -> WorkflowSpec:
    """The workflow as its file declares it. Raises ValueError."""
    _refuse_unknown("workflow", workflow, FAMILIES)
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
) -> Accounts:
    """`accounts` accounts of one vertical, `steps` decisions each; reset them before playing.

    The same seed gives the same accounts and the same luck whatever is played and whatever the
    options ask for. `spec` is another version of the workflow's file: policy, horizon, feedback and
    target are its own, and what the simulator knows by heart must be the family's.

    Raises ValueError naming the field and what was expected.
    """
    _refuse_unknown("vertical", vertical, verticals(workflow))
    refuse_impossible_trial(accounts=accounts, steps=steps, options=options)
    module = _MODULES[workflow]
    own = family_spec(workflow)
    if spec is not None:
        _refuse_other(spec, own)
    population = {**module.TRAINING, **module.HELD_OUT}[vertical]
    return _SIMULATORS[workflow](spec or own, vertical, population, accounts, steps, rng, options)


def _refuse_unknown(field: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise ValueError(f"{field}: expected one of {', '.join(known)}, got {name!r}")


def _refuse_other(spec: WorkflowSpec, own: WorkflowSpec) -> None:
    """Refuses a spec whose decisions are not those that the simulator knows."""
    for field in ("workflow", "episodes", "actions", "context", "guardrails", "fallback", "reward"):
        if getattr(spec, field) != getattr(own, field):
            raise ValueError(f"spec: expected the {field} that {own.workflow}.yaml declares")
