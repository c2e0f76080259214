"""The routes of release people: rollouts, the kill switch, and who did what."""

from __future__ import annotations

import json
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy import Connection

from service.access.roles import Who
from service.api.access import AsOperatorOfAll
from service.api.problems import NotFoundError, documented
from service.api.rollout_schemas import (
    AuditTrail,
    EventRecord,
    EvidenceRecord,
    RolloutBody,
    RolloutList,
    RolloutRecord,
    SwitchBody,
    SwitchList,
    SwitchRecord,
    TransitionRecord,
    VerdictRecord,
    WholeRolloutRecord,
    WhyBody,
)
from service.api.routes import Running, served_workflow
from service.api.schemas import PathId
from service.api.strict import StrictRoute
from service.clock import to_moment
from service.rollouts.progress import Progress, read_progress
from service.rollouts.records import Action, Rollout, Transition
from service.rollouts.store import read_audit, read_rollouts, read_transitions
from service.rollouts.traffic import EVERYTHING
from service.runtime import Service

router = APIRouter(prefix="/v1", route_class=StrictRoute)

OF_ROLLOUT = documented(400, 404, 409, 413, 422, 503)


@router.post("/rollouts", status_code=201, responses=OF_ROLLOUT, tags=["rollouts"])
async def create(service: Running, who: AsOperatorOfAll, body: RolloutBody) -> RolloutRecord:
    """Begin a rollout at its first stage. Refused where one is on its way on the workflow."""
    served_workflow(service, body.workflow)
    return _record(
        await service.rollouts.create(
            body.workflow, body.policy, body.against, body.schedule, body.actor(who), body.why
        )
    )


@router.get("/rollouts", responses=documented(422, 503), tags=["rollouts"])
async def list_rollouts(
    service: Running, who: AsOperatorOfAll, workflow: str | None = None
) -> RolloutList:
    """Every rollout there ever was, oldest first."""
    found = await service.ledger.read(partial(read_rollouts, workflow=workflow))
    return RolloutList(rollouts=[_record(one) for one in found])


@router.get("/rollouts/{rollout_id}", responses=documented(404, 422, 503), tags=["rollouts"])
async def read_rollout(
    service: Running, who: AsOperatorOfAll, rollout_id: PathId
) -> WholeRolloutRecord:
    """One rollout: where it stands, the last verdict, what that rests on, and how it got there."""
    rollout, transitions, progress = await whole_or_refuse(service, rollout_id)
    shadowed = progress.shadow_decisions
    return WholeRolloutRecord(
        **_record(rollout).model_dump(),
        verdict=VerdictRecord(
            verdict=progress.verdict,
            reason=progress.reason,
            detail=progress.detail,
            at=to_moment(progress.watched_at_us),
        )
        if progress.verdict
        else None,
        evidence=EvidenceRecord(
            stage_candidate_accounts=progress.stage_candidates,
            stage_control_accounts=progress.stage_controls,
            stage_interactions=progress.stage_interactions,
            shadow_decisions=shadowed,
            shadow_failures=progress.shadow_failures,
            shadow_agreement=progress.shadow_agreement / shadowed if shadowed else None,
            comparisons=progress.comparisons,
        ),
        transitions=[
            TransitionRecord(
                at=to_moment(one.at_us),
                actor=one.actor,
                action=one.action,
                status=one.status,
                stage=one.stage,
                percent=rollout.schedule.stages[one.stage].percent,
                reason=one.reason,
                evidence=json.loads(one.evidence),
            )
            for one in transitions
        ],
        schedule=rollout.schedule.model_dump(mode="json"),
    )


@router.post("/rollouts/{rollout_id}/advance", responses=OF_ROLLOUT, tags=["rollouts"])
async def advance(
    service: Running, who: AsOperatorOfAll, rollout_id: PathId, body: WhyBody
) -> RolloutRecord:
    """Go on to the next stage now, whatever the evidence says."""
    return await _act(service, rollout_id, "advance", who, body)


@router.post("/rollouts/{rollout_id}/approve", responses=OF_ROLLOUT, tags=["rollouts"])
async def approve(
    service: Running, who: AsOperatorOfAll, rollout_id: PathId, body: WhyBody
) -> RolloutRecord:
    """Let one that waits for nothing else go on to its next stage."""
    return await _act(service, rollout_id, "approve", who, body)


@router.post("/rollouts/{rollout_id}/pause", responses=OF_ROLLOUT, tags=["rollouts"])
async def pause(
    service: Running, who: AsOperatorOfAll, rollout_id: PathId, body: WhyBody
) -> RolloutRecord:
    """Stay at this stage until somebody resumes. What is bad is still taken back."""
    return await _act(service, rollout_id, "pause", who, body)


@router.post("/rollouts/{rollout_id}/resume", responses=OF_ROLLOUT, tags=["rollouts"])
async def resume(
    service: Running, who: AsOperatorOfAll, rollout_id: PathId, body: WhyBody
) -> RolloutRecord:
    """Go on with a paused one: its stage begins anew."""
    return await _act(service, rollout_id, "resume", who, body)


@router.post("/rollouts/{rollout_id}/roll-back", responses=OF_ROLLOUT, tags=["rollouts"])
async def roll_back(
    service: Running, who: AsOperatorOfAll, rollout_id: PathId, body: WhyBody
) -> RolloutRecord:
    """Take it back: its accounts are served as before from their next decision on, and keep what
    was learned of them. What was begun last is taken back first."""
    return await _act(service, rollout_id, "roll_back", who, body)


@router.get("/kill-switch", responses=documented(422), tags=["rollouts"])
async def read_switches(service: Running, who: AsOperatorOfAll) -> SwitchList:
    """How every kill switch was left."""
    return _switches(service)


@router.put("/kill-switch", responses=documented(400, 404, 413, 422, 503), tags=["rollouts"])
async def throw_switch(service: Running, who: AsOperatorOfAll, body: SwitchBody) -> SwitchList:
    """Have the fallback decide everything, or let policies decide again. Needs no database."""
    if body.workflow is not None:
        served_workflow(service, body.workflow)
    scope = body.workflow or EVERYTHING
    await service.kill_switch.throw(scope, body.on, body.actor(who), body.why, service.clock())
    return _switches(service)


@router.get("/audit", responses=documented(422, 503), tags=["rollouts"])
async def read_trail(
    service: Running,
    who: AsOperatorOfAll,
    limit: Annotated[int, Query(ge=1, le=1_000, description="Events at most.")] = 100,
) -> AuditTrail:
    """What operators did last: who, when and why."""
    events = await service.ledger.read(partial(read_audit, limit=limit))
    return AuditTrail(
        events=[
            EventRecord(
                at=to_moment(one.at_us),
                actor=one.actor,
                action=one.action,
                subject=one.subject,
                reason=one.reason,
            )
            for one in events
        ]
    )


async def _act(
    service: Service, rollout_id: str, action: Action, who: Who, body: WhyBody
) -> RolloutRecord:
    return _record(await act_or_refuse(service, rollout_id, action, body.actor(who), body.why))


async def whole_or_refuse(
    service: Service, rollout_id: str
) -> tuple[Rollout, list[Transition], Progress]:
    """A rollout, how it got there and what it showed, of one moment. Raises NotFoundError."""

    def query(connection: Connection) -> tuple[list[Rollout], list[Transition], Progress]:
        return (
            read_rollouts(connection, rollout_id=rollout_id),
            read_transitions(connection, rollout_id),
            read_progress(connection, rollout_id),
        )

    found, transitions, progress = await service.ledger.read(query)
    if not found:
        raise _unknown(rollout_id)
    return found[0], transitions, progress


async def act_or_refuse(
    service: Service, rollout_id: str, action: Action, actor: str, why: str
) -> Rollout:
    """The rollout after the action. Raises NotFoundError, and what Rollouts.act raises."""
    if not await service.ledger.read(partial(read_rollouts, rollout_id=rollout_id)):
        raise _unknown(rollout_id)
    return await service.rollouts.act(rollout_id, action, actor, why)


def _unknown(rollout_id: str) -> NotFoundError:
    return NotFoundError("rollout_id", f"the id of a rollout, got {rollout_id[:64]}")


def _record(rollout: Rollout) -> RolloutRecord:
    return RolloutRecord(
        rollout_id=rollout.rollout_id,
        workflow=rollout.workflow,
        policy=rollout.policy,
        against=rollout.against,
        status=rollout.status,
        stage=rollout.stage,
        stages=len(rollout.schedule.stages),
        percent=rollout.current.percent,
        stage_since=to_moment(rollout.stage_since_us),
        approved=rollout.approved,
        reason=rollout.reason,
        created_at=to_moment(rollout.created_at_us),
        created_by=rollout.created_by,
    )


def _switches(service: Service) -> SwitchList:
    return SwitchList(
        switches=[
            SwitchRecord(
                workflow=None if scope == EVERYTHING else scope,
                on=one.on,
                at=to_moment(one.at_us),
                actor=one.actor,
                why=one.why,
            )
            for scope, one in sorted(service.kill_switch.switches.items())
        ]
    )
