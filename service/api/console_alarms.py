"""The console's page of alarms: what is alarming, why that may be, what to do; seen, ended."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from starlette.responses import RedirectResponse

from service.api.access import AsOperator
from service.api.alarms import LONGEST_NOTE, NEXT, find_or_refuse
from service.api.console import Done, page
from service.api.console_forms import SignedForm, misfit
from service.api.console_session import HOME
from service.api.routes import Running
from service.api.schemas import PathId
from service.api.strict import StrictRoute
from service.console.reading import PAGE
from service.ledger.alarms import acknowledge, list_alarms

router = APIRouter(prefix=HOME, route_class=StrictRoute, include_in_schema=False)


@router.get("/alarms")
async def alarms(
    request: Request,
    service: Running,
    who: AsOperator,
    state: Literal["open", "all"] = "open",
    before: Annotated[str | None, Query(pattern=NEXT)] = None,
    done: Done = None,
) -> Response:
    """The tenant's alarms, the newest first."""
    place = None
    if before is not None:
        at, _, last = before.partition("-")
        place = (int(at), last)
    found = await service.ledger.read(
        list_alarms(who.tenant, open_only=state == "open", before=place, limit=PAGE + 1)
    )
    shown = found[:PAGE]
    more = shown[-1] if len(found) > PAGE else None
    return page(
        request,
        service,
        who,
        "alarms.html",
        "alarms",
        alarms=shown,
        state=state,
        is_first=place is None,
        next=f"{more.raised_at_us}-{more.alarm_id}" if more else None,
        done=done,
    )


@router.post("/alarms/{alarm_id}/{button}")
async def press(
    service: Running,
    who: AsOperator,
    alarm_id: PathId,
    button: Literal["acknowledge", "clear"],
    fields: SignedForm,
) -> Response:
    """Says that an alarm was seen, with a note, or ends it."""
    known = await find_or_refuse(service, who.tenant, alarm_id)
    if button == "clear":
        await service.watch.end(known, who.name)
    else:
        note = fields.get("why", "").strip()
        if len(note) > LONGEST_NOTE:
            raise misfit("why", f"at most {LONGEST_NOTE} characters, got {len(note)}")
        seen = partial(
            acknowledge,
            known_id=known.alarm_id,
            by=who.name,
            note=note or None,
            at_us=service.clock(),
        )
        await service.ledger.alone(seen)
    return RedirectResponse(f"{HOME}/alarms?done={button}", 303)
