"""The routes of whoever looks after accounts: activate, reset, rebuild, erase, export, verify."""

from __future__ import annotations

import logging
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from service.api.access import AsCaller, AsOperator
from service.api.account_export import exported
from service.api.account_schemas import (
    AccountExport,
    ActivationAnswer,
    DifferenceRecord,
    ErasureAnswer,
    RebuildAnswer,
    RebuildPage,
    VerificationPage,
)
from service.api.problems import documented
from service.api.routes import Running, account_record, served_workflow
from service.api.schemas import ID, AccountRecord, PathId
from service.api.strict import StrictRoute
from service.clock import to_moment, to_moment_or_none
from service.ledger.records import (
    AccountKey,
    AccountUnknownError,
    LedgerUnavailableError,
)
from service.ledger.settle import ActivateWrite
from service.memory.store import MemoryUnavailableError
from service.rationing import waiting
from service.recall import UnreadablePastError

router = APIRouter(prefix="/v1", route_class=StrictRoute)
log = logging.getLogger(__name__)

After = Annotated[
    str | None, Query(pattern=ID, description="The `next` of the page before; none: the first.")
]
Limit = Annotated[int, Query(ge=1, le=1_000, description="Accounts a page.")]

ACCOUNT = "/workflows/{workflow}/accounts/{account_id}"


@router.post(
    "/decisions/{decision_id}/activate",
    responses=documented(404, 409, 410, 422, 503),
    tags=["decisions"],
)
async def activate(service: Running, who: AsCaller, decision_id: PathId) -> ActivationAnswer:
    """Let a deferred decision count: its window opens now. Doing it again changes nothing.

    409 when the account's caps, cool-downs or limits do not let its action be served now."""
    active = await service.ledger.activate(
        ActivateWrite(
            who.tenant,
            decision_id,
            service.clock(),
            lambda decision: service.catalog.spec(decision.key.workflow, decision.spec_version),
            lambda decision: waiting(service.catalog, decision),
        )
    )
    return ActivationAnswer(
        decision_id=decision_id,
        mode=active.mode,
        activated_at=to_moment_or_none(active.activated_at_us),
        expires_at=to_moment(active.expires_at_us),
    )


@router.post(f"{ACCOUNT}/reset", responses=documented(404, 422, 503), tags=["accounts"])
async def reset(
    service: Running, who: AsOperator, workflow: str, account_id: PathId
) -> AccountRecord:
    """Start an account anew: its past stays in the ledger and is not learned from any more."""
    served = served_workflow(service, workflow)
    key = AccountKey(who.tenant, workflow, account_id)
    anew = await service.ledger.reset(key, service.clock())
    try:
        await service.recall.at_head(served, key, anew.head)
    except (MemoryUnavailableError, LedgerUnavailableError, UnreadablePastError) as error:
        log.warning("a reset account's memory is renewed later: %s", type(error).__name__)
    return await account_record(service, anew, served)


@router.post(f"{ACCOUNT}/rebuild", responses=documented(404, 422, 503), tags=["accounts"])
async def rebuild(
    service: Running, who: AsOperator, workflow: str, account_id: PathId
) -> RebuildAnswer:
    """Fold an account's whole past afresh, and store that in place of whatever is stored."""
    served = served_workflow(service, workflow)
    rebuilt = await service.rebuilder.account(served, AccountKey(who.tenant, workflow, account_id))
    return RebuildAnswer(
        account_id=account_id,
        policy=rebuilt.policy,
        interactions=rebuilt.interactions,
        position=rebuilt.head.position,
        generation=rebuilt.head.generation,
        digest=rebuilt.digest,
        was_equal=rebuilt.was_equal,
        complete=rebuilt.complete,
        seconds=rebuilt.seconds,
    )


@router.delete(ACCOUNT, responses=documented(404, 422, 503), tags=["accounts"])
async def erase(
    service: Running, who: AsOperator, workflow: str, account_id: PathId
) -> ErasureAnswer:
    """Erase an account: its events, memories and name. Keyed hashes of its ids stay, so that what
    still comes for them is refused with 410."""
    served = served_workflow(service, workflow)
    key = AccountKey(who.tenant, workflow, account_id)
    await service.recall.forget(served, key)  # a store that cannot be reached refuses all of it
    erased = await service.ledger.erase(key, service.clock())
    try:
        await service.recall.forget(served, key)  # what a request in flight stored meanwhile
    except MemoryUnavailableError as error:
        log.warning("a memory of an erased account may rest until it idles out: %s", error)
    return ErasureAnswer(
        account_id=account_id, decisions=erased.decisions, feedback=erased.feedback
    )


@router.get(
    f"{ACCOUNT}/export",
    response_class=StreamingResponse,
    responses={**documented(404, 422, 503), 200: {"model": AccountExport}},
    tags=["accounts"],
)
async def export(
    service: Running, who: AsOperator, workflow: str, account_id: PathId
) -> StreamingResponse:
    """Everything that is known of an account, as a document to download."""
    served_workflow(service, workflow)
    account = await service.ledger.account(AccountKey(who.tenant, workflow, account_id))
    if account is None:
        raise AccountUnknownError
    return StreamingResponse(
        exported(service, account, service.clock()),
        media_type="application/json",
        headers={"Content-Disposition": 'attachment; filename="account.json"'},
    )


@router.get(
    "/workflows/{workflow}/verification", responses=documented(404, 422, 503), tags=["ledger"]
)
async def verify(
    service: Running, who: AsOperator, workflow: str, after: After = None, limit: Limit = 100
) -> VerificationPage:
    """Compare the tenant's accounts and their memories with what the ledger's events come to."""
    served = served_workflow(service, workflow)
    found = await service.verifier.page(served, who.tenant, limit, after)
    return VerificationPage(
        accounts=found.accounts,
        interactions=found.interactions,
        memories=found.memories,
        snapshots=found.snapshots,
        incomplete=found.incomplete,
        differing=[
            DifferenceRecord(account_id=one.key.account_id, what=one.what, detail=one.detail)
            for one in found.differing
        ],
        next=found.next,
        digest=found.digest,
    )


@router.post("/workflows/{workflow}/rebuild", responses=documented(404, 422, 503), tags=["ledger"])
async def rebuild_page(
    service: Running, who: AsOperator, workflow: str, after: After = None, limit: Limit = 100
) -> RebuildPage:
    """Fold the pasts of the tenant's accounts afresh, and store that in place of what is stored."""
    served = served_workflow(service, workflow)
    page = await service.rebuilder.page(served, who.tenant, limit, after)
    return RebuildPage(
        accounts=page.accounts,
        interactions=page.interactions,
        different=page.different,
        seconds=page.seconds,
        digest=page.digest,
        next=page.next,
    )
