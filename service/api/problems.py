"""Errors as RFC 9457 problems: one place turns every error into its response."""

from __future__ import annotations

import logging
import re
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from contract.encode import ContextError
from service.decide import ActionsError
from service.learn import FeedbackError
from service.ledger.records import (
    BodyConflictError,
    DecisionUnknownError,
    LedgerUnavailableError,
)

MEDIA_TYPE = "application/problem+json"

log = logging.getLogger(__name__)


class FieldError(BaseModel):
    """One thing that is wrong with a request."""

    field: str = Field(examples=["context.tenure_months"])
    expected: str = Field(examples=["a number in [0, 120], got 'long'"])


class Problem(BaseModel):
    """Why a request was refused (RFC 9457). Nothing was changed."""

    type: str = Field(examples=["urn:acclimate:problem:invalid-request"])
    title: str = Field(examples=["The request does not fit the workflow"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["context.tenure_months: expected a number in [0, 120]"])
    errors: list[FieldError] = []


class NotFoundError(Exception):
    """What was asked for does not exist for this tenant."""

    def __init__(self, field: str, expected: str) -> None:
        super().__init__(f"{field}: expected {expected}")
        self.field = field
        self.expected = expected


TITLES = {
    "malformed": "The body is not JSON",
    "invalid-request": "The request is not valid",
    "not-found": "Not found",
    "method-not-allowed": "The method is not allowed here",
    "id-conflict": "The same id came with another body",
    "too-large": "The body is too large",
    "ledger-unavailable": "The ledger is not available",
    "not-ready": "The service is not ready",
    "internal": "The service failed",
}


def problem(
    kind: str, status: int, errors: list[FieldError], headers: dict[str, str] | None = None
) -> JSONResponse:
    """The response for one problem."""
    body = Problem(
        type=f"urn:acclimate:problem:{kind}",
        title=TITLES[kind],
        status=status,
        detail="; ".join(f"{error.field}: expected {error.expected}" for error in errors)
        or TITLES[kind],
        errors=errors,
    )
    return JSONResponse(body.model_dump(), status, headers, media_type=MEDIA_TYPE)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's `responses` for these statuses: each a problem."""
    schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schema["properties"]["errors"]["items"] = FieldError.model_json_schema()
    schema.pop("$defs")
    return {
        status: {"description": "A problem.", "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in statuses
    }


def install(app: FastAPI) -> None:
    """Registers the handlers."""

    @app.exception_handler(RequestValidationError)
    async def _validation(_: Request, error: RequestValidationError) -> JSONResponse:
        found = error.errors()
        if found and found[0]["type"] == "json_invalid":
            reason = found[0].get("ctx", {}).get("error", "it does not parse")
            return problem("malformed", 400, [FieldError(field="body", expected=f"JSON; {reason}")])
        return problem("invalid-request", 422, [_field_error(one) for one in found])

    @app.exception_handler(ContextError)
    @app.exception_handler(FeedbackError)
    async def _misfit(_: Request, error: ContextError | FeedbackError) -> JSONResponse:
        return problem(
            "invalid-request", 422, [FieldError(field=error.field, expected=error.expected)]
        )

    @app.exception_handler(ActionsError)
    async def _actions(_: Request, error: ActionsError) -> JSONResponse:
        expected = str(error).removeprefix("expected ")
        return problem("invalid-request", 422, [FieldError(field="actions", expected=expected)])

    @app.exception_handler(BodyConflictError)
    async def _conflict(_: Request, error: BodyConflictError) -> JSONResponse:
        expected = "the body it first came with; a new body needs a new id"
        return problem("id-conflict", 422, [FieldError(field=error.field, expected=expected)])

    @app.exception_handler(DecisionUnknownError)
    async def _dangling(_: Request, error: DecisionUnknownError) -> JSONResponse:
        expected = f"the id of a decision of this tenant, got {error}"
        return problem("not-found", 404, [FieldError(field="decision_id", expected=expected)])

    @app.exception_handler(NotFoundError)
    async def _absent(_: Request, error: NotFoundError) -> JSONResponse:
        return problem("not-found", 404, [FieldError(field=error.field, expected=error.expected)])

    @app.exception_handler(LedgerUnavailableError)
    async def _ledger(_: Request, error: LedgerUnavailableError) -> JSONResponse:
        log.error("%s", error)
        return problem("ledger-unavailable", 503, [], {"Retry-After": "1"})

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> JSONResponse:
        kind = {404: "not-found", 405: "method-not-allowed", 413: "too-large"}.get(
            error.status_code, "invalid-request"
        )
        headers = dict(error.headers) if error.headers else None
        return problem(kind, error.status_code, [], headers)

    @app.exception_handler(Exception)
    async def _bug(_: Request, error: Exception) -> JSONResponse:
        log.exception("unhandled", exc_info=error)
        return problem("internal", 500, [])


EXPECTED = {
    "missing": "a value, got nothing",
    "extra_forbidden": "no field of this name",
    "string_pattern_mismatch": "1 to 128 characters out of A-Z a-z 0-9 . _ ~ : @ | + = , -",
}


def _field_error(error: dict[str, Any]) -> FieldError:
    """One of pydantic's errors as field and expectation, without echoing the input."""
    location = [str(part) for part in error["loc"] if part not in ("body", "path", "header")]
    message = EXPECTED.get(error["type"], error["msg"])
    expected = re.sub(r"^(Input should be|Value error,) ", "", message)
    return FieldError(field=".".join(location) or "body", expected=expected)
