"""The evaluation of rollouts: gather what came, ask for the verdict, do what it says.

A plain function of the service and of now; idempotent, safe to kill, and safe to run twice at
once: every step is a transaction, and a transition is made from the revision that was judged, or
not at all.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from sqlalchemy import Connection, select

from contract.encode import ContextError, check_context
from guardrails.distribution import are_sound
from guardrails.rollouts.cohorts import Comparison, compare
from guardrails.rollouts.verdict import Evidence, Verdict, bounds, evaluate
from service.catalog import Catalog, Workflow
from service.fault_points import reach
from service.ledger.ledger import Ledger
from service.ledger.records import AccountKey, Decision, LedgerUnavailableError
from service.ledger.rows import to_decision
from service.ledger.tables import decisions, of_account
from service.memory.store import MemoryUnavailableError
from service.metrics import Metrics
from service.recall import Recall, UnreadablePastError
from service.rollouts.gather import REWARD, Gatherer, Holdout, read_cohorts
from service.rollouts.progress import Progress, read_progress, write_progress
from service.rollouts.records import EVALUATOR, FALLBACK, Action, Rollout
from service.rollouts.store import (
    change,
    one_at_a_time,
    read_rollouts,
    read_transitions,
    standing_above,
)
from service.rollouts.traffic import Candidate

SHADOWED = 50
"""Decisions that one run makes again in shadow at most: each may need a replay."""
LONGEST_GAP_US = 600_000_000
"""Between two looks; what is longer counts as downtime."""
MOST_PAGES = 200
"""Pages of accounts that a run looks at before it judges."""

CHANGED = "changed_meanwhile"
"""The reason to hold what somebody else has changed since it was read."""

log = logging.getLogger(__name__)


class Judged(NamedTuple):
    """One rollout and its verdict."""

    rollout: Rollout
    """As it is after what followed."""
    verdict: Verdict
    above: tuple[Rollout, ...] = ()
    """Begun after it, and taken back before it."""


class _Shadow(NamedTuple):
    decisions: int = 0
    failures: int = 0
    agreement: float = 0.0


async def evaluate_rollout(
    ledger: Ledger,
    recall: Recall,
    catalog: Catalog,
    metrics: Metrics,
    candidate: Candidate,
    holdout: Holdout,
    now_us: int,
) -> Judged:
    """Gathers the evidence on one rollout as of now, and does what the verdict says: at most one
    transition, as the next stage has to be baked in its own right. Raises LedgerUnavailableError
    and MemoryUnavailableError."""
    rollout = candidate.rollout
    transitions = await ledger.read(partial(read_transitions, rollout_id=rollout.rollout_id))
    gatherer = Gatherer(candidate, holdout, transitions, partial(catalog.spec, rollout.workflow))
    fresh: list[AccountKey] = []
    after = None
    for _ in range(MOST_PAGES):
        page = await ledger.alone(partial(gatherer.page, after=after))
        reach("rollouts.gathered")
        fresh += page.fresh
        after = page.end
        if after is None:
            break
    shadow = _Shadow()
    if rollout.current.percent == 0 and candidate.workflow is not None:
        shadow = await _shadow(ledger, recall, candidate.workflow, fresh, rollout.created_at_us)
    judged = await ledger.alone(partial(_judge, rollout=rollout, shadow=shadow, now_us=now_us))
    reach("rollouts.judged")
    if judged.rollout.revision != rollout.revision and judged.verdict.reason != CHANGED:
        for one in (*judged.above, judged.rollout):
            metrics.rollout_transitions.labels(one.workflow, judged.verdict.kind).inc()
            log.warning(
                "rollout %s of %s on %s: %s: %s",
                one.rollout_id,
                one.policy,
                one.workflow,
                judged.verdict.kind,
                one.reason,
            )
    return judged


def waits_for_approval(connection: Connection, rollout_id: str) -> bool:
    """Whether the last verdict was that nothing but an approval is missing."""
    return read_progress(connection, rollout_id).reason == "awaiting_approval"


def _judge(connection: Connection, rollout: Rollout, shadow: _Shadow, now_us: int) -> Judged:
    """The verdict, written down, and what follows from it, in one transaction."""
    one_at_a_time(connection)
    found = read_rollouts(connection, rollout_id=rollout.rollout_id)[0]
    progress = read_progress(connection, rollout.rollout_id)
    if found.revision != rollout.revision:  # somebody else was faster: the next run sees it
        return Judged(found, Verdict("hold", CHANGED, "it was changed meanwhile"))
    progress.enter(rollout)
    progress.shadow_decisions += shadow.decisions
    progress.shadow_failures += shadow.failures
    progress.shadow_agreement += shadow.agreement
    _watch(progress, rollout, now_us)
    evidence = _evidence(connection, rollout, progress)
    verdict = evaluate(rollout.schedule, evidence, now_us)
    progress.verdict, progress.reason, progress.detail = verdict
    progress.comparisons = _shown(rollout, evidence)
    write_progress(connection, rollout.rollout_id, progress)
    action = _following(rollout, verdict)
    if action is None:
        return Judged(rollout, verdict)
    why = f"{verdict.reason}: {verdict.detail}"
    above = _take_back_above(connection, rollout, why, now_us) if action == "roll_back" else ()
    after = change(
        connection,
        rollout.rollout_id,
        action,
        EVALUATOR,
        why,
        now_us,
        expected=rollout.revision,
        evidence=json.dumps(progress.comparisons),
    )
    return Judged(after or rollout, verdict, above)


def _take_back_above(
    connection: Connection, rollout: Rollout, why: str, now_us: int
) -> tuple[Rollout, ...]:
    """Takes back what was begun after a rollout that has to go, the last first: what stands on it
    would have nothing to fall back to."""
    told = f"begun on {rollout.policy}, which is taken back: {why}"
    gone = []
    for one in standing_above(connection, rollout):
        after = change(connection, one.rollout_id, "roll_back", EVALUATOR, told, now_us)
        gone.append(after or one)
    return tuple(gone)


def _watch(progress: Progress, rollout: Rollout, now_us: int) -> None:
    """Counts as downtime what nobody looked at."""
    since = max(progress.watched_at_us, rollout.stage_since_us)
    progress.unwatched_us += max(now_us - since - LONGEST_GAP_US, 0)
    progress.watched_at_us = now_us


def _following(rollout: Rollout, verdict: Verdict) -> Action | None:
    if verdict.kind == "rollback":
        return "roll_back"
    if rollout.status != "running":  # of one that is paused or complete, only what is bad counts
        return None
    actions: dict[str, Action] = {"advance": "advance", "pause": "pause"}
    return actions.get(verdict.kind)


def _evidence(connection: Connection, rollout: Rollout, progress: Progress) -> Evidence:
    cohorts = read_cohorts(connection, rollout)
    candidate, control, held_out = (cohorts[one] for one in ("candidate", "control", "holdout"))
    if rollout.against == FALLBACK:  # both are on the fallback
        control = {name: control[name] + held_out[name] for name in control}
    percent = rollout.current.percent
    # At 100 % nobody is the control any more, and what came before says nothing new.
    last = rollout.stage == len(rollout.schedule.stages) - 1
    others = held_out if last and held_out[REWARD].accounts else control
    return Evidence(
        stage=rollout.stage,
        stage_since_us=rollout.stage_since_us,
        unwatched_us=progress.unwatched_us,
        approved=rollout.approved,
        stage_candidate_accounts=progress.stage_candidates,
        stage_control_accounts=progress.stage_controls,
        stage_interactions=progress.stage_interactions,
        stage_share=percent / 100 if percent else None,
        stage_due=progress.stage_due,
        stage_served=progress.stage_served,
        stage_alarmed=progress.stage_alarmed,
        reward=compare(candidate[REWARD], control[REWARD]),
        fallback=None
        if rollout.against == FALLBACK
        else compare(candidate[REWARD], held_out[REWARD]),
        guardrails={
            one.name: compare(candidate[f"guardrail:{one.name}"], others[f"guardrail:{one.name}"])
            for one in rollout.schedule.guardrails
        },
        decisions=progress.decisions,
        failures=progress.failures,
        shadow_decisions=progress.shadow_decisions,
        shadow_failures=progress.shadow_failures,
    )


def _shown(rollout: Rollout, evidence: Evidence) -> dict[str, dict[str, float]]:
    """What the verdict rested on, in numbers."""
    found: dict[str, Comparison | None] = {
        REWARD: evidence.reward,
        FALLBACK: evidence.fallback,
        **{f"guardrail:{name}": one for name, one in evidence.guardrails.items()},
    }
    shown = {}
    for name, one in found.items():
        if one is not None:
            lower, upper = bounds(rollout.schedule, one)
            finite = {"lower": lower, "upper": upper} if np.isfinite(upper) else {}
            shown[name] = one._asdict() | finite
    return shown


async def _shadow(
    ledger: Ledger, recall: Recall, served: Workflow, keys: Sequence[AccountKey], since_us: int
) -> _Shadow:
    """Makes the newest decision of some accounts again on the candidate, from its own memory of
    what came before; and has it learn what came since."""
    made, failed, agreed = 0, 0, 0.0
    for key in keys[:SHADOWED]:
        decision = await ledger.read(partial(_newest, key=key, since_us=since_us))
        if decision is None or decision.head is None:
            continue
        probability = await _made_again(recall, served, decision)
        if probability is not None and not await _learned(ledger, recall, served, key):
            probability = None
        made += 1
        failed += probability is None
        agreed += probability or 0.0
        await asyncio.sleep(0)  # others' turn
    return _Shadow(made, failed, agreed)


def _newest(connection: Connection, key: AccountKey, since_us: int) -> Decision | None:
    columns = decisions.c
    query = (
        select(decisions)
        .where(*of_account(decisions, key), columns.created_at_us >= since_us)
        .order_by(columns.created_at_us.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    return None if row is None else to_decision(row)


async def _made_again(recall: Recall, served: Workflow, decision: Decision) -> float | None:
    """The candidate's probability of what was served; None where it failed."""
    try:
        context, _ = check_context(served.spec, decision.context)
        fold = await recall.fresh(served, decision.key, decision.head, from_snapshots=True)
        mask = served.limits.allow(context, decision.asked_for).mask[None]
        raw = served.probabilities([fold.memory], [context], mask).astype(np.float64)
    except ContextError:  # made under an older spec: nothing the candidate is to blame for
        return 0.0
    except (LedgerUnavailableError, MemoryUnavailableError):  # not the candidate's fault
        raise
    except UnreadablePastError:
        return None
    except Exception as error:
        log.error("policy %s failed in shadow: %s", served.policy_name, type(error).__name__)
        return None
    if not are_sound(raw, mask).all():
        return None
    return float(raw[0, served.spec.action_ids.index(decision.action)] / raw.sum())


async def _learned(ledger: Ledger, recall: Recall, served: Workflow, key: AccountKey) -> bool:
    """Whether the candidate has learned an account up to its head; what keeps the ledger or the
    memory store from telling is raised, and is not its fault."""
    account = await ledger.account(key)
    if account is None:  # erased meanwhile
        return True
    try:
        await recall.at_head(served, key, account.head)
    except (LedgerUnavailableError, MemoryUnavailableError):
        raise
    except Exception as error:
        log.error("policy %s cannot learn in shadow: %s", served.policy_name, type(error).__name__)
        return False
    return True
