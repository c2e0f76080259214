"""The console's pages of release people, with their buttons: rollouts and the kill switch.

Every button asks why, and is the same act as the API's: same role, same record of who did it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Literal

from fastapi import APIRouter, Request, Response
from starlette.responses import RedirectResponse

from service.access.roles import ANYONE, Who
from service.api.access import AsOperatorOfAll
from service.api.console import Done, page
from service.api.console_forms import LONGEST_NAME, SignedForm, misfit, why
from service.api.console_session import HOME
from service.api.rollouts import act_or_refuse, whole_or_refuse
from service.api.routes import Running, served_workflow
from service.api.schemas import PathId
from service.api.strict import StrictRoute
from service.console import charts
from service.ledger.records import LedgerUnavailableError
from service.rollouts.progress import Progress
from service.rollouts.records import Action, Rollout
from service.rollouts.store import read_audit, read_rollouts
from service.rollouts.traffic import EVERYTHING

router = APIRouter(prefix=HOME, route_class=StrictRoute, include_in_schema=False)

Button = Literal["approve", "advance", "pause", "resume", "roll-back"]
ACTIONS: dict[Button, Action] = {
    "approve": "approve",
    "advance": "advance",
    "pause": "pause",
    "resume": "resume",
    "roll-back": "roll_back",
}


@router.get("/rollouts")
async def rollouts(request: Request, service: Running, who: AsOperatorOfAll) -> Response:
    """Every rollout, the newest first."""
    found = await service.ledger.read(read_rollouts)
    return page(request, service, who, "rollouts.html", "rollouts", rollouts=list(reversed(found)))


@router.get("/rollouts/{rollout_id}")
async def one_rollout(
    request: Request,
    service: Running,
    who: AsOperatorOfAll,
    rollout_id: PathId,
    done: Done = None,
) -> Response:
    """One rollout: where it stands, the verdict and what it rests on, what may be done now."""
    rollout, transitions, progress = await whole_or_refuse(service, rollout_id)
    chart = None
    if progress.comparisons:
        chart = [
            charts.comparisons(progress.comparisons, rollout.schedule, size)
            for size in (charts.HALF, charts.NARROW)
        ]
    return page(
        request,
        service,
        who,
        "rollout.html",
        "rollouts",
        rollout=rollout,
        transitions=list(reversed(transitions)),
        progress=progress,
        drawn=chart,
        buttons=buttons(rollout, progress),
        done=done,
    )


@router.post("/rollouts/{rollout_id}/{button}")
async def press(
    service: Running, who: AsOperatorOfAll, rollout_id: PathId, button: Button, fields: SignedForm
) -> Response:
    """Presses a rollout's button. Refused as the API refuses it."""
    said, actor = why(fields), _actor(who, fields)
    await act_or_refuse(service, rollout_id, ACTIONS[button], actor, said)
    return RedirectResponse(f"{HOME}/rollouts/{rollout_id}?done={button}", 303)


@router.get("/kill-switch")
async def kill_switch(
    request: Request, service: Running, who: AsOperatorOfAll, done: Done = None
) -> Response:
    """Every switch as it was left, and what operators did last."""
    try:
        events = await service.ledger.read(partial(read_audit, limit=50))
    except LedgerUnavailableError:  # the switch works all the same
        events = None
    return page(
        request,
        service,
        who,
        "kill_switch.html",
        "kill-switch",
        switches=service.kill_switch.switches,
        scopes=[EVERYTHING, *sorted(service.catalog.workflows)],
        events=events,
        done=done,
    )


@router.post("/kill-switch")
async def throw(service: Running, who: AsOperatorOfAll, fields: SignedForm) -> Response:
    """Throws a switch, or takes it back. Needs no database."""
    said, actor = why(fields), _actor(who, fields)
    scope, way = fields.get("scope", ""), fields.get("to", "")
    if way not in ("on", "off"):
        raise misfit("to", "on or off")
    if scope != EVERYTHING:
        served_workflow(service, scope)
    await service.kill_switch.throw(scope, way == "on", actor, said, service.clock())
    return RedirectResponse(f"{HOME}/kill-switch?done={way}", 303)


def buttons(rollout: Rollout, progress: Progress) -> list[Button]:
    """What may be done to a rollout now, the likeliest first."""
    found: list[Button] = []
    is_last = rollout.stage == len(rollout.schedule.stages) - 1
    if rollout.status == "running":
        if progress.reason == "awaiting_approval" and not rollout.approved:
            found.append("approve")
        found.append("pause")
    if rollout.status == "paused":
        found.append("resume")
    if rollout.is_active and not is_last:
        found.append("advance")
    if rollout.status != "rolled_back":
        found.append("roll-back")
    return found


def _actor(who: Who, fields: Mapping[str, str]) -> str:
    """Who it was, for records; where no key says so, whoever they say they are."""
    named = fields.get("by", "").strip()[:LONGEST_NAME]
    return named if named and who.holder is ANYONE else who.name
