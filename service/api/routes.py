"""The routes of API v1."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import APIRouter, Depends, Query, Request, Response

from service.api.access import AsCaller
from service.api.account_schemas import AuditRecord, rederived_record
from service.api.answers import (
    Json,
    decision_answer,
    feedback_answer,
    feedback_record,
    workflow_record,
)
from service.api.problems import NotFoundError, documented
from service.api.schemas import (
    AccountRecord,
    DecisionAnswer,
    DecisionBody,
    FeedbackAnswer,
    FeedbackBody,
    PathId,
    WorkflowList,
    WorkflowRecord,
)
from service.api.strict import StrictRoute
from service.asked import DecisionRequest
from service.catalog import Workflow
from service.clock import to_moment, to_moment_or_none, to_us
from service.learn import FeedbackRequest
from service.ledger.records import Account, AccountKey, DecisionUnknownError, ErasedError
from service.ledger.scan import Scope, count_decisions
from service.runtime import Service

hot = APIRouter(prefix="/v1", route_class=StrictRoute)
"""The routes that are called most; they take the express way."""
router = APIRouter(prefix="/v1", route_class=StrictRoute)


async def running(request: Request) -> Service:
    """The service behind the app. Were it not async, it would cost a thread hop."""
    return cast(Service, request.app.state.service)


Running = Annotated[Service, Depends(running)]


@hot.post(
    "/workflows/{workflow}/decisions",
    response_model=None,
    responses={200: {"model": DecisionAnswer}, **documented(400, 404, 410, 413, 422, 503)},
    tags=["decisions"],
)
async def decide(service: Running, who: AsCaller, workflow: str, body: DecisionBody) -> Response:
    """Choose an action for an account, now. Durable before the answer leaves."""
    decision = await service.decider.decide(
        served_workflow(service, workflow),
        decision_request(who.tenant, body),
    )
    return Json(decision_answer(decision))


@hot.post(
    "/decisions/{decision_id}/feedback",
    response_model=None,
    responses={200: {"model": FeedbackAnswer}, **documented(400, 404, 409, 410, 413, 422, 503)},
    tags=["decisions"],
)
async def learn(
    service: Running, who: AsCaller, decision_id: PathId, body: FeedbackBody
) -> Response:
    """Tell what came of a decision. The account's next decision knows it."""
    recorded = await service.learner.learn(feedback_request(who.tenant, decision_id, body))
    return Json(feedback_answer(recorded))


@router.get(
    "/decisions/{decision_id}",
    responses=documented(404, 410, 422, 503),
    tags=["decisions"],
)
async def read_decision(
    service: Running,
    who: AsCaller,
    decision_id: PathId,
    rederive: Annotated[bool, Query(description="Replay it, and say how that compares.")] = False,
) -> AuditRecord:
    """One decision's audit record, with what came of it."""
    decision = await service.ledger.decision(who.tenant, decision_id)
    if decision is None:
        if await service.ledger.is_erased(who.tenant, decision_id):
            raise ErasedError("decision_id")
        raise DecisionUnknownError(decision_id)
    came_of_it = await service.ledger.feedback(who.tenant, decision_id)
    return AuditRecord(
        **decision_answer(decision),
        spec_version=decision.spec_version,
        context=decision.context,
        asked_for=decision.asked_for,
        actions_left=decision.actions_left,
        deviates=decision.deviates,
        draw=decision.draw,
        activated_at=to_moment_or_none(decision.activated_at_us),
        feedback=[feedback_record(one) for one in came_of_it],
        rederived=rederived_record(await service.rederiver.rederive(decision))
        if rederive
        else None,
    )


@router.get(
    "/workflows/{workflow}/accounts/{account_id}",
    responses=documented(404, 422, 503),
    tags=["accounts"],
)
async def read_account(
    service: Running, who: AsCaller, workflow: str, account_id: PathId
) -> AccountRecord:
    """Where one account stands."""
    served = served_workflow(service, workflow)
    account = await service.ledger.account(AccountKey(who.tenant, workflow, account_id))
    if account is None:
        raise NotFoundError("account_id", f"an account of {workflow} that has had a decision")
    return await account_record(service, account, served)


async def account_record(service: Service, account: Account, served: Workflow) -> AccountRecord:
    """Where an account stands, as the API says it."""
    adaptation = account.adaptation
    recent = adaptation.recent
    # In a rollout of one segment alone it is the policy outside of that segment.
    on, _ = service.traffic.place(served, account.key.tenant, account.key.account_id, {})
    return AccountRecord(
        account_id=account.key.account_id,
        workflow=served.name,
        policy=on.policy_name,
        decisions=await service.ledger.read(count_decisions(Scope(*account.key))),
        interactions=account.head.position,
        generation=account.head.generation,
        phase=adaptation.phase,
        adapted_at=adaptation.adapted_at,
        recent_reward=sum(recent) / len(recent) if recent else None,
        target_reward=served.spec.adaptation.target,
        created_at=to_moment(account.created_at_us),
        updated_at=to_moment(account.updated_at_us),
    )


@router.get("/workflows", responses=documented(422), tags=["workflows"])
async def list_workflows(service: Running, who: AsCaller) -> WorkflowList:
    """Every workflow being served, with its whole spec."""
    served = service.catalog.workflows.values()
    return WorkflowList(workflows=[workflow_record(one) for one in served])


@router.get("/workflows/{workflow}", responses=documented(404, 422), tags=["workflows"])
async def read_workflow(service: Running, who: AsCaller, workflow: str) -> WorkflowRecord:
    """One workflow being served."""
    return workflow_record(served_workflow(service, workflow))


def decision_request(tenant: str, body: DecisionBody) -> DecisionRequest:
    """The body in the engine's words."""
    return DecisionRequest(
        tenant,
        body.account_id,
        body.context,
        body.decision_id,
        body.episode_id,
        body.actions,
        body.mode,
    )


def feedback_request(tenant: str, decision_id: str, body: FeedbackBody) -> FeedbackRequest:
    """The body in the engine's words."""
    return FeedbackRequest(
        tenant,
        decision_id,
        body.reward,
        body.outcome,
        body.feedback_id,
        body.episode_end,
        None if body.occurred_at is None else to_us(body.occurred_at),
    )


def served_workflow(service: Service, name: str) -> Workflow:
    """The workflow of that name. Raises NotFoundError."""
    served = service.catalog.workflows.get(name)
    if served is None:
        known = sorted(service.catalog.workflows)
        raise NotFoundError("workflow", f"one of {known}, got {name[:64]!r}")
    return served
