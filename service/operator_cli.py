"""What the commands of operators share: which service, which key, why, and how they end."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import datetime
from getpass import getuser
from typing import Annotated, Any, NoReturn

import typer

Url = Annotated[str, typer.Option(help="The service.", envvar="ACCLIMATE_URL")]
LOCAL = "http://127.0.0.1:8000"
Key = Annotated[
    str | None,
    typer.Option(
        help="An operator's key of every tenant, where the service needs one.",
        envvar="ACCLIMATE_KEY",
        show_envvar=True,
    ),
]
Why = Annotated[str, typer.Option(help="For the audit trail: why you do this.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


def signed(why: str) -> dict[str, Any]:
    """What a body says of who and why; with a key, the key says who."""
    return {"why": why, "by": getuser()}


def moment(told: str) -> str:
    """A time of the API's, for people."""
    return datetime.fromisoformat(told).strftime("%Y-%m-%d %H:%M:%S")


def ask(
    url: str,
    key: str | None,
    method: str,
    path: str,
    body: Mapping[str, Any] | None = None,
    *,
    tenant: str | None = None,
    refused: int = 1,
) -> Any:
    """What the service answers. Exits with `refused` when it says no, with 2 when it does not
    answer."""
    try:
        from service.operator_remote import RefusedError, RemoteError, connect
    except ImportError:
        refuse("this needs httpx: pip install 'acclimate[client]'", 2)
    try:
        with connect(url, key, tenant) as door:
            return door.ask(method, path, body)
    except RefusedError as error:
        refuse(str(error), refused)
    except RemoteError as error:
        refuse(str(error), 2)


def refuse(why: str, status: int) -> NoReturn:
    """Says why, and exits."""
    print(f"acclimate: {why}", file=sys.stderr)
    raise typer.Exit(status)
