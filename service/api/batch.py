"""The batch routes: many decisions or pieces of feedback at once, each with an answer of its own.

An item that is wrong fails alone, with the problem that it would have got by itself. Only what
nothing of could be done is refused as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, SkipValidation, TypeAdapter, ValidationError

from service.api.access import AsCaller
from service.api.answers import Json, decision_answer, feedback_answer
from service.api.problems import Problem, documented, refusal_of
from service.api.routes import Running, decision_request, feedback_request, served_workflow
from service.api.schemas import (
    Body,
    DecisionAnswer,
    DecisionBody,
    FeedbackAnswer,
    FeedbackBody,
    Id,
)
from service.api.strict import StrictRoute
from service.ledger.records import LedgerUnavailableError

MOST_ITEMS = 1_000

B = TypeVar("B", bound=BaseModel)
R = TypeVar("R")
Results = list[R | Exception]

router = APIRouter(prefix="/v1", route_class=StrictRoute)


class FeedbackItem(FeedbackBody):
    """Tells what came of one of several decisions."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"decision_id": "d-17", "outcome": "bought"}]},
    )

    decision_id: Id


# Items are validated one by one, so that one that is wrong fails alone.


class DecisionBatch(Body):
    """Asks for several decisions of one workflow."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"decisions": [{"account_id": "household-17", "context": {}}]}]
        },
    )

    decisions: Annotated[
        list[SkipValidation[DecisionBody]], Field(min_length=1, max_length=MOST_ITEMS)
    ]


class FeedbackBatch(Body):
    """Tells what came of several decisions, in the order in which it is to be learned."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"feedback": [{"decision_id": "d-17", "reward": 1.0}]}]},
    )

    feedback: Annotated[
        list[SkipValidation[FeedbackItem]], Field(min_length=1, max_length=MOST_ITEMS)
    ]


class DecisionResult(BaseModel):
    """What one item got: a decision, or a problem."""

    status: int = Field(description="What it would have been answered with by itself.")
    decision: DecisionAnswer | None = None
    problem: Problem | None = None


class FeedbackResult(BaseModel):
    """What became of one item, or its problem."""

    status: int = Field(description="What it would have been answered with by itself.")
    feedback: FeedbackAnswer | None = None
    problem: Problem | None = None


class DecisionResults(BaseModel):
    """One result an item, in their order."""

    results: list[DecisionResult]


class FeedbackResults(BaseModel):
    """One result an item, in their order."""

    results: list[FeedbackResult]


_DECISION = TypeAdapter(DecisionBody)
_FEEDBACK = TypeAdapter(FeedbackItem)


@router.post(
    "/workflows/{workflow}/decisions/batch",
    response_model=None,
    responses={200: {"model": DecisionResults}, **documented(400, 404, 413, 422, 503)},
    tags=["decisions"],
)
async def decide_many(
    service: Running, who: AsCaller, workflow: str, body: DecisionBatch
) -> Response:
    """Choose an action for each of many accounts, by one inference and one commit. All decisions
    for one account are made from its memory as it is."""
    served = served_workflow(service, workflow)
    items = _items(_DECISION, body.decisions)
    service.rates.charge(who.name, len(items) - 1)
    requests = [
        decision_request(who.tenant, one) for one in items if not isinstance(one, Exception)
    ]
    made = await service.decider.decide_many(served, requests)
    return _results("decisions", "decision", _merged(items, made), decision_answer)


@router.post(
    "/feedback/batch",
    response_model=None,
    responses={200: {"model": FeedbackResults}, **documented(400, 413, 422, 503)},
    tags=["decisions"],
)
async def learn_many(service: Running, who: AsCaller, body: FeedbackBatch) -> Response:
    """Tell what came of many decisions. Each account learns its own in the order they are in."""
    items = _items(_FEEDBACK, body.feedback)
    service.rates.charge(who.name, len(items) - 1)
    requests = [
        feedback_request(who.tenant, one.decision_id, one)
        for one in items
        if not isinstance(one, Exception)
    ]
    recorded = await service.learner.learn_many(requests)
    return _results("feedback", "feedback", _merged(items, recorded), feedback_answer)


def _items(adapter: TypeAdapter[B], sent: Sequence[Any]) -> Results[B]:
    items: Results[B] = []
    for one in sent:
        try:
            items.append(adapter.validate_python(one, from_attributes=True))
        except ValidationError as error:
            errors = [{**wrong, "loc": ("body", *wrong["loc"])} for wrong in error.errors()]
            items.append(RequestValidationError(errors))
    return items


def _merged(items: Results[B], outcomes: Results[R]) -> Results[R]:
    """Each valid item's outcome in its place. Raises LedgerUnavailableError when the ledger took
    none of them."""
    unavailable = [one for one in outcomes if isinstance(one, LedgerUnavailableError)]
    if unavailable and len(unavailable) == len(outcomes):
        raise unavailable[0]
    left = iter(outcomes)
    return [one if isinstance(one, Exception) else next(left) for one in items]


def _results(
    items: str, name: str, outcomes: Results[R], answer: Callable[[R], Mapping[str, Any]]
) -> Json:
    results: list[dict[str, Any]] = []
    for i, outcome in enumerate(outcomes):
        if isinstance(outcome, Exception):
            problem = refusal_of(outcome).problem(f"{items}.{i}")
            results.append({"status": problem.status, "problem": problem.model_dump()})
        else:
            results.append({"status": 200, name: answer(outcome)})
    return Json({"results": results})
