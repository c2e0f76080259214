"""What is alarming about an account or a crowd of them, why that may be, and what to do about it.

Pure: what is looked at comes in, findings go out. What follows from one is the workflow's to say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Literal, NamedTuple

from contract.spec import WorkflowSpec
from guardrails.memory_health import Sickness
from guardrails.reward_shift import ACCOUNT, find_shift, is_over
from guardrails.streams import BATCH, Seen, Stream, collapse_of, shift_of

Kind = Literal["reward_shift", "exploration_collapse", "memory_health"]
Scope = Literal["account", "workflow", "bucket"]
Numbers = dict[str, float]

RECENT = 30
"""Interactions of an account that say what it does now."""
STUCK = 0.01
"""A mean surprise of recent decisions, as a share of the most there can be, that is certainty."""
MOSTLY = 0.5
"""A share that explains."""


class Finding(NamedTuple):
    """One thing that is alarming."""

    kind: Kind
    scope: Scope
    bucket: str
    """Of the scope `bucket`; else empty."""
    position: int
    """The account's interaction, or the stream's interactions in all, at which it was found."""
    cause: str
    suggestion: str
    numbers: Numbers
    by_fallback: bool = False
    """Whether nothing but more decisions by the fallback is behind it."""


class Acted(NamedTuple):
    """One interaction of an account, and what was done."""

    seen: Seen
    action: str


def consequence(spec: WorkflowSpec, finding: Finding) -> str:
    """What the workflow has follow from it; for what the fallback brought about, falling back is no
    remedy."""
    said = str(getattr(getattr(spec.alarms, finding.kind), finding.scope))
    return "alert" if finding.by_fallback and said == "fall_back" else said


def of_rewards(past: Sequence[Acted]) -> Finding | None:
    """A fall of one account's rewards, among the interactions given, oldest first: of what the
    policy did, for what the fallback earns says nothing of the account's memory. Raises ImportError
    without river."""
    past = [one for one in past if one.seen.by_policy]
    shift = find_shift([one.seen.reward for one in past], ACCOUNT)
    if shift is None:
        return None
    since = past[shift.began : shift.at + 1]
    numbers = {
        "before": shift.before,
        "after": shift.after,
        "began": past[shift.began].seen.position,
    }
    action, times = Counter(one.action for one in since).most_common(1)[0]
    if times / len(since) > 0.8:
        cause = f"{action} is still served and no longer pays"
        suggestion = "reset the account's memory if it does not move on by itself"
    else:
        cause = "whatever is served pays less: the account or its surroundings have changed"
        suggestion = "look at what changed for it; reset its memory if it does not recover"
    return Finding("reward_shift", "account", "", past[shift.at].seen.position, cause, suggestion,
                   numbers)  # fmt: skip


def of_exploration(spec: WorkflowSpec, past: Sequence[Acted], phase: str) -> Finding | None:
    """An account that is certain of what does not pay, by its last interactions."""
    recent = past[-RECENT:]
    if len(recent) < RECENT or phase == "adapted":
        return None
    if not all(one.seen.by_policy for one in recent):
        return None
    surprise = sum(one.seen.surprise for one in recent) / RECENT
    reward = sum(one.seen.reward for one in recent) / RECENT
    width = spec.reward.max - spec.reward.min
    wanted = (spec.adaptation.target - spec.adaptation.hysteresis - spec.reward.min) / width
    if surprise >= STUCK or reward >= wanted:
        return None
    if _share(one.seen.limited for one in recent) > MOSTLY:
        cause = "limits leave hardly a choice"
        suggestion = "look at acclimate_limits_applied_total: the limits, not the policy, decide"
    else:
        cause = "the policy is certain, and what it does pays less than the target"
        suggestion = "reset the account's memory"
    numbers = {"surprise": surprise, "reward": reward, "target": wanted}
    return Finding("exploration_collapse", "account", "", recent[-1].seen.position, cause,
                   suggestion, numbers)  # fmt: skip


def of_memory(sickness: Sickness | None, position: int) -> Finding | None:
    """A memory that is not like those of training."""
    if sickness is None:
        return None
    numbers: Numbers = {}
    if sickness.found is not None and sickness.limit is not None:
        numbers = {"found": sickness.found, "limit": sickness.limit}
    causes = {
        "not_finite": "the network learned something that is no number",
        "norm": "its numbers are larger than training ever made them",
        "saturation": "its units are at their ends and cannot move",
        "distance": "what this account went through is unlike training",
    }
    suggestion = (
        "rebuild the memory from the ledger; if that is as bad, reset it, and look whether contexts"
        " and rewards keep to the ranges that the workflow declares"
    )
    return Finding("memory_health", "account", "", position, causes[sickness.measure], suggestion,
                   numbers)  # fmt: skip


def of_stream(
    stream: Stream,
    bucket: str,
    buckets: dict[str, Stream],
    *,
    fallen: Collection[str] = (),
    rewards: bool,
) -> list[Finding]:
    """What is alarming about a crowd of accounts: a whole workflow, with its buckets, or one.
    `fallen` are buckets whose fall is told of already.
    Without `rewards` no fall of theirs is looked for; with them it raises ImportError without
    river."""
    scope: Scope = "bucket" if bucket else "workflow"
    found = []
    shift = shift_of(stream) if rewards else None
    if shift is not None:
        numbers = {"before": shift.before, "after": shift.after}
        numbers["interactions"] = (shift.at - shift.began + 1) * BATCH
        since, until = stream.fell_back[shift.began :], stream.fell_back[: shift.began]
        by_fallback = _mean(since) - _mean(until) > 0.25
        if by_fallback:
            cause = (
                f"the fallback decides {_mean(since):.0%} of the time, before {_mean(until):.0%}"
            )
            suggestion = "see acclimate_fallbacks_total for why; the policy is not what fell"
        elif worst := _worst(buckets, fallen):
            cause = f"rewards fell where {worst}, and not elsewhere"
            suggestion = f"look at what changed where {worst}; let it fall back there meanwhile"
        else:
            cause = "what actions earn has changed for all alike"
            suggestion = "look at rewards and their source first; then fall back, and train anew"
        found.append(Finding("reward_shift", scope, bucket, shift.at, cause, suggestion, numbers,
                             by_fallback))  # fmt: skip
    collapse = collapse_of(stream)
    if collapse is not None:
        numbers = {"before": collapse.before, "after": collapse.after}
        if collapse.limited > MOSTLY:
            cause = f"limits touch {collapse.limited:.0%} of new accounts' decisions"
            suggestion = "see acclimate_limits_applied_total: which limit leaves no choice"
        elif collapse.before <= 4 * collapse.after:
            cause = "the policy hardly ever explored here: it is certain from the start"
            suggestion = "see whether contexts vary and rewards use their range; try another policy"
        else:
            cause = "the policy became certain about new accounts: what they bring has changed"
            suggestion = "compare contexts of now and before; fall back if rewards fell too"
        found.append(Finding("exploration_collapse", scope, bucket, len(stream.surprises), cause,
                             suggestion, numbers))  # fmt: skip
    return found


def is_recovered(numbers: Numbers, since: Sequence[float]) -> bool:
    """Whether the rewards since a fall have made good most of it."""
    return bool(since) and is_over(numbers["before"], numbers["after"], since)


def _worst(buckets: dict[str, Stream], fallen: Collection[str]) -> str | None:
    """The buckets whose rewards fell, where some fell and some did not."""
    falls = {name: shift_of(stream) for name, stream in buckets.items()}
    fell = sorted(name for name, one in falls.items() if one is not None or name in fallen)
    return " and ".join(fell) if 0 < len(fell) < len(falls) else None


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _share(values: Iterable[bool]) -> float:
    known = list(values)
    return sum(known) / len(known)
