"""Signing in at the console, and out; and whose accounts a key of every tenant looks at."""

from __future__ import annotations

import re

from fastapi import APIRouter, Request, Response
from starlette.responses import RedirectResponse

from service.access.roles import EVERY_TENANT, ForbiddenError
from service.api.access import OPEN, AsCaller
from service.api.console_forms import Form, SignedForm, misfit
from service.api.console_session import HOME, KEY_COOKIE, SIGN_IN, TENANT_COOKIE
from service.api.routes import Running
from service.api.schemas import TENANT
from service.api.strict import StrictRoute
from service.console.pages import HEADERS, render

router = APIRouter(prefix=HOME, route_class=StrictRoute, include_in_schema=False)

LONGEST_KEY = 512
_PLACE = re.compile(rf"{HOME}(?:[/?][\x21-\x5b\x5d-\x7e]*)?")
"""An address of the console's own."""


@router.get("/sign-in", dependencies=[OPEN])
async def sign_in_page(service: Running, next: str = HOME) -> Response:
    """The form. A service that needs no key has no use for it."""
    if service.keyring.is_open:
        return RedirectResponse(HOME, 303)
    return _form(next, "")


@router.post("/sign-in", dependencies=[OPEN])
async def sign_in(request: Request, service: Running, fields: Form) -> Response:
    """Keeps the key in a cookie for as long as the browser is open, where it is valid."""
    key = fields.get("key", "").strip()
    holder = None
    if 0 < len(key) <= LONGEST_KEY and key.isascii():
        holder = service.keyring.holder(key.encode())
        holder = holder or await service.keyring.look_again(key.encode())
    place = fields.get("next", HOME)
    if holder is None:
        return _form(place, "This key is not valid.")
    answer = RedirectResponse(place if _PLACE.fullmatch(place) else HOME, 303)
    _keep(answer, request, KEY_COOKIE, key)
    _forget(answer, TENANT_COOKIE)
    return answer


@router.post("/sign-out", dependencies=[OPEN])
async def sign_out(fields: SignedForm) -> Response:
    """Forgets the key."""
    answer = RedirectResponse(SIGN_IN, 303)
    _forget(answer, KEY_COOKIE)
    _forget(answer, TENANT_COOKIE)
    return answer


@router.post("/tenant")
async def choose_tenant(request: Request, who: AsCaller, fields: SignedForm) -> Response:
    """Whose accounts are looked at from now on, by a key of every tenant."""
    tenant = fields.get("tenant", "").strip()
    if not re.fullmatch(TENANT, tenant):
        raise misfit("tenant", "1 to 64 characters out of a-z 0-9 . _ -, a letter or digit first")
    if who.holder.tenant not in (EVERY_TENANT, tenant):
        raise ForbiddenError("tenant", "the key's own tenant")
    answer = RedirectResponse(HOME, 303)
    _keep(answer, request, TENANT_COOKIE, tenant)
    return answer


def _form(place: str, error: str) -> Response:
    text = render("sign_in.html", {"next": place, "error": error})
    return Response(text, 422 if error else 200, HEADERS, "text/html")


def _keep(answer: Response, request: Request, name: str, value: str) -> None:
    answer.set_cookie(
        name,
        value,
        path=HOME,
        secure=_is_https(request),
        httponly=True,
        samesite="strict",
    )


def _is_https(request: Request) -> bool:
    """Whether the browser came by https, itself or as the first proxy says. The proxy should
    overwrite X-Forwarded-Proto; where it does not, a caller that sends its own makes its own cookie
    looser or stricter, and nobody else's."""
    first = request.headers.get("X-Forwarded-Proto", "").partition(",")[0]
    return "https" in (request.url.scheme, first.strip().lower())


def _forget(answer: Response, name: str) -> None:
    answer.delete_cookie(name, path=HOME, httponly=True, samesite="strict")
