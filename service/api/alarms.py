"""The routes of alarms: list them, say that one was seen, end one."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from service.api.access import AsOperator
from service.api.alarm_schemas import AlarmRecord, Kind, alarm_record
from service.api.problems import NotFoundError, documented
from service.api.routes import Running
from service.api.schemas import ID, PathId
from service.api.strict import StrictRoute
from service.ledger.alarms import Alarm, acknowledge, find_alarm, list_alarms
from service.runtime import Service

router = APIRouter(prefix="/v1", route_class=StrictRoute, tags=["alarms"])

LONGEST_NOTE = 2_000
NEXT = r"^[0-9]{1,18}-[0-9a-f]{32}$"


class AlarmList(BaseModel):
    """A page of alarms, the newest first."""

    alarms: list[AlarmRecord]
    next: str | None = Field(description="The `after` of the next page; null: that was all.")


class SeenBody(BaseModel):
    """What to note of an alarm that was seen."""

    model_config = ConfigDict(extra="forbid")

    note: str | None = Field(None, max_length=LONGEST_NOTE)


@router.get("/alarms", responses=documented(422, 503))
async def read_alarms(
    service: Running,
    who: AsOperator,
    workflow: Annotated[str | None, Query(max_length=64)] = None,
    kind: Kind | None = None,
    account_id: Annotated[str | None, Query(pattern=ID)] = None,
    state: Literal["open", "all"] = "open",
    after: Annotated[str | None, Query(pattern=NEXT)] = None,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
) -> AlarmList:
    """The tenant's alarms, the newest first; those that are not cleared, or all."""
    before = None
    if after is not None:
        at, _, last = after.partition("-")
        before = (int(at), last)
    found = await service.ledger.read(
        list_alarms(
            who.tenant,
            workflow=workflow,
            kind=kind,
            account_id=account_id,
            open_only=state == "open",
            before=before,
            limit=limit,
        )
    )
    last_one = found[-1] if len(found) == limit else None
    return AlarmList(
        alarms=[alarm_record(one) for one in found],
        next=last_one and f"{last_one.raised_at_us}-{last_one.alarm_id}",
    )


@router.get("/alarms/{alarm_id}", responses=documented(404, 422, 503))
async def read_alarm(service: Running, who: AsOperator, alarm_id: PathId) -> AlarmRecord:
    """One alarm."""
    return alarm_record(await find_or_refuse(service, who.tenant, alarm_id))


@router.post("/alarms/{alarm_id}/acknowledge", responses=documented(400, 404, 422, 503))
async def acknowledge_alarm(
    service: Running, who: AsOperator, alarm_id: PathId, body: SeenBody
) -> AlarmRecord:
    """Say that an alarm was seen. What follows from it goes on; whoever was first stays named."""
    known = await find_or_refuse(service, who.tenant, alarm_id)
    await service.ledger.alone(
        partial(
            acknowledge,
            known_id=known.alarm_id,
            by=who.name,
            note=body.note,
            at_us=service.clock(),
        )
    )
    return alarm_record(await find_or_refuse(service, who.tenant, alarm_id))


@router.post("/alarms/{alarm_id}/clear", responses=documented(404, 422, 503))
async def clear_alarm(service: Running, who: AsOperator, alarm_id: PathId) -> AlarmRecord:
    """End an alarm, and with it the fallback that it held an account or a crowd on. One that was
    ended before stays as it is."""
    known = await find_or_refuse(service, who.tenant, alarm_id)
    await service.watch.end(known, who.name)
    return alarm_record(await find_or_refuse(service, who.tenant, alarm_id))


async def find_or_refuse(service: Service, tenant: str, alarm_id: str) -> Alarm:
    """The tenant's alarm of that id. Raises NotFoundError."""
    found = await service.ledger.read(find_alarm(tenant, alarm_id))
    if found is None:
        raise NotFoundError("alarm_id", "the id of an alarm of this tenant")
    return found
