"""The route of decisions made on a picture alone, which comes as its bytes and no JSON around it.

It is the decision route for workflows whose context is one picture: the bytes become that feature's
base64, and everything after is the same.
"""

from __future__ import annotations

import base64
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.exceptions import RequestValidationError

from contract.encode import ContextError
from contract.spec import ImageFeature
from service.api.access import AsCaller
from service.api.answers import Json, decision_answer
from service.api.problems import documented
from service.api.routes import Running, served_workflow
from service.api.schemas import ID, DecisionAnswer
from service.api.strict import StrictRoute
from service.asked import DecisionRequest

MEDIA_TYPE = "application/octet-stream"

router = APIRouter(prefix="/v1", route_class=StrictRoute)


@router.post(
    "/workflows/{workflow}/decisions/picture",
    response_model=None,
    responses={200: {"model": DecisionAnswer}, **documented(404, 410, 413, 422, 503)},
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "The picture: height · width · channels bytes, row by row, as the "
            "workflow's one context feature declares it.",
            "content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
        }
    },
    tags=["decisions"],
)
async def decide_on_picture(
    service: Running,
    who: AsCaller,
    workflow: str,
    request: Request,
    account_id: Annotated[str, Query(pattern=ID, description="Whom the decision adapts to.")],
    decision_id: Annotated[str | None, Query(pattern=ID, description="For safe retries.")] = None,
    episode_id: Annotated[str | None, Query(pattern=ID, description="The journey.")] = None,
    mode: Annotated[Literal["serve", "defer"], Query()] = "serve",
) -> Response:
    """Choose an action for an account that sees this picture, now."""
    served = served_workflow(service, workflow)
    sent = request.headers.get("content-type", "")
    if sent != MEDIA_TYPE:
        misfit = {"type": "value_error", "msg": f"{MEDIA_TYPE}, got {sent[:64]!r}"}
        raise RequestValidationError([misfit | {"loc": ("header", "Content-Type")}])
    pictures = [n for n, f in served.spec.context.items() if isinstance(f, ImageFeature)]
    if len(served.spec.context) != 1 or not pictures:
        misfit = {"type": "value_error", "msg": "a workflow whose context is one picture"}
        raise RequestValidationError([misfit | {"loc": ("path", "workflow")}])
    name = pictures[0]
    feature = served.spec.context[name]
    assert isinstance(feature, ImageFeature)
    body = await request.body()
    if len(body) != feature.bytes:
        shape = f"{feature.height}×{feature.width}×{feature.channels}"
        expected = f"the {feature.bytes} bytes of a {shape} picture, got {len(body)} bytes"
        raise ContextError(name, expected, "out_of_range")
    context = {name: base64.b64encode(body).decode()}
    decision = await service.decider.decide(
        served,
        DecisionRequest(who.tenant, account_id, context, decision_id, episode_id, None, mode),
    )
    return Json(decision_answer(decision))
