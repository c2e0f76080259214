"""`acclimate kill-switch`: have the fallback decide, with or without a service that answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from getpass import getuser
from pathlib import Path
from typing import Annotated, Any

import typer

from service.operator_cli import LOCAL, AsJson, Key, Url, Why, ask, moment, refuse, signed
from service.rollouts.kill_switch import SwitchFile
from service.rollouts.traffic import EVERYTHING

app = typer.Typer(
    help="Have the fallback decide everything, at once: `on` and `off`, for all workflows or one. "
    "Kept in Redis and in a file beside the service; works while the database is down.",
    no_args_is_help=True,
)

SwitchWorkflow = Annotated[str | None, typer.Option(help="Only this one; default: all.")]
SwitchDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Write the file beside a service there instead of asking it: it takes note within a "
        "second, and works when it does not answer.",
    ),
]


@app.command("on")
def on_command(
    why: Why,
    workflow: SwitchWorkflow = None,
    data_dir: SwitchDir = None,
    url: Url = LOCAL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Have the fallback decide from the next decision on."""
    _throw(True, why, workflow, data_dir, url, key, as_json)


@app.command("off")
def off_command(
    why: Why,
    workflow: SwitchWorkflow = None,
    data_dir: SwitchDir = None,
    url: Url = LOCAL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Let policies decide again."""
    _throw(False, why, workflow, data_dir, url, key, as_json)


@app.command("show")
def switches_command(url: Url = LOCAL, key: Key = None, as_json: AsJson = False) -> None:
    """How every switch was left, by whom and why. Exits with 0 whether or not one is on."""
    _show_switches(ask(url, key, "GET", "/v1/kill-switch"), as_json)


def _throw(
    on: bool,
    why: str,
    workflow: str | None,
    data_dir: Path | None,
    url: str,
    key: str | None,
    as_json: bool,
) -> None:
    if data_dir is None:
        body = signed(why) | {"on": on, "workflow": workflow}
        _show_switches(ask(url, key, "PUT", "/v1/kill-switch", body), as_json)
        return
    try:
        SwitchFile(data_dir).throw(workflow or EVERYTHING, on, getuser(), why)
    except (OSError, ValueError) as error:
        refuse(str(error), 2)
    told = {"workflow": workflow, "on": on, "file": str(SwitchFile(data_dir).path)}
    print(json.dumps(told) if as_json else f"{'on' if on else 'off'}: written to {told['file']}")


def _show_switches(answer: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(answer))
        return
    if not answer["switches"]:
        print("no kill switch was ever thrown")
    for one in answer["switches"]:
        scope = one["workflow"] or "all workflows"
        state = "ON " if one["on"] else "off"
        print(f"{state} {scope}: {one['actor']}, {moment(one['at'])}: {one['why']}")
