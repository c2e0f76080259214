"""`acclimate alarms`: a running service's alarms, over REST."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any
from urllib.parse import urlencode

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from service.operator_cli import LOCAL, AsJson, Url, ask

app = typer.Typer(
    help="List alarms, say that one was seen, end one.",
    no_args_is_help=True,
)

Tenant = Annotated[str, typer.Option(help="Whose.")]
Key = Annotated[
    str | None,
    typer.Option(
        envvar="ACCLIMATE_KEY",
        show_envvar=True,
        help="An operator's key, where the service needs one.",
    ),
]
AlarmId = Annotated[str, typer.Argument(help="As `acclimate alarms list` shows it.")]


@app.command("list")
def list_command(
    workflow: Annotated[str | None, typer.Option(help="Only this one's.")] = None,
    kind: Annotated[
        str | None, typer.Option(help="reward_shift, exploration_collapse or memory_health.")
    ] = None,
    account: Annotated[str | None, typer.Option(help="Only those about this one.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Cleared ones too.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="At most.")] = 100,
    url: Url = LOCAL,
    tenant: Tenant = "default",
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show alarms, the newest first, with the likely cause and what to do.

    Exits with 0 when none is open, with 1 when some are, and with 2 when the service cannot be
    asked.
    """
    asked = {
        "workflow": workflow,
        "kind": kind,
        "account_id": account,
        "state": "all" if everything else "open",
        "limit": limit,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    path = f"/v1/alarms?{urlencode(given)}"
    found = ask(url, key, "GET", path, tenant=tenant, refused=2)["alarms"]
    if as_json:
        print(json.dumps(found))
    else:
        _show(found)
    raise typer.Exit(1 if any(one["state"] != "cleared" for one in found) else 0)


@app.command()
def acknowledge(
    alarm_id: AlarmId,
    note: Annotated[str | None, typer.Option(help="What to note of it.")] = None,
    url: Url = LOCAL,
    tenant: Tenant = "default",
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Say that an alarm was seen; what follows from it goes on."""
    path = f"/v1/alarms/{alarm_id}/acknowledge"
    _told(ask(url, key, "POST", path, {"note": note}, tenant=tenant, refused=2), as_json)


@app.command()
def clear(
    alarm_id: AlarmId,
    url: Url = LOCAL,
    tenant: Tenant = "default",
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """End an alarm: whoever it held on the fallback is served by the policy again."""
    path = f"/v1/alarms/{alarm_id}/clear"
    _told(ask(url, key, "POST", path, tenant=tenant, refused=2), as_json)


def _show(found: list[dict[str, Any]]) -> None:
    if not found:
        print("no alarms")
        return
    table = Table("alarm", "state", "what", "about", "cause", "suggestion", "then")
    for one in found:
        about = one["account_id"] or one["bucket"] or "all accounts"
        table.add_row(
            one["alarm_id"],
            one["state"],
            one["kind"],
            escape(f"{one['workflow']}: {about}"),
            one["cause"],
            one["suggestion"],
            one["consequence"],
        )
    Console(width=None if sys.stdout.isatty() else 240).print(table)


def _told(alarm: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(alarm))
        return
    by = alarm["cleared_by"] or alarm["acknowledged_by"]
    print(f"{alarm['alarm_id']}: {alarm['state']} by {by}")
