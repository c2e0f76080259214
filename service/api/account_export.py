"""Everything that is known of one account, as one JSON document, written page by page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from pydantic_core import to_json

from service.api.account_schemas import (
    ExportedAccount,
    ExportedDecision,
    ExportedFeedback,
    ExportedGeneration,
    ExportedSnapshot,
)
from service.api.alarm_schemas import alarm_record
from service.api.answers import feedback_record
from service.clock import to_moment, to_moment_or_none
from service.ledger.alarms import list_alarms
from service.ledger.records import Account, Decision, Feedback, Generation, Snapshot
from service.ledger.scan import (
    Scope,
    count_decisions,
    place_of,
    read_decisions,
    read_generations,
    read_snapshots,
)
from service.runtime import Service

PAGE = 500
"""Decisions read at a time."""
MOST_ALARMS = 1_000
"""Of an account, the newest: at most one of a kind is open."""


async def exported(service: Service, account: Account, now_us: int) -> AsyncIterator[str]:
    """The pieces of the document, an `AccountExport`. Raises LedgerUnavailableError, also midway:
    what was sent until then is no whole document."""
    key, ledger = account.key, service.ledger
    opened = await ledger.read(read_generations(key))
    kept = await ledger.read(read_snapshots(key))
    alarms = await ledger.read(
        list_alarms(
            key.tenant,
            workflow=key.workflow,
            account_id=key.account_id,
            open_only=False,
            limit=MOST_ALARMS,
        )
    )
    head = {
        **key._asdict(),
        "exported_at": to_moment(now_us),
        "account": _account(account, await ledger.read(count_decisions(Scope(*key)))),
        "generations": [_generation(one) for one in opened],
        "alarms": [alarm_record(one) for one in alarms],
        "snapshots": [_snapshot(one) for one in kept],
    }
    yield "{"
    for name, value in head.items():
        yield f'"{name}":{to_json(value).decode()},'
    yield '"decisions":['
    versions: set[int] = set()
    after, separator = None, ""
    while page := await ledger.read(read_decisions(Scope(*key), after, PAGE)):
        for decision, came_of_it in page:
            versions.add(decision.spec_version)
            yield separator + _decision(decision, came_of_it).model_dump_json()
            separator = ","
        after = place_of(page[-1][0])
    yield '],"specs":{'
    separator = ""
    for version in sorted(versions):
        spec = await asyncio.to_thread(service.catalog.spec, key.workflow, version)
        yield f'{separator}"{version}":{spec.model_dump_json(by_alias=True)}'
        separator = ","
    yield "}}"


def _account(account: Account, made: int) -> ExportedAccount:
    return ExportedAccount(
        decisions=made,
        interactions=account.head.position,
        generation=account.head.generation,
        phase=account.adaptation.phase,
        adapted_at=account.adaptation.adapted_at,
        recent_rewards=list(account.adaptation.recent),
        created_at=to_moment(account.created_at_us),
        updated_at=to_moment(account.updated_at_us),
    )


def _generation(opened: Generation) -> ExportedGeneration:
    return ExportedGeneration(
        generation=opened.generation,
        reason=opened.reason,
        position=opened.position,
        head_position=opened.head_position,
        decision_id=opened.decision_id,
        opened_at=to_moment(opened.opened_at_us),
    )


def _snapshot(kept: Snapshot) -> ExportedSnapshot:
    return ExportedSnapshot(
        policy=kept.policy,
        digest=kept.digest,
        generation=kept.head.generation,
        position=kept.head.position,
        bytes=len(kept.memory),
        created_at=to_moment(kept.created_at_us),
    )


def _decision(decision: Decision, came_of_it: list[Feedback]) -> ExportedDecision:
    assert decision.head is not None
    return ExportedDecision(
        decision_id=decision.decision_id,
        episode_id=decision.episode_id,
        spec_version=decision.spec_version,
        policy=decision.policy,
        context=decision.context,
        asked_for=decision.asked_for,
        actions_left=decision.actions_left,
        deviates=decision.deviates,
        action=decision.action,
        probability=decision.probability,
        draw=decision.draw,
        reason=decision.reason,
        limits=decision.limits,
        mode=decision.mode,
        memory_generation=decision.head.generation,
        memory_position=decision.head.position,
        created_at=to_moment(decision.created_at_us),
        expires_at=to_moment(decision.expires_at_us),
        activated_at=to_moment_or_none(decision.activated_at_us),
        feedback=[_feedback(one) for one in came_of_it],
    )


def _feedback(given: Feedback) -> ExportedFeedback:
    return ExportedFeedback(**dict(feedback_record(given)), folded_episode_end=given.folded_end)
