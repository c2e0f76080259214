"""Errors as RFC 9457 problems: one place turns every error into its response.

A problem is small whatever was sent, and the log says what kind of error it was, never its text:
that may quote what a request held.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Route

from contract.encode import ContextError
from service.access.roles import ForbiddenError
from service.api.schemas import PATTERNS
from service.api.strict import MalformedError
from service.asked import ActionsError
from service.learn import FeedbackError
from service.ledger.records import (
    AccountUnknownError,
    BodyConflictError,
    DecisionUnknownError,
    ErasedError,
    LedgerUnavailableError,
    LimitReachedError,
    NotActiveError,
)
from service.memory.store import MemoryUnavailableError
from service.rollouts.kill_switch import SwitchUnavailableError
from service.rollouts.operate import MisfitError
from service.rollouts.records import RefusedError

MEDIA_TYPE = "application/problem+json"
MOST_ERRORS = 10
"""Errors that one problem names; it counts the others."""
LONGEST_FIELD = 72
"""Bytes of a field's name: `context.` and a feature of the longest name."""
LONGEST_VALUE = 64
"""Characters of a value that is quoted."""
EXPECTATIONS = 2_600
"""Bytes for what a problem says was expected. With all the rest it stays under 4 KB."""

log = logging.getLogger(__name__)


class FieldError(BaseModel):
    """One thing that is wrong with a request."""

    field: str
    expected: str


class Problem(BaseModel):
    """Why a request was refused (RFC 9457). Nothing was changed."""

    type: str
    title: str
    status: int
    detail: str = Field(description="The first error, and how many more there are.")
    errors: list[FieldError] = Field([], description=f"At most {MOST_ERRORS} of them.")


class NotFoundError(Exception):
    """What was asked for does not exist for this tenant."""

    def __init__(self, field: str, expected: str) -> None:
        super().__init__(f"{field}: expected {expected}")
        self.field = field
        self.expected = expected


TITLES = {
    "malformed": "The body is not JSON",
    "invalid-request": "The request is not valid",
    "unauthenticated": "A key is needed",
    "forbidden": "The key may not do this",
    "rate-limited": "The key asks too often",
    "not-found": "Not found",
    "method-not-allowed": "The method is not allowed here",
    "id-conflict": "The same id came with another body",
    "not-active": "The decision is not active",
    "limit-reached": "A limit of the account is reached",
    "refused": "That cannot be done now",
    "erased": "It was erased with its account",
    "too-large": "The body is too large",
    "ledger-unavailable": "The ledger is not available",
    "switch-unavailable": "The kill switch can be kept nowhere",
    "memory-unavailable": "The memory store is not available",
    "internal": "The service failed",
}


class Refusal(NamedTuple):
    """What an error means to whoever asked."""

    kind: str
    status: int
    errors: list[FieldError]
    headers: dict[str, str] | None = None

    def problem(self, within: str = "") -> Problem:
        """It in words. `within` is what is refused, where that is not a whole body:
        `decisions.3`."""
        kind, errors = self.kind, self.errors
        room = EXPECTATIONS // (min(len(errors), MOST_ERRORS) + 1)
        shown = [
            FieldError(
                field=_within(within, _cut(error.field, LONGEST_FIELD)),
                expected=_cut(error.expected, room),
            )
            for error in errors[:MOST_ERRORS]
        ]
        detail = f"{shown[0].field}: expected {shown[0].expected}" if shown else TITLES[kind]
        if len(errors) > 1:
            detail += f"; and {len(errors) - 1} more"
        return Problem(
            type=f"urn:acclimate:problem:{kind}",
            title=TITLES[kind],
            status=self.status,
            detail=detail,
            errors=shown,
        )

    def response(self) -> JSONResponse:
        """It as the response."""
        body = self.problem().model_dump()
        return JSONResponse(body, self.status, self.headers, media_type=MEDIA_TYPE)


def problem(
    kind: str, status: int, errors: list[FieldError], headers: dict[str, str] | None = None
) -> JSONResponse:
    """The response for one problem."""
    return Refusal(kind, status, errors, headers).response()


EXAMPLES = {
    400: ("malformed", "body", "JSON, but at character 18: Expecting ',' delimiter"),
    401: ("unauthenticated", "Authorization", "Bearer and a key that is valid"),
    403: ("forbidden", "Authorization", "a key of role operator"),
    429: ("rate-limited", "Authorization", "at most 100 requests a second"),
    404: ("not-found", "decision_id", "the id of a decision of this tenant, got d-17"),
    409: ("not-active", "decision_id", "an activated decision"),
    410: ("erased", "decision_id", "the id of a decision that was not erased"),
    413: ("too-large", "body", "at most 1000000 bytes"),
    422: ("invalid-request", "context.tenure_months", "a number in [0, 120], got 'long'"),
}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's `responses` for these statuses and for any other refusal: each a problem."""
    schema = Problem.model_json_schema()
    schema["properties"]["errors"]["items"] = FieldError.model_json_schema()
    schema.pop("$defs")
    responses: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        if status == 503:
            example = problem("ledger-unavailable", status, [])
        else:
            kind, field, expected = EXAMPLES[status]
            example = problem(kind, status, [FieldError(field=field, expected=expected)])
        content = {"schema": schema, "example": json.loads(bytes(example.body))}
        title = content["example"]["title"]
        responses[status] = {"description": f"{title}.", "content": {MEDIA_TYPE: content}}
    for status in {429, 503} & set(responses):
        seconds = {"description": "Seconds.", "schema": {"type": "integer"}}
        responses[status]["headers"] = {"Retry-After": seconds}
    content = {"schema": schema}
    responses["default"] = {"description": "Any other problem.", "content": {MEDIA_TYPE: content}}
    return responses


def install(app: FastAPI) -> None:
    """Registers the handlers. A path that is not a route is a problem too, never a redirect."""

    async def respond(request: Request, error: Exception) -> JSONResponse:
        if isinstance(error, HTTPException) and error.status_code == 405:
            error.headers = {"Allow": ", ".join(methods_of(request.scope["path"]))}
        return refusal_of(error).response()

    def methods_of(path: str) -> list[str]:
        """What the path takes, of all its routes: the router names those of the first alone."""
        routes = [one for one in app.routes if isinstance(one, Route)]
        fit = [one.methods for one in routes if one.path_regex.match(path)]
        return sorted(set().union(*(methods for methods in fit if methods)))

    # The last is for what is raised by mistake: it is raised on when it has been answered.
    for kind in (*EXPECTED_ERRORS, Exception):
        app.add_exception_handler(kind, respond)


EXPECTED_ERRORS = (
    RequestValidationError,
    HTTPException,
    ContextError,
    FeedbackError,
    ActionsError,
    BodyConflictError,
    DecisionUnknownError,
    AccountUnknownError,
    ErasedError,
    NotActiveError,
    LimitReachedError,
    NotFoundError,
    MisfitError,
    RefusedError,
    SwitchUnavailableError,
    ForbiddenError,
    LedgerUnavailableError,
    MemoryUnavailableError,
)


def refusal_of(error: Exception) -> Refusal:
    """What any exception means to whoever asked; those that are nobody's fault are logged."""
    match error:
        case RequestValidationError():
            return Refusal("invalid-request", 422, [_field_error(one) for one in error.errors()])
        case MalformedError():
            return Refusal("malformed", 400, [FieldError(field="body", expected=error.expected)])
        case ContextError() | FeedbackError():
            errors = [FieldError(field=error.field, expected=error.expected)]
            return Refusal("invalid-request", 422, errors)
        case ActionsError():
            expected = str(error).removeprefix("expected ")
            errors = [FieldError(field="actions", expected=expected)]
            return Refusal("invalid-request", 422, errors)
        case BodyConflictError():
            expected = "the body it first came with; a new body needs a new id"
            return Refusal("id-conflict", 422, [FieldError(field=error.field, expected=expected)])
        case DecisionUnknownError():
            expected = f"the id of a decision of this tenant, got {str(error)[:LONGEST_VALUE]}"
            return Refusal("not-found", 404, [FieldError(field="decision_id", expected=expected)])
        case AccountUnknownError():
            expected = "an account that has had a decision"
            return Refusal("not-found", 404, [FieldError(field="account_id", expected=expected)])
        case ErasedError():
            expected = "the id of a decision that was not erased"
            return Refusal("erased", 410, [FieldError(field=error.field, expected=expected)])
        case NotActiveError():
            expected = "an activated decision"
            return Refusal("not-active", 409, [FieldError(field="decision_id", expected=expected)])
        case LimitReachedError(limits=limits):
            against = ", ".join(limits)
            expected = f"an action that nothing is against now, got one that {against} forbids"
            errors = [FieldError(field="decision_id", expected=expected)]
            return Refusal("limit-reached", 409, errors)
        case MisfitError():
            errors = [FieldError(field=error.field, expected=error.expected)]
            return Refusal("invalid-request", 422, errors)
        case RefusedError():
            errors = [FieldError(field=error.field, expected=error.expected)]
            return Refusal("refused", 409, errors)
        case SwitchUnavailableError():
            log.error("kill switch unavailable: %s", kinds(error))
            return Refusal("switch-unavailable", 503, [], {"Retry-After": "1"})
        case NotFoundError():
            errors = [FieldError(field=error.field, expected=error.expected)]
            return Refusal("not-found", 404, errors)
        case ForbiddenError():
            errors = [FieldError(field=error.field, expected=error.expected)]
            return Refusal("forbidden", 403, errors)
        case LedgerUnavailableError():
            log.error("ledger unavailable: %s", kinds(error))
            return Refusal("ledger-unavailable", 503, [], {"Retry-After": "1"})
        case MemoryUnavailableError():
            log.error("memory store unavailable: %s", kinds(error))
            return Refusal("memory-unavailable", 503, [], {"Retry-After": "1"})
        case HTTPException(status_code=status, headers=headers):
            kind = {404: "not-found", 405: "method-not-allowed", 413: "too-large"}.get(
                status, "invalid-request"
            )
            return Refusal(kind, status, [], dict(headers) if headers else None)
        case _:
            log.error("unhandled: %s", kinds(error))
            return Refusal("internal", 500, [])


def causes(error: BaseException | None) -> list[BaseException]:
    """The exception and what it came from, the outermost first."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def kinds(error: BaseException | None) -> str:
    """The types of an exception and of what it came from, without their texts."""
    return " from ".join(type(one).__name__ for one in causes(error))


EXPECTED = {
    "missing": "a value, got nothing",
    "extra_forbidden": "no field of this name",
    "string_unicode": "text without lone surrogates",
    "model_attributes_type": "a JSON object, sent as application/json",
}


def _field_error(error: Mapping[str, Any]) -> FieldError:
    """One of pydantic's errors as field and expectation, without echoing the input."""
    place, *location = error["loc"]
    message = EXPECTED.get(error["type"], error["msg"])
    if error["type"] == "string_pattern_mismatch":
        message = PATTERNS.get(error["ctx"]["pattern"], message)
    expected = re.sub(r"^(Input should be|Value error,) ", "", message)
    return FieldError(field=".".join(map(str, location)) or str(place), expected=expected)


def _within(place: str, field: str) -> str:
    if not place or field == "body":
        return place or field
    return f"{place}.{field}"


def _cut(text: str, most_bytes: int) -> str:
    """`text` in printable characters that take at most so many bytes of JSON; "…": some is left
    out."""
    kept: list[str] = []
    room = most_bytes - len("…".encode())
    for character in text:
        if not character.isprintable():  # a lone surrogate, for one, has no bytes at all
            character = character.encode("unicode_escape").decode()
        room -= len(character.encode()) + sum(character.count(one) for one in '"\\')
        if room < 0:
            return "".join([*kept, "…"])
        kept.append(character)
    return "".join(kept)
