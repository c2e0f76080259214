"""`acclimate keys`: give out API keys, list, rotate and revoke them."""

from __future__ import annotations

import asyncio
import getpass
import json
import sys
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from service.access.giving import Giver
from service.access.keys import new_key
from service.access.roles import Role
from service.api import keys as api
from service.api.schemas import PATTERNS
from service.cli import read_settings
from service.clock import now_us
from service.ledger.keys import KeyUnknownError
from service.ledger.ledger import Ledger
from service.ledger.records import LedgerUnavailableError

TIMEOUT_SECONDS = 30.0

app = typer.Typer(
    help="Give out API keys, list, rotate and revoke them.\n\nWithout --url the ledger is opened "
    "directly, with the settings of `acclimate serve`: whoever can do that needs no key. Start "
    "with `acclimate keys create --role admin --name you`.",
    no_args_is_help=True,
)


class RoleName(StrEnum):
    """The roles, as they are typed."""

    caller = "caller"
    operator = "operator"
    admin = "admin"


Url = Annotated[str | None, typer.Option(help="A running service; default: open its ledger.")]
Key = Annotated[
    str | None,
    typer.Option(
        envvar="ACCLIMATE_KEY",
        help="An admin's key, for --url. Better in the environment: others may see a command line.",
    ),
]
DataDir = Annotated[Path | None, typer.Option(help="Where the embedded ledger lives.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
KeyId = Annotated[str, typer.Argument(help="As `acclimate keys list` shows it.")]


@app.command()
def new(as_json: AsJson = False) -> None:
    """Print a random key that nothing knows of yet, for ACCLIMATE_ADMIN_KEY."""
    text = new_key().text
    print(json.dumps({"key": text}) if as_json else text)


@app.command()
def create(
    name: Annotated[str, typer.Option(help="What it is for; records name it.")],
    role: Annotated[RoleName, typer.Option(help="What it may do.")] = RoleName.caller,
    tenant: Annotated[
        str | None,
        typer.Option(
            help="Whose accounts it reaches, '*' for every tenant's; default: 'default' for "
            "callers, '*' for operators and admins."
        ),
    ] = None,
    expires_in_days: Annotated[float | None, typer.Option(help="Default: never.")] = None,
    url: Url = None,
    key: Key = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Give out a key. It is printed once, on standard output, and kept nowhere.

    caller: decides, learns, reads its own tenant. operator: looks after its tenant's accounts, and
    of every tenant, rollouts and the kill switch. admin: keys too. A running service knows it
    within seconds. Exits with 2 when it is not given out.
    """
    sent = {"name": name, "role": role.value, "tenant": tenant, "expires_in_days": expires_in_days}
    body = _valid(api.KeyBody, sent)

    async def give(giver: Giver) -> dict[str, Any]:
        row, text = await giver.create(
            body.name, Role[body.role], body.tenant, body.expires_in_days
        )
        return {"key": text} | api.fields(row, now_us())

    told = _told(api.NewKeyRecord, url, key, data_dir, ("POST", "/v1/keys", sent), give)
    _show_new(told, as_json)


@app.command("list")
def list_keys(
    url: Url = None, key: Key = None, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Show every key there ever was: whose, until when, and whether it is valid. Never its text."""

    async def read(giver: Giver) -> dict[str, Any]:
        now = now_us()
        return {"keys": [api.fields(row, now) for row in await giver.keys()]}

    told = _told(api.KeyList, url, key, data_dir, ("GET", "/v1/keys", None), read)
    if as_json:
        print(json.dumps(told))
        return
    columns = ("key_id", "name", "role", "tenant")
    table = Table(Column(columns[0], no_wrap=True), *columns[1:], "valid")
    for one in told["keys"]:
        table.add_row(*(escape(one[name]) for name in columns), escape(_validity(one)))
    Console().print(table)


@app.command()
def rotate(
    key_id: KeyId,
    overlap_days: Annotated[
        float, typer.Option(help="How long the old key stays valid beside the new one.")
    ] = 1.0,
    url: Url = None,
    key: Key = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Give out a key in place of another, which stays valid for a while: put the new one wherever
    the old one is, and nothing is refused meanwhile. Exits with 2 when there is no such key."""
    sent = {"overlap_days": overlap_days}
    _valid(api.RotationBody, sent)

    async def give(giver: Giver) -> dict[str, Any]:
        new, text, old = await giver.rotate(key_id, overlap_days)
        now = now_us()
        return {"new": {"key": text} | api.fields(new, now), "old": api.fields(old, now)}

    ask = ("POST", f"/v1/keys/{_path(key_id)}/rotate", sent)
    told = _told(api.Rotation, url, key, data_dir, ask, give)
    if as_json:
        print(json.dumps(told))
        return
    _show_new(told["new"], as_json)
    print(f"{key_id} is valid until {told['old']['expires_at']}", file=sys.stderr)


@app.command()
def revoke(
    key_id: KeyId,
    url: Url = None,
    key: Key = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Let a key be valid no more, within seconds on every replica. Exits with 2 when there is no
    such key."""

    async def take(giver: Giver) -> dict[str, Any]:
        return api.fields(await giver.revoke(key_id), now_us())

    ask = ("POST", f"/v1/keys/{_path(key_id)}/revoke", None)
    told = _told(api.KeyRecord, url, key, data_dir, ask, take)
    print(json.dumps(told) if as_json else f"{key_id} was revoked at {told['revoked_at']}")


def _show_new(told: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(told))
        return
    whose = "every tenant" if told["tenant"] == "*" else f"tenant {told['tenant']}"
    print(f"{told['key_id']}: {told['role']} of {whose}, valid {_validity(told)}.", file=sys.stderr)
    print("This is its text, shown once:", file=sys.stderr)
    print(told["key"])


def _validity(one: dict[str, Any]) -> str:
    if one["revoked_at"]:
        return f"no: revoked at {one['revoked_at']} by {one['revoked_by']}"
    if one["expires_at"]:
        return f"until {one['expires_at']}" if one["valid"] else f"no: ended {one['expires_at']}"
    return "until it is revoked"


def _valid(model: type[Any], sent: dict[str, Any]) -> Any:
    try:
        return model.model_validate(sent)
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + "-".join(str(part) for part in first["loc"]).replace("_", "-")
        pattern = first.get("ctx", {}).get("pattern")
        _refuse(f"{option}: expected {PATTERNS.get(pattern, first['msg'])}")


def _path(key_id: str) -> str:
    if not key_id.isalnum():
        _refuse(f"expected a key's id, as `acclimate keys list` shows it, got {key_id!r}")
    return key_id


def _told(
    model: type[Any],
    url: str | None,
    key: str | None,
    data_dir: Path | None,
    ask: tuple[str, str, Any],
    work: Callable[[Giver], Awaitable[dict[str, Any]]],
) -> dict[str, Any]:
    """What the service at `url` says, or `work` on the ledger gives, as JSON has it. Exits with 2
    when that cannot be had."""
    if url is not None:
        return _over_rest(url, key, *ask)
    settings = read_settings(data_dir=data_dir)

    async def beside() -> dict[str, Any]:
        ledger = Ledger.open(settings.ledger)
        try:
            by = f"{getpass.getuser()} at a command line"
            return await work(Giver(ledger, now_us, by, None))
        finally:
            await ledger.close()

    try:
        answer = asyncio.run(beside())
    except LedgerUnavailableError as error:
        _refuse(str(error))
    except KeyUnknownError:
        _refuse("expected the id of a key that is valid; `acclimate keys list` shows them")
    told: dict[str, Any] = TypeAdapter(model).validate_python(answer).model_dump(mode="json")
    return told


def _over_rest(url: str, key: str | None, method: str, path: str, body: Any) -> dict[str, Any]:
    try:
        import httpx
    except ImportError:
        _refuse("--url needs httpx: pip install 'acclimate[client]'")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_SECONDS) as http:
            answer = http.request(method, path, json=body)
            told: dict[str, Any] = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        _refuse(f"{url} does not answer: {type(error).__name__}")
    if not answer.is_success:
        _refuse(f"{answer.status_code}: {told.get('detail', answer.reason_phrase)}")
    return told


def _refuse(message: str) -> NoReturn:
    print(f"acclimate: {message}", file=sys.stderr)
    raise typer.Exit(2)
