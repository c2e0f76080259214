"""The console's pages. Each asks for the role that the API asks for the same, and shows what a key
may see: its tenant's accounts, and what is one for all tenants to whoever runs the installation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple, get_args

from fastapi import APIRouter, Query, Request, Response
from starlette.responses import RedirectResponse

from contract.adaptation import Phase
from guardrails.memory_health import Health, limits, measure, sickness
from service.access.roles import ANYONE, EVERY_TENANT, Role, Who
from service.api.access import OPEN, AsCaller, AsOperator
from service.api.console_session import HOME, SIGNED_IN, TOKEN
from service.api.problems import NotFoundError
from service.api.routes import Running, served_workflow
from service.api.schemas import PathId
from service.api.strict import StrictRoute
from service.catalog import Workflow
from service.console import charts
from service.console.pages import ASSETS, HEADERS, asset, render
from service.console.reading import (
    PAGE,
    Standing,
    from_place,
    read_accounts,
    read_generations,
    read_history,
    read_rewards,
    read_standings,
    to_place,
)
from service.console.rules import fallback, rules
from service.ledger.curves import FALLBACK, Curve, read_curves
from service.ledger.records import Account, AccountKey, AccountUnknownError
from service.ledger.scan import Scope, count_decisions
from service.memory.store import MemoryUnavailableError, StoredMemory
from service.rollouts.traffic import EVERYTHING
from service.runtime import Service

router = APIRouter(prefix=HOME, route_class=StrictRoute, include_in_schema=False)

PHASES: tuple[Phase, ...] = get_args(Phase)
Before = Annotated[str | None, Query(max_length=160)]
DONE = {
    "advance": "Advanced to the next stage.",
    "approve": "Approved: it goes on with the next verdict.",
    "pause": "Paused.",
    "resume": "Resumed: its stage begins anew.",
    "roll-back": "Rolled back: its accounts are served as before from their next decision on.",
    "on": "The fallback decides from now on.",
    "off": "Policies decide again.",
    "acknowledge": "Noted as seen.",
    "clear": "Cleared.",
}
"""What a page says of what was just done."""
Done = Annotated[str | None, Query(max_length=16)]


class Curves(NamedTuple):
    """A workflow's adaptation curves, ready to be drawn."""

    lines: list[charts.Line]
    declared: float | None
    """What its file says that the fallback earns; None where the fallback's own curve shows it."""


def page(
    request: Request, service: Service, who: Who, template: str, section: str, **values: Any
) -> Response:
    """A page in its frame: who looks, what they may open, what holds for all."""
    of_all = who.holder.tenant == EVERY_TENANT
    may_operate = who.role >= Role.operator
    thrown = service.kill_switch.switches if of_all and may_operate else {}
    frame = {
        "section": section,
        "who": who,
        "keyless": who.holder is ANYONE,
        "of_all": of_all,
        "may_operate": may_operate,
        "may_release": of_all and may_operate,
        "signed_in": request.scope.get(SIGNED_IN, False),
        "token": request.scope.get(TOKEN, ""),
        "now_us": service.clock(),
        "killed": sorted(scope for scope, one in thrown.items() if one.on),
        "everything": EVERYTHING,
        "done": DONE.get(values.pop("done", None) or ""),
    }
    return Response(render(template, frame | values), 200, HEADERS, "text/html")


@router.get("")
async def overview(request: Request, service: Running, who: AsCaller) -> Response:
    """Every workflow: how far its accounts are, and how they got there."""
    standings = await service.ledger.read(read_standings(who.tenant))
    busy, quiet = [], []
    for workflow in service.catalog.workflows.values():
        standing = standings.get(workflow.name, Standing())
        if not standing.accounts:
            quiet.append(workflow)
            continue
        found = await _curves(service, who.tenant, workflow)
        target, scale = workflow.spec.adaptation.target, workflow.spec.reward
        chart = charts.adaptation(found.lines, target, found.declared, scale, charts.SMALL)
        busy.append(
            {
                "workflow": workflow,
                "standing": standing,
                "lines": found.lines,
                "declared": found.declared,
                "chart": chart,
                "bar": charts.phases(standing.phases, PHASES),
                "rollout": _on_its_way(service, workflow.name, who),
            }
        )
    busy.sort(key=lambda one: -one["standing"].changed_us)
    return page(
        request,
        service,
        who,
        "overview.html",
        "workflows",
        busy=busy,
        quiet=quiet,
        phases=PHASES,
    )


@router.get("/workflows/{workflow}")
async def one_workflow(
    request: Request, service: Running, who: AsCaller, workflow: str
) -> Response:
    """One workflow: its adaptation curve in full, its accounts by phase, what it declares."""
    served = served_workflow(service, workflow)
    standings = await service.ledger.read(read_standings(who.tenant, workflow))
    standing = standings.get(workflow, Standing())
    found = await _curves(service, who.tenant, served)
    target, scale = served.spec.adaptation.target, served.spec.reward
    return page(
        request,
        service,
        who,
        "workflow.html",
        "workflows",
        workflow=served,
        tab="adaptation",
        standing=standing,
        phases=PHASES,
        bar=charts.phases(standing.phases, PHASES),
        lines=found.lines,
        declared=found.declared,
        drawn=[
            charts.adaptation(found.lines, target, found.declared, scale, size)
            for size in (charts.WIDE, charts.NARROW)
        ],
        rollout=_on_its_way(service, workflow, who),
        rules=rules(served.spec),
        fallback=fallback(served.spec),
    )


@router.get("/workflows/{workflow}/accounts")
async def accounts(
    request: Request,
    service: Running,
    who: AsOperator,
    workflow: str,
    phase: Phase | None = None,
    before: Before = None,
    find: Annotated[str | None, Query(max_length=128)] = None,
) -> Response:
    """A page of a workflow's accounts, those that changed last first."""
    served = served_workflow(service, workflow)
    sought = (find or "").strip()
    if sought and await service.ledger.account(AccountKey(who.tenant, workflow, sought)):
        return RedirectResponse(f"{HOME}/workflows/{workflow}/accounts/{sought}", 303)
    standings = await service.ledger.read(read_standings(who.tenant, workflow))
    place = to_place(before) if before else None
    found = await service.ledger.read(read_accounts(who.tenant, workflow, phase, place))
    shown = found[:PAGE]
    return page(
        request,
        service,
        who,
        "accounts.html",
        "workflows",
        workflow=served,
        tab="accounts",
        standing=standings.get(workflow, Standing()),
        phases=PHASES,
        phase=phase,
        accounts=shown,
        is_first=place is None,
        next=from_place(shown[-1].updated_at_us, shown[-1].key.account_id)
        if len(found) > PAGE
        else None,
        sought=sought,
    )


@router.get("/workflows/{workflow}/accounts/{account_id}")
async def one_account(
    request: Request,
    service: Running,
    who: AsOperator,
    workflow: str,
    account_id: PathId,
    before: Before = None,
) -> Response:
    """One account: its rewards, its decisions with what came of them, its memory."""
    served = served_workflow(service, workflow)
    key = AccountKey(who.tenant, workflow, account_id)
    account = await service.ledger.account(key)
    if account is None:
        raise AccountUnknownError
    place = to_place(before) if before else None
    steps = await service.ledger.read(read_history(key, place))
    rewards = await service.ledger.read(read_rewards(account))
    target = served.spec.adaptation
    shown = steps[:PAGE]
    last = shown[-1].decision if len(steps) > PAGE else None
    return page(
        request,
        service,
        who,
        "account.html",
        "workflows",
        workflow=served,
        tab="accounts",
        account=account,
        decisions=await service.ledger.read(count_decisions(Scope(*key))),
        steps=[(one.decision, one.came, json.dumps(one.decision.context)) for one in shown],
        is_first=place is None,
        next=from_place(last.created_at_us, last.decision_id) if last else None,
        generations=await service.ledger.read(read_generations(key)),
        drawn=[
            charts.account(
                rewards, target.target, target.window, account.adaptation.adapted_at, size
            )
            for size in (charts.WIDE, charts.NARROW)
        ],
        has_fallback=any(not one.by_policy for one in rewards),
        memories=[
            await _memory(service, one, account) for one in service.catalog.serving(workflow)
        ],
    )


@router.get("/assets/{name}", dependencies=[OPEN])
async def assets(name: str) -> Response:
    """A file that pages load. Raises NotFoundError."""
    if name not in ASSETS:
        raise NotFoundError("name", f"one of {sorted(ASSETS)}")
    return Response(asset(name), media_type=ASSETS[name])


async def _curves(service: Service, tenant: str, workflow: Workflow) -> Curves:
    """The curves of the policies that serve first, then of others, then of the fallback."""
    found = await service.ledger.read(read_curves(tenant, workflow.name))
    serving = [one.policy_name for one in service.catalog.serving(workflow.name)]
    names = [name for name in serving if name in found]
    others = sorted(name for name in found if name not in (*names, FALLBACK))
    lines = [_line(name, "policy" if i == 0 else "other", found) for i, name in enumerate(names)]
    lines += [_line(name, "older", found) for name in others]
    if FALLBACK in found:
        lines.append(_line(FALLBACK, "fallback", found))
    lines = [one for one in lines if one.points]
    exploration = workflow.spec.guardrails.exploration
    has_own = any(one.kind == "fallback" for one in lines)
    declared = None if exploration is None or has_own else exploration.fallback_reward
    return Curves(lines, declared)


def _line(name: str, kind: str, found: Mapping[str, Curve]) -> charts.Line:
    return charts.Line(name, kind, charts.to_points(found[name]))


def _on_its_way(service: Service, workflow: str, who: Who) -> Any:
    """The workflow's rollout, for those whom the API tells of it."""
    if who.holder.tenant != EVERY_TENANT or who.role < Role.operator:
        return None
    lineup = service.traffic.lineups.get(workflow)
    return lineup.active.rollout if lineup is not None and lineup.active is not None else None


async def _memory(service: Service, workflow: Workflow, account: Account) -> dict[str, Any]:
    """What is known of the memory that a policy has of an account, without touching it: where it
    stands, and how far it is from those of training."""
    found: StoredMemory | MemoryUnavailableError | None
    try:
        identity = workflow.policy.identity
        (found,) = await service.memories.get_many([(account.key, identity)], keep_alive=False)
    except MemoryUnavailableError as error:
        found = error
    stored = found if isinstance(found, StoredMemory) else None
    health: list[tuple[str, float, float]] = []
    sick = None
    if stored is not None:
        reference, position = workflow.policy.reference, stored.head.position
        sick = sickness(reference, stored.memory, position)
        highest = limits(reference, position)
        finite = sick is None or sick.measure != "not_finite"
        if reference is not None and highest is not None and finite:
            measured = measure(reference, stored.memory, position)
            health = list(zip(Health._fields, measured, highest, strict=True))
    return {
        "health": health,
        "sick": sick,
        "policy": workflow.policy_name,
        "unavailable": isinstance(found, MemoryUnavailableError),
        "stored": stored,
        "at_head": stored is not None and stored.head == account.head,
    }
