"""The routes of admins: give out keys, list, rotate and revoke them.

A key's text is in the answer that gives it out and nowhere else, then or later.
"""

from __future__ import annotations

import contextlib
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from service.access.giving import LONGEST_OVERLAP_DAYS, Giver
from service.access.roles import EVERY_TENANT, ForbiddenError, Role, Who
from service.api.access import AsAdmin
from service.api.problems import NotFoundError, documented
from service.api.routes import Running
from service.api.schemas import KEY_NAME, KEY_TENANT, Body
from service.api.strict import StrictRoute
from service.clock import to_moment, to_moment_or_none
from service.ledger.keys import KeyRow, KeyUnknownError
from service.ledger.records import LedgerUnavailableError
from service.runtime import Service

router = APIRouter(prefix="/v1", route_class=StrictRoute, tags=["keys"])

KeyId = Annotated[str, Path(pattern="^[0-9a-f]{16}$")]


class KeyBody(Body):
    """Asks for a key."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"name": "checkout", "role": "caller", "tenant": "acme"}]},
    )

    name: Annotated[str, StringConstraints(pattern=KEY_NAME, strict=True)] = Field(
        description="What it is for; records name it."
    )
    role: Literal["caller", "operator", "admin"] = "caller"
    tenant: Annotated[str, StringConstraints(pattern=KEY_TENANT, strict=True)] | None = Field(
        None,
        description="Whose accounts it reaches; `*`: every tenant's, which its requests then name. "
        "Default: the admin's own, or, from an admin of every tenant, `default` for callers and "
        "`*` for the others.",
    )
    expires_in_days: Annotated[float, Field(gt=0, le=3_650, strict=True)] | None = Field(
        None, description="Default: it does not expire."
    )


class RotationBody(Body):
    """Asks for a key in place of another."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"overlap_days": 1.0}]}
    )

    overlap_days: Annotated[float, Field(ge=0, le=LONGEST_OVERLAP_DAYS, strict=True)] = Field(
        1.0, description="How long the old one stays valid."
    )


class KeyRecord(BaseModel):
    """One key, without its text."""

    key_id: str = Field(description="No secret: records name keys by it.")
    name: str
    role: str
    tenant: str = Field(description="`*`: every tenant.")
    valid: bool
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    revoked_by: str | None
    rotated_from: str | None = Field(description="The key that it takes the place of.")


class NewKeyRecord(KeyRecord):
    """One key as it is given out."""

    key: str = Field(description="Shown this once.")


class KeyList(BaseModel):
    """Every key there ever was, the oldest first."""

    keys: list[KeyRecord]


class Rotation(BaseModel):
    """One key in place of another."""

    new: NewKeyRecord
    old: KeyRecord


@router.post("/keys", status_code=201, responses=documented(400, 422, 503))
async def create_key(service: Running, who: AsAdmin, body: KeyBody) -> NewKeyRecord:
    """Give out a key. Asked again, it gives out another: revoke what got lost."""
    giver = _giver(service, who)
    if giver.tenant is not None and body.tenant not in (None, giver.tenant):
        raise ForbiddenError("tenant", "the key's own tenant, or none")
    days = body.expires_in_days
    row, text = await giver.create(body.name, Role[body.role], body.tenant, days)
    await _known_here(service)
    return NewKeyRecord(key=text, **fields(row, service.clock()))


@router.get("/keys", responses=documented(422, 503))
async def list_keys(service: Running, who: AsAdmin) -> KeyList:
    """Every key of the admin's tenant, or of all, with those that expired or were revoked."""
    now = service.clock()
    rows = await _giver(service, who).keys()
    return KeyList(keys=[KeyRecord(**fields(row, now)) for row in rows])


@router.post("/keys/{key_id}/rotate", responses=documented(400, 404, 422, 503))
async def rotate_key(service: Running, who: AsAdmin, key_id: KeyId, body: RotationBody) -> Rotation:
    """Give out a key like this one, which stays valid for a while: both are, meanwhile."""
    with _found():
        new, text, old = await _giver(service, who).rotate(key_id, body.overlap_days)
    await _known_here(service)
    now = service.clock()
    return Rotation(
        new=NewKeyRecord(key=text, **fields(new, now)), old=KeyRecord(**fields(old, now))
    )


@router.post("/keys/{key_id}/revoke", responses=documented(404, 422, 503))
async def revoke_key(service: Running, who: AsAdmin, key_id: KeyId) -> KeyRecord:
    """Let a key be valid no more: at once here, and on every other replica within
    `ACCLIMATE_KEY_REFRESH_SECONDS` and the time of one read."""
    with _found():
        row = await _giver(service, who).revoke(key_id)
    await _known_here(service)
    return KeyRecord(**fields(row, service.clock()))


def fields(row: KeyRow, now_us: int) -> dict[str, Any]:
    """A key as the API says it."""
    ended = row.expires_at_us is not None and row.expires_at_us <= now_us
    return {
        "key_id": row.key_id,
        "name": row.name,
        "role": row.role,
        "tenant": row.tenant,
        "valid": row.revoked_at_us is None and not ended,
        "created_at": to_moment(row.created_at_us),
        "created_by": row.created_by,
        "expires_at": to_moment_or_none(row.expires_at_us),
        "revoked_at": to_moment_or_none(row.revoked_at_us),
        "revoked_by": row.revoked_by,
        "rotated_from": row.rotated_from,
    }


def _giver(service: Service, who: Who) -> Giver:
    own = who.holder.tenant
    return Giver(service.ledger, service.clock, who.name, None if own == EVERY_TENANT else own)


async def _known_here(service: Service) -> None:
    """What was committed is seen here at once, or with the next refresh."""
    with contextlib.suppress(LedgerUnavailableError):
        await service.keyring.refresh()


@contextlib.contextmanager
def _found() -> Any:
    try:
        yield
    except KeyUnknownError as error:
        raise NotFoundError("key_id", "the id of a key that is valid, of this tenant") from error
