"""Off-policy evaluation of a bundle from an exported ledger, through its ONNX graphs. Never torch.

The question answered: at the decisions that were made, after the histories in which they were made,
what would this policy have earned? Those histories are the doing of whoever decided then, so it is
not what the policy would earn if it had decided from the start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.policy import OnnxPolicy
from training import off_policy
from training.ledger_records import DRAWN, Found, Log
from training.ledger_rows import LogError
from training.logged_policy import pasts, probabilities
from training.off_policy import Estimate, Evaluation
from training.reward_model import FOLDS, predictions

Array = NDArray[Any]

ESTIMATORS = ("logged", "ips", "snips", "dr")
"""In the order in which they are shown."""


@dataclass(frozen=True)
class Settings:
    """How it is evaluated."""

    level: float = 0.95
    """Of the intervals."""
    weight_bound: float = 20.0
    """Weights above it are counted."""
    seed: int = 0
    """Which accounts predict which."""
    greedy: bool = False
    blind: bool = False


@dataclass(frozen=True)
class Result:
    """What a log says of a policy, and of itself."""

    policy: str
    workflow: str
    evaluation: Evaluation
    found: Found
    settings: Settings

    @property
    def warnings(self) -> list[str]:
        """What to know before the figures are believed."""
        return [*notes(self.found), *self.evaluation.overlap.warnings()]


def evaluate(
    policy: OnnxPolicy,
    log: Log,
    settings: Settings,
    on_decisions: Callable[[int], None] = lambda count: None,
) -> Result:
    """The estimates. Raises LogError when the log has nothing to estimate from."""
    made = log.decisions
    at = scored(log)
    target = probabilities(
        policy, log, greedy=settings.greedy, blind=settings.blind, on_decisions=on_decisions
    )
    predicted = predictions(made, pasts(log), at, np.random.default_rng(settings.seed))
    evaluation = off_policy.evaluate(
        account=made.account[at],
        action=made.action[at],
        reward=made.reward[at],
        logged=made.probability[at],
        target=target[at],
        predicted=predicted,
        level=settings.level,
        weight_bound=settings.weight_bound,
    )
    return Result(policy.manifest.policy, log.spec.workflow, evaluation, log.found, settings)


def scored(log: Log) -> NDArray[np.int64]:
    """The decisions that estimates are made from: drawn by a policy, with a probability that can
    be, and with a reward. Raises LogError where those are too few."""
    made = log.decisions
    given = made.probability
    at = np.flatnonzero(made.drawn & (given > 0) & (given <= 1) & ~np.isnan(made.reward))
    accounts = np.unique(made.account[at]).size
    if accounts < 2 * FOLDS:
        raise LogError(
            f"expected decisions of at least {2 * FOLDS} accounts that a policy drew by chance, "
            f"logged with their probabilities and fed back, found {accounts}. "
            + " ".join(notes(log.found))
        )
    return at


def notes(found: Found) -> list[str]:
    """What was in the file and is not estimated from, or needs to be known."""
    said = []

    def of(count: int, text: str) -> None:
        if count:
            said.append(f"{count:,} decisions {text}")

    if found.other_workflows:
        of(found.other_workflows.total(), "of other workflows were passed over")
    if found.certain:
        reasons = ", ".join(f"{name} {count:,}" for name, count in found.certain.most_common())
        of(
            found.certain.total(),
            f"had a reason other than '{DRAWN}', and so no chance ({reasons}): learned from, not "
            "estimated on",
        )
    of(
        found.without_feedback,
        "came to no reward: not estimated on; if that depends on the action, estimates are biased",
    )
    of(found.without_probability, "have no probability: learned from, not estimated on")
    of(
        found.impossible_probability,
        "have a probability that is not above 0 and at most 1: learned from, not estimated on",
    )
    of(
        found.forbidden,
        "served what the workflow's limits forbid as it is now: the policy would not",
    )
    if found.incomplete_accounts:
        said.append(
            f"{found.incomplete_accounts:,} accounts: a part of the past is not in the file, and "
            "the policy's memory lacks it"
        )
    return said


def as_json(result: Result) -> dict[str, Any]:
    """The evaluation as plain numbers."""
    evaluation, found = result.evaluation, result.found
    estimates = {name: asdict(estimate(evaluation, name)) for name in ESTIMATORS}
    return {
        "policy": result.policy,
        "workflow": result.workflow,
        "accounts": evaluation.accounts,
        "estimates": estimates,
        "overlap": asdict(evaluation.overlap),
        "found": {
            **asdict(found),
            "other_workflows": dict(found.other_workflows),
            "certain": dict(found.certain),
        },
        "warnings": result.warnings,
        "settings": asdict(result.settings),
    }


def estimate(evaluation: Evaluation, name: str) -> Estimate:
    """The estimate of that name."""
    found: Estimate = getattr(evaluation, name)
    return found
