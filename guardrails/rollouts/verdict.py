"""The verdict on a rollout: advance, hold, pause or roll back, and why. No clock, no I/O.

The first thing that is true decides: what is bad, then what is missing, then who is to be asked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from guardrails.rollouts.cohorts import Comparison
from guardrails.rollouts.schedule import LEAST_ACCOUNTS, Schedule, Stage
from guardrails.rollouts.sequential import log_sample_ratio_evidence, radius

Kind = Literal["advance", "hold", "pause", "rollback"]

UNSERVED_SECONDS = 3_600.0
"""After which a stage in which others decide for the candidate is paused."""
LEAST_DUE = 100
"""Decisions before that is believed."""


class Verdict(NamedTuple):
    """What follows from what is known."""

    kind: Kind
    reason: str
    """A word that programs may rely on."""
    detail: str
    """The same for people, with the numbers."""


@dataclass(frozen=True)
class Evidence:
    """Where a rollout stands and all that its verdict depends on."""

    stage: int
    """Index of the stage it is in."""
    stage_since_us: int
    """When that began, in microseconds since the epoch."""
    unwatched_us: int = 0
    """How long nobody was looking since then: downtime is nobody's lack of traffic."""
    approved: bool = False
    """Whether the next stage was approved."""
    stage_candidate_accounts: int = 0
    """Accounts with an interaction in this stage."""
    stage_control_accounts: int = 0
    stage_interactions: int = 0
    """Of the candidate's accounts, in this stage."""
    stage_share: float | None = None
    """What share of these accounts should be the candidate's, at even odds; None: not to be
    checked."""
    stage_due: int = 0
    """Of these interactions, those after each account's first on the candidate's side."""
    stage_served: int = 0
    """Of those, the ones that the candidate decided, or failed to."""
    stage_alarmed: float = 0.0
    """The share of this stage's interactions that an alarm had the fallback decide, of the cohort
    that has more."""
    reward: Comparison | None = None
    """Of the reward scaled to [0, 1], over the whole rollout."""
    fallback: Comparison | None = None
    """Of the reward against the hold-out, where the control is another policy."""
    guardrails: Mapping[str, Comparison | None] = field(default_factory=dict)
    """By metric."""
    decisions: int = 0
    """That the candidate was asked for over the whole rollout."""
    failures: int = 0
    """At which its network failed."""
    shadow_decisions: int = 0
    """Decisions of others that it made again in shadow."""
    shadow_failures: int = 0


def evaluate(schedule: Schedule, evidence: Evidence, now_us: int) -> Verdict:
    """The verdict at `now_us`, microseconds since the epoch."""
    stage = schedule.stages[evidence.stage]
    bad = _bad(schedule, evidence)
    if bad is not None:
        return bad
    if evidence.stage == len(schedule.stages) - 1:
        return Verdict("hold", "complete", "every account that is not held out is on the candidate")
    missing = (
        _diluted(schedule, evidence)
        or _missing(stage, evidence)
        or _unproven(schedule, stage, evidence)
    )
    if missing is not None:
        age_us = now_us - evidence.stage_since_us - evidence.unwatched_us
        patience = stage.pause_after_seconds
        if missing.reason == "not_served" and evidence.stage_due >= LEAST_DUE:
            patience = min(patience, UNSERVED_SECONDS)
        if age_us >= patience * 1e6:
            days = age_us / 86_400e6
            return Verdict("pause", missing.reason, f"{missing.detail}, after {days:.1f} days")
        return missing
    if stage.approval and not evidence.approved:
        return Verdict("hold", "awaiting_approval", "everything else holds: it waits for approval")
    following = schedule.stages[evidence.stage + 1]
    return Verdict("advance", "passed", f"on to {following.percent:g} %: {_shown(evidence.reward)}")


def bounds(schedule: Schedule, comparison: Comparison) -> tuple[float, float]:
    """Lower and upper bound of the true difference, each true at every look but with its alpha."""
    error = comparison.standard_error
    return (
        comparison.difference - radius(error, schedule.alpha_not_worse, schedule.scale),
        comparison.difference + radius(error, schedule.alpha_worse, schedule.scale),
    )


def _bad(schedule: Schedule, evidence: Evidence) -> Verdict | None:
    """What speaks against going on at all."""
    if evidence.shadow_failures:
        detail = f"it failed at {evidence.shadow_failures} of {evidence.shadow_decisions} decisions"
        return Verdict("rollback", "shadow_failed", detail)
    if _fails_too_often(schedule, evidence):
        detail = f"it failed at {evidence.failures} of {evidence.decisions} decisions"
        return Verdict("rollback", "failing", detail)
    if evidence.reward is not None and _enough(evidence.reward):
        _, upper = bounds(schedule, evidence.reward)
        if upper < 0:
            detail = f"the reward is worse: {_shown(evidence.reward)}, at most {upper:+.4f}"
            return Verdict("rollback", "worse", detail)
    below = evidence.fallback
    if below is not None and _enough(below):
        error = radius(below.standard_error, schedule.alpha_fallback, schedule.scale)
        if below.difference + error < 0:
            detail = f"the reward is below the fallback's: {_shown(below)}"
            return Verdict("rollback", "below_fallback", detail)
    alpha = _alpha_each(schedule)
    for metric in schedule.guardrails:
        found = evidence.guardrails.get(metric.name)
        if found is None or not _enough(found):
            continue
        lower = found.difference - radius(found.standard_error, alpha, schedule.scale)
        if lower > metric.margin:
            detail = f"{metric.name} is above the control's: {_shown(found)}, at least {lower:+.4f}"
            return Verdict("rollback", "guardrail", detail)
    share = evidence.stage_share
    accounts = evidence.stage_candidate_accounts + evidence.stage_control_accounts
    if share is not None and 0 < share < 1 and accounts:
        found_log = log_sample_ratio_evidence(evidence.stage_candidate_accounts, accounts, share)
        if found_log >= -math.log(schedule.alpha_sample_ratio):
            detail = (
                f"{evidence.stage_candidate_accounts} of {accounts} accounts are the candidate's, "
                f"expected {100 * share:.3g} %: the cohorts cannot be compared"
            )
            return Verdict("pause", "sample_ratio", detail)
    return None


def _alpha_each(schedule: Schedule) -> float:
    """Of failures, and of each metric twice: against the control, and at 100 % the hold-out."""
    return schedule.alpha_guardrails / (1 + 2 * len(schedule.guardrails))


def _fails_too_often(schedule: Schedule, evidence: Evidence) -> bool:
    """Whether more fail than may: a bet on a rate ten times as high has grown by 1 / alpha, which
    it ever does with probability at most alpha (Ville 1939)."""
    most, failed = schedule.most_failures, evidence.failures
    if most in (0, 1):
        return most == 0 and failed > 0
    bet = min(10 * most, (1 + most) / 2)
    won = failed * math.log(bet / most)
    lost = (evidence.decisions - failed) * math.log((1 - bet) / (1 - most))
    return won + lost >= -math.log(_alpha_each(schedule))


def _diluted(schedule: Schedule, evidence: Evidence) -> Verdict | None:
    """What keeps this stage's interactions from being the candidate's own work."""
    due, served = evidence.stage_due, evidence.stage_served
    if served < schedule.least_served * due:
        detail = f"it decided {served} of {due} decisions of its accounts in this stage itself"
        return Verdict("hold", "not_served", detail)
    if evidence.stage_alarmed > schedule.most_alarmed:
        share = 100 * evidence.stage_alarmed
        detail = f"alarms had the fallback decide {share:.3g} % of a cohort in this stage"
        return Verdict("hold", "alarmed", detail)
    return None


def _missing(stage: Stage, evidence: Evidence) -> Verdict | None:
    """What has not been seen yet."""
    if stage.percent == 0:
        if evidence.shadow_decisions < stage.bake_interactions:
            detail = f"{evidence.shadow_decisions} of {stage.bake_interactions:g} shadow decisions"
            return Verdict("hold", "baking", detail)
        return None
    fewest = min(evidence.stage_candidate_accounts, evidence.stage_control_accounts)
    if fewest < stage.min_accounts:
        detail = f"{fewest} of {stage.min_accounts} accounts in the smaller cohort of this stage"
        return Verdict("hold", "too_few_accounts", detail)
    baked = evidence.stage_interactions / max(evidence.stage_candidate_accounts, 1)
    if baked < stage.bake_interactions:
        detail = f"{baked:.2f} of {stage.bake_interactions:g} interactions an account in this stage"
        return Verdict("hold", "baking", detail)
    return None


def _unproven(schedule: Schedule, stage: Stage, evidence: Evidence) -> Verdict | None:
    """What the stage requires and the bounds do not show yet."""
    if stage.requires == "nothing_bad":
        return None
    found = evidence.reward
    if found is None or not _enough(found):
        return Verdict("hold", "inconclusive", "too few accounts to compare the rewards")
    lower, _ = bounds(schedule, found)
    if lower <= -schedule.margin:
        detail = f"{_shown(found)}, at least {lower:+.4f}, expected above {-schedule.margin:+.4f}"
        return Verdict("hold", "inconclusive", detail)
    return None


def _enough(found: Comparison) -> bool:
    return min(found.candidate_accounts, found.control_accounts) >= LEAST_ACCOUNTS


def _shown(found: Comparison | None) -> str:
    if found is None:
        return "nothing to compare yet"
    return f"{found.candidate_mean:.4f} against {found.control_mean:.4f}"
