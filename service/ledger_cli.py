"""`acclimate ledger`: check what the ledger holds, rebuild memories from it, take it elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from contract.bundle import BundleError
from contract.spec import SpecError
from service.access.roles import DEFAULT_TENANT
from service.beside import Beside, open_beside
from service.cli import read_settings
from service.clock import to_us
from service.ledger.reading import open_to_read
from service.ledger.records import AccountKey, AccountUnknownError, LedgerUnavailableError
from service.ledger.scan import (
    Scope,
    count_accounts,
    count_decisions,
    read_scopes,
)
from service.ledger_export import Export, ExportError
from service.memory.store import MemoryUnavailableError
from service.recall import UnreadablePastError
from service.replay import RebuiltPage, joint_digest
from service.settings import Settings
from service.verify import Verification

PAGE = 100
"""Accounts checked or rebuilt between two steps of the progress bar."""

app = typer.Typer(
    help="Verify, rebuild from and export the ledger. Settings are those of `acclimate serve`.",
    no_args_is_help=True,
)
R = TypeVar("R")
P = TypeVar("P", Verification, RebuiltPage)

Workflow = Annotated[str | None, typer.Option(help="Only this one.")]
Tenant = Annotated[
    str | None, typer.Option(help="Whose accounts; default: all, with --url the key's own.")
]
Url = Annotated[
    str | None, typer.Option(help="A running service; default: open its ledger and Redis directly.")
]
Key = Annotated[
    str | None,
    typer.Option(
        envvar="ACCLIMATE_KEY",
        help="An operator's, for --url; better in the environment than here.",
    ),
]
DataDir = Annotated[Path | None, typer.Option(help="Where the embedded ledger lives.")]
Workflows = Annotated[Path | None, typer.Option(help="Directory of workflow files.")]
Policies = Annotated[Path | None, typer.Option(help="Directory of bundles.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


class Door(NamedTuple):
    """A running service, and the key to it."""

    url: str
    key: str | None


class RefusedError(Exception):
    """What was asked for cannot be done. The message says what was expected."""


@app.command()
def verify(
    workflow: Workflow = None,
    tenant: Tenant = None,
    url: Url = None,
    key: Key = None,
    data_dir: DataDir = None,
    workflows: Workflows = None,
    policies: Policies = None,
    as_json: AsJson = False,
) -> None:
    """Compare every account and memory with what the ledger's events come to.

    Exits with 0 when all are equal, with 1 when something differs, naming it, and with 2 when the
    ledger, the memories or the service cannot be opened. Reads only, also while the service runs.
    """
    settings = read_settings(data_dir=data_dir, workflows=workflows, policies=policies)
    found, notes = _run(_verify(settings, _door(url, key), tenant, workflow))
    whole = Verification()
    for one in found.values():
        whole.add(one)
    if as_json:
        print(json.dumps(_counts(whole) | {
            "digest": whole.digest,
            "workflows": {name: _counts(one) for name, one in found.items()},
            "differing": [asdict(one) | {"key": one.key._asdict()} for one in whole.differing],
            "notes": notes,
        }))  # fmt: skip
    else:
        _show_verification(found, whole, notes)
    raise typer.Exit(1 if whole.differing else 0)


@app.command()
def rebuild(
    workflow: Workflow = None,
    account: Annotated[str | None, typer.Option(help="Only this one of --workflow.")] = None,
    tenant: Tenant = None,
    url: Url = None,
    key: Key = None,
    data_dir: DataDir = None,
    workflows: Workflows = None,
    policies: Policies = None,
    as_json: AsJson = False,
) -> None:
    """Fold the past of every account, or one, afresh, and store that in place of what is stored.

    Exits with 0 when it is done, and with 2 when the ledger, the memories or the service cannot be
    opened. Without Redis, memories live in the service's own process: --url names it.
    """
    settings = read_settings(data_dir=data_dir, workflows=workflows, policies=policies)
    if account is not None and workflow is None:
        _refuse("--account: expected --workflow too")
    if url is None and settings.redis_url is None:
        _refuse("memories live in the service's own process here: expected --url, or "
                "ACCLIMATE_REDIS_URL for those that Redis keeps")  # fmt: skip
    if account is not None and workflow is not None:
        pages = [_run(_rebuild_account(settings, _door(url, key), tenant, workflow, account))]
    else:
        pages = _run(_rebuild(settings, _door(url, key), tenant, workflow))
    digest = joint_digest(page.digest for page in pages)
    totals = {
        "accounts": sum(page.accounts for page in pages),
        "interactions": sum(page.interactions for page in pages),
        "different": sum(page.different for page in pages),
        "seconds": round(sum(page.seconds for page in pages), 3),
    }
    if as_json:
        print(json.dumps(totals | {"digest": digest}))
        return
    table = Table("rebuilt", *list(totals)[1:])
    table.add_row(*(f"{value:,}" for value in totals.values()))
    Console().print(table)
    Console().print(f"digest {digest}", soft_wrap=True, highlight=False)


@app.command()
def export(
    to: Annotated[Path, typer.Option(help="A file that ends in .parquet, .vw or .jsonl.")],
    workflow: Workflow = None,
    tenant: Annotated[str | None, typer.Option(help="Only this one's; default: all.")] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"],
            help="Only decisions made then or later; UTC unless it says otherwise.",
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also decisions that came to no reward.")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Write decisions with propensities and rewards to a file, for evaluation or another learner.

    .vw is one file a workflow, FILE-<workflow>.vw each unless --workflow names one, and beside it
    the actions' numbers in FILE.vw.json. Reads only, also while the service runs. Exits with 2
    when the ledger cannot be opened or the file not be written; then there is no file.
    """
    settings = read_settings(data_dir=data_dir)
    if since is not None and since.tzinfo is None:
        since = since.replace(tzinfo=UTC)
    since_us = None if since is None else to_us(since)
    try:
        for path, count in _export(settings, to, tenant, workflow, since_us, not everything):
            print(f"{path}: {count:,} decisions")
    except (LedgerUnavailableError, ExportError, OSError) as error:
        _refuse(str(error))


def _door(url: str | None, key: str | None) -> Door | None:
    return None if url is None else Door(url, key)


async def _verify(
    settings: Settings, door: Door | None, tenant: str | None, workflow: str | None
) -> tuple[dict[str, Verification], list[str]]:
    """What was found by workflow, and what to know of it."""
    found: dict[str, Verification] = {}
    if door is not None:
        async with _connect(door, tenant) as remote:
            for name in [workflow] if workflow else await remote.workflows():
                found[name] = Verification()
                with _progress(name, None) as advance:
                    async for page in _walk(partial(remote.verify, name, PAGE)):
                        found[name].add(page)
                        advance(page.accounts)
        return found, []
    async with open_beside(settings) as beside:
        for name in _chosen(beside, workflow):
            found[name] = Verification()
            served = beside.catalog.workflows[name]
            with _progress(name, await _count(beside, tenant, name)) as advance:
                for one in await _tenants(beside, tenant, name):
                    async for page in _walk(partial(beside.verifier.page, served, one, PAGE)):
                        found[name].add(page)
                        advance(page.accounts)
        return found, await _notes(beside, workflow)


async def _rebuild(
    settings: Settings, door: Door | None, tenant: str | None, workflow: str | None
) -> list[RebuiltPage]:
    """Every page that was rebuilt."""
    pages: list[RebuiltPage] = []
    if door is not None:
        async with _connect(door, tenant) as remote:
            for name in [workflow] if workflow else await remote.workflows():
                with _progress(name, None) as advance:
                    async for page in _walk(partial(remote.rebuild, name, PAGE)):
                        pages.append(page)
                        advance(page.accounts)
        return pages
    async with open_beside(settings) as beside:
        for name in _chosen(beside, workflow):
            served = beside.catalog.workflows[name]
            with _progress(name, await _count(beside, tenant, name)) as advance:
                for one in await _tenants(beside, tenant, name):
                    async for page in _walk(partial(beside.rebuilder.page, served, one, PAGE)):
                        pages.append(page)
                        advance(page.accounts)
    return pages


async def _rebuild_account(
    settings: Settings, door: Door | None, tenant: str | None, workflow: str, account: str
) -> RebuiltPage:
    """One account, as a page of it alone; its digest is the memory's."""
    if door is not None:
        async with _connect(door, tenant) as remote:
            told = await remote.rebuild_account(workflow, account)
        different = int(told["was_equal"] is False)
        return RebuiltPage(
            1, told["interactions"], different, told["seconds"], told["digest"], None
        )
    async with open_beside(settings) as beside:
        _chosen(beside, workflow)
        served = beside.catalog.workflows[workflow]
        done = await beside.rebuilder.account(
            served, AccountKey(tenant or DEFAULT_TENANT, workflow, account)
        )
        different = int(done.was_equal is False)
        return RebuiltPage(1, done.interactions, different, done.seconds, done.digest, None)


async def _walk(page: Callable[[str | None], Awaitable[P]]) -> AsyncIterator[P]:
    """Pages from the first to the last."""
    after = None
    while True:
        found = await page(after)
        yield found
        after = found.next
        if after is None:
            return


def _export(
    settings: Settings,
    to: Path,
    tenant: str | None,
    workflow: str | None,
    since_us: int | None,
    folded_only: bool,
) -> Iterator[tuple[Path, int]]:
    """Each file that was written, with how many decisions."""
    ledger = open_to_read(settings.ledger)
    names: list[str | None] = [workflow]
    if to.suffix == ".vw" and workflow is None:
        names = sorted(
            {one.workflow for one in ledger.read_now(read_scopes(Scope(tenant)))}, key=str
        )
    for name in names:
        scope = Scope(tenant, name)
        path = to if name == workflow else to.with_name(f"{to.stem}-{name}{to.suffix}")
        query = count_decisions(scope, since_us=since_us, folded_only=folded_only)
        with _progress(path.name, ledger.read_now(query)) as advance:
            written = Export(scope, path, since_us, folded_only).run(ledger, advance)
        yield path, written


def _chosen(beside: Beside, workflow: str | None) -> list[str]:
    """The workflows to walk."""
    served = sorted(beside.catalog.workflows)
    if workflow is None:
        return served
    if workflow not in served:
        raise RefusedError(f"--workflow: expected one of {served}, got {workflow!r}")
    return [workflow]


async def _count(beside: Beside, tenant: str | None, workflow: str) -> int:
    return await beside.ledger.read(count_accounts(Scope(tenant, workflow)))


async def _tenants(beside: Beside, tenant: str | None, workflow: str) -> list[str]:
    """Those that have accounts of a workflow."""
    scopes = await beside.ledger.read(read_scopes(Scope(tenant, workflow)))
    return [one.tenant for one in scopes if one.tenant is not None]


async def _notes(beside: Beside, workflow: str | None) -> list[str]:
    notes = []
    if not beside.shares_memories:
        notes.append(
            "memories live in the service's own process here and were not looked at: --url names it"
        )
    if workflow is None:
        known = {one.workflow for one in await beside.ledger.read(read_scopes(Scope()))}
        passed_over = sorted(filter(None, known - set(beside.catalog.workflows)))
        if passed_over:
            notes.append(f"not served, so not replayed: {', '.join(passed_over)}")
    return notes


@contextlib.asynccontextmanager
async def _connect(door: Door, tenant: str | None) -> AsyncIterator[Any]:
    try:
        from service.ledger_remote import RemoteError, connect
    except ImportError as error:
        raise RefusedError("--url needs httpx: pip install 'acclimate[client]'") from error
    try:
        async with connect(door.url, tenant, door.key) as remote:
            yield remote
    except RemoteError as error:
        raise RefusedError(str(error)) from error


@contextlib.contextmanager
def _progress(title: str, total: int | None) -> Iterator[Any]:
    """A bar on standard error; call what it gives with how many more are done."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda more: bar.advance(task, more)


def _counts(found: Verification) -> dict[str, int]:
    return {
        "accounts": found.accounts,
        "interactions": found.interactions,
        "memories": found.memories,
        "snapshots": found.snapshots,
        "incomplete": found.incomplete,
        "different": len(found.differing),
    }


def _show_verification(
    found: dict[str, Verification], whole: Verification, notes: list[str]
) -> None:
    out = Console()
    table = Table("workflow", *_counts(whole))
    for name, one in found.items():
        table.add_row(name, *(f"{count:,}" for count in _counts(one).values()))
    out.print(table)
    for off in whole.differing:
        where = "/".join(off.key)
        out.print(f"[red]{off.what}[/red] of {escape(f'{where}: {off.detail}')}", soft_wrap=True)
    for note in notes:
        out.print(f"[dim]{note}[/dim]", soft_wrap=True)
    said = "[red]not what the events come to[/red]" if whole.differing else "[green]equal[/green]"
    out.print(f"{said}; digest {whole.digest}", soft_wrap=True, highlight=False)


def _run(work: Coroutine[Any, Any, R]) -> R:
    """What it gives. Exits with 2 when something cannot be opened or read."""
    try:
        return asyncio.run(work)
    except AccountUnknownError:
        _refuse("--account: expected an account that has had a decision")
    except (
        BundleError,
        LedgerUnavailableError,
        MemoryUnavailableError,
        RefusedError,
        SpecError,
        UnreadablePastError,
    ) as error:
        _refuse(str(error))


def _refuse(why: str) -> NoReturn:
    print(f"acclimate: {why}", file=sys.stderr)
    raise typer.Exit(2)
