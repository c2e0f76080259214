"""The routes of API v1."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute
from pydantic_core import to_json

from service.api.problems import NotFoundError, documented
from service.api.schemas import (
    AccountRecord,
    DecisionAnswer,
    DecisionBody,
    DecisionRecord,
    FeedbackAnswer,
    FeedbackBody,
    FeedbackRecord,
    PathId,
    Tenant,
    WorkflowList,
    WorkflowRecord,
)
from service.api.strict import StrictRoute
from service.catalog import Workflow
from service.clock import to_us
from service.decide import DecisionRequest
from service.learn import FeedbackRequest, status
from service.ledger.records import AccountKey, Decision, DecisionUnknownError, Feedback
from service.ledger.settle import Recorded
from service.runtime import Service

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

router = APIRouter(prefix="/v1", route_class=StrictRoute)


class Json(Response):
    """An answer straight to bytes, as pydantic would write the model that documents it."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        self.status_code = 200
        self.background = None
        self.body = to_json(answer, inf_nan_mode="null")
        self.raw_headers = [
            (b"content-length", str(len(self.body)).encode()),
            (b"content-type", b"application/json"),
        ]


async def running(request: Request) -> Service:
    """The service behind the app. Were it not async, it would cost a thread hop."""
    return cast(Service, request.app.state.service)


Running = Annotated[Service, Depends(running)]


@router.post(
    "/workflows/{workflow}/decisions",
    response_model=None,
    responses={200: {"model": DecisionAnswer}, **documented(400, 404, 413, 422, 503)},
    tags=["decisions"],
)
async def decide(
    service: Running, workflow: str, body: DecisionBody, tenant: Tenant = "default"
) -> Response:
    """Choose an action for an account, now. Durable before the answer leaves."""
    decision = await service.decider.decide(
        _workflow(service, workflow),
        DecisionRequest(
            tenant,
            body.account_id,
            body.context,
            body.decision_id,
            body.episode_id,
            body.actions,
        ),
    )
    return Json(_answer(decision))


@router.post(
    "/decisions/{decision_id}/feedback",
    response_model=None,
    responses={200: {"model": FeedbackAnswer}, **documented(400, 404, 413, 422, 503)},
    tags=["decisions"],
)
async def learn(
    service: Running, decision_id: PathId, body: FeedbackBody, tenant: Tenant = "default"
) -> Response:
    """Tell what came of a decision. The account's next decision knows it."""
    recorded = await service.learner.learn(
        FeedbackRequest(
            tenant,
            decision_id,
            body.reward,
            body.outcome,
            body.feedback_id,
            body.episode_end,
            None if body.occurred_at is None else to_us(body.occurred_at),
        )
    )
    return Json(_feedback_answer(recorded))


@router.get(
    "/decisions/{decision_id}",
    responses=documented(404, 422, 503),
    tags=["decisions"],
)
async def read_decision(
    service: Running, decision_id: PathId, tenant: Tenant = "default"
) -> DecisionRecord:
    """One decision's audit record, with what came of it."""
    decision = await service.ledger.decision(tenant, decision_id)
    if decision is None:
        raise DecisionUnknownError(decision_id)
    came_of_it = await service.ledger.feedback(tenant, decision_id)
    return DecisionRecord(
        **_answer(decision),
        spec_version=decision.spec_version,
        context=decision.context,
        asked_for=decision.asked_for,
        draw=decision.draw,
        feedback=[_feedback_record(one) for one in came_of_it],
    )


@router.get(
    "/workflows/{workflow}/accounts/{account_id}",
    responses=documented(404, 422, 503),
    tags=["accounts"],
)
async def read_account(
    service: Running, workflow: str, account_id: PathId, tenant: Tenant = "default"
) -> AccountRecord:
    """Where one account stands."""
    served = _workflow(service, workflow)
    account = await service.ledger.account(AccountKey(tenant, workflow, account_id))
    if account is None:
        raise NotFoundError("account_id", f"an account of {workflow} that has had a decision")
    adaptation = account.adaptation
    recent = adaptation.recent
    return AccountRecord(
        account_id=account_id,
        workflow=workflow,
        policy=served.spec.policy,
        decisions=account.decisions,
        interactions=account.head.position,
        generation=account.head.generation,
        phase=adaptation.phase,
        adapted_at=adaptation.adapted_at,
        recent_reward=sum(recent) / len(recent) if recent else None,
        target_reward=served.spec.adaptation.target,
        created_at=_moment(account.created_at_us),
        updated_at=_moment(account.updated_at_us),
    )


@router.get("/workflows", responses=documented(422), tags=["workflows"])
async def list_workflows(service: Running) -> WorkflowList:
    """Every workflow being served, with its whole spec."""
    served = service.catalog.workflows.values()
    return WorkflowList(workflows=[_workflow_record(one) for one in served])


@router.get("/workflows/{workflow}", responses=documented(404, 422), tags=["workflows"])
async def read_workflow(service: Running, workflow: str) -> WorkflowRecord:
    """One workflow being served."""
    return _workflow_record(_workflow(service, workflow))


def _workflow(service: Service, name: str) -> Workflow:
    served = service.catalog.workflows.get(name)
    if served is None:
        known = sorted(service.catalog.workflows)
        raise NotFoundError("workflow", f"one of {known}, got {name[:64]!r}")
    return served


def _answer(decision: Decision) -> dict[str, object]:
    """The same decision always gives the same answer, first time and under retry."""
    assert decision.head is not None
    return {
        "decision_id": decision.decision_id,
        "workflow": decision.key.workflow,
        "account_id": decision.key.account_id,
        "episode_id": decision.episode_id,
        "action": decision.action,
        "probability": decision.probability,
        "reason": decision.reason,
        "policy": decision.policy,
        "memory_position": decision.head.position,
        "memory_generation": decision.head.generation,
        "limits": decision.limits,
        "created_at": _moment(decision.created_at_us),
        "expires_at": _moment(decision.expires_at_us),
    }


def _feedback_answer(recorded: Recorded) -> dict[str, object]:
    given = recorded.feedback
    return {
        "decision_id": given.decision_id,
        "feedback_id": given.feedback_id or None,
        "status": status(recorded),
        "reward": given.reward,
        "late": given.late,
        "memory_position": given.head.position if given.head else None,
    }


def _feedback_record(given: Feedback) -> FeedbackRecord:
    return FeedbackRecord(
        feedback_id=given.feedback_id or None,
        kind=given.kind,
        reward=given.reward,
        outcome=given.outcome,
        episode_end=given.episode_end,
        late=given.late,
        memory_position=given.head.position if given.head else None,
        occurred_at=None if given.occurred_at_us is None else _moment(given.occurred_at_us),
        received_at=_moment(given.received_at_us),
    )


def _workflow_record(workflow: Workflow) -> WorkflowRecord:
    spec = workflow.spec
    return WorkflowRecord(
        workflow=spec.workflow,
        description=spec.description,
        version=workflow.version,
        sha256=spec.sha256,
        policy=spec.policy,
        actions=list(spec.action_ids),
        spec=spec,
    )


def _moment(moment_us: int) -> datetime:
    return EPOCH + timedelta(microseconds=moment_us)


HOT = [
    route
    for route in router.routes
    if isinstance(route, APIRoute) and route.endpoint in (decide, learn)
]
"""The routes that take the express way."""
