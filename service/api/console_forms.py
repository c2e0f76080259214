"""Forms of the console: read strictly, and taken from a page of the same session alone."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError

from service.access.roles import ForbiddenError
from service.api.console_session import TOKEN
from service.rollouts.records import LONGEST_WHY

MEDIA_TYPE = "application/x-www-form-urlencoded"
MOST_FIELDS = 10
LONGEST_NAME = 64


async def read_form(request: Request) -> Mapping[str, str]:
    """The form's fields, each there once. Raises RequestValidationError where it is no such form,
    or of no page of this session, and ForbiddenError where another site sent it."""
    came_from = request.headers.get("sec-fetch-site", "same-origin")
    if came_from not in ("same-origin", "none"):
        raise ForbiddenError("Sec-Fetch-Site", "a form of this console's own page")
    sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if sent != MEDIA_TYPE:
        raise misfit("Content-Type", f"{MEDIA_TYPE}, got {sent[:64]!r}")
    try:
        pairs = parse_qsl(
            (await request.body()).decode(),
            keep_blank_values=True,
            strict_parsing=True,
            max_num_fields=MOST_FIELDS,
            errors="strict",
        )
    except ValueError as error:
        raise misfit("body", f"a form of at most {MOST_FIELDS} fields") from error
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise misfit("body", "a form with every field once")
    return fields


async def read_signed_form(request: Request) -> Mapping[str, str]:
    """`read_form`, of a form that carries its session's token."""
    fields = await read_form(request)
    token = str(request.scope.get(TOKEN, ""))
    if not token or not hmac.compare_digest(fields.get("token", "").encode(), token.encode()):
        raise misfit("token", "that of a page of this session: open the page again")
    return fields


Form = Annotated[Mapping[str, str], Depends(read_form)]
SignedForm = Annotated[Mapping[str, str], Depends(read_signed_form)]


def why(fields: Mapping[str, str]) -> str:
    """Why something is done. Raises RequestValidationError where nobody says."""
    said = fields.get("why", "").strip()
    if not 0 < len(said) <= LONGEST_WHY:
        raise misfit("why", f"a reason of 1 to {LONGEST_WHY} characters, got {len(said)}")
    return said


def misfit(field: str, expected: str) -> RequestValidationError:
    """What is wrong with a field."""
    place = ("header" if field[0].isupper() else "body", field)
    return RequestValidationError([{"type": "value_error", "msg": expected, "loc": place}])
