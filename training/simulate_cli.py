"""`acclimate simulate`: traffic for a running service, from a workflow's simulated accounts."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from contract.spec import SpecError, load_workflow
from training.tasks.workflows.families import FAMILIES, TRAINING_VERTICALS, verticals
from training.train_command import need

if TYPE_CHECKING:
    from training.simulate import Pace, Play, Played

REFUSED = 1
"""Exit status: the service answered what nobody can play on."""
BAD_INPUT = 2
AWAY = 3
"""Exit status: no service answered, for as long as there was patience."""
INTERRUPTED = 130

_RUN = re.compile(r"[A-Za-z0-9._-]{1,40}")
_DELAY = re.compile(r"(?P<decisions>\d+)|(?P<seconds>\d+(\.\d+)?)s")

notes = Console(stderr=True)


def simulate(
    workflow: Annotated[
        str, typer.Argument(help=f"A workflow's name, or its file: {', '.join(FAMILIES)}.")
    ],
    url: Annotated[str, typer.Option(help="The service.")] = "http://127.0.0.1:8000",
    accounts: Annotated[int, typer.Option(help="Accounts, over all verticals.")] = 100,
    decisions: Annotated[int, typer.Option(help="Decisions of each account.")] = 50,
    rate: Annotated[float, typer.Option(help="Decisions a second; 0: as fast as it goes.")] = 0.0,
    vertical: Annotated[
        list[str] | None,
        typer.Option(help="Whose accounts; may be repeated. Default: those for training."),
    ] = None,
    delay: Annotated[
        str | None,
        typer.Option(
            help="How late feedback comes: decisions of the account (3), or seconds (2.5s). "
            "Default: as the vertical is."
        ),
    ] = None,
    change_at: Annotated[
        int | None,
        typer.Option(help="Before this decision, from 0, every account becomes another."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Fixes the accounts and their luck.")] = 0,
    run: Annotated[
        str,
        typer.Option(help="The run's name: the same accounts under another name are new ones."),
    ] = "sim",
    in_flight: Annotated[int, typer.Option(min=1, help="Requests under way at any time.")] = 16,
    batch: Annotated[
        bool, typer.Option("--batch", help="Send what goes together by the batch routes.")
    ] = False,
    key: Annotated[
        str | None,
        typer.Option(
            envvar="ACCLIMATE_KEY",
            help="The service's key for a caller; better in the environment than here.",
        ),
    ] = None,
    tenant: Annotated[
        str | None,
        typer.Option(help="Whose accounts they are to the service; default: the key's."),
    ] = None,
    patience: Annotated[
        float, typer.Option(min=0, help="Seconds that a service that is away is waited for.")
    ] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="Only JSON on standard output.")] = False,
) -> None:
    """Play a workflow's simulated accounts against a running service, over REST.

    The service decides; the simulator says what came of the action that was served, once it may be
    known. Accounts take their decisions together, one each, so that dashboards and rollouts have
    something to look at. The same command plays the same accounts under the same ids: what is sent
    again changes nothing, and a run that was interrupted goes on. --run plays them anew.

    Rewards are told as they came, and as expected by the simulator, who knows the accounts: of what
    was served, of what the workflow's fallback would have done then, and of the best. Where an
    action also moves an account on, as in onboarding, that is its next reward and not all of it.

    Exits with 1 when the service refuses what is sent, 2 for bad usage, 3 when no service answers.
    """
    need("acclimate simulate", "httpx")
    from training.simulate import Pace, Play
    from training.simulate_report import tables, to_json
    from training.simulate_service import RefusedError, ServiceAwayError

    try:
        name = _name(workflow)
        chosen = tuple(vertical or TRAINING_VERTICALS.get(name, ()))
        _refuse_other_verticals(name, chosen)
        late, seconds = _delay(delay)
        if not _RUN.fullmatch(run):
            raise ValueError(f"run: expected 1 to 40 of A-Z a-z 0-9 . _ -, got {run!r}")
        if not 0 <= rate < float("inf"):
            raise ValueError(f"rate: expected decisions a second, 0 or more, got {rate:g}")
        play = Play(name, chosen, accounts, decisions, seed, late, change_at, run)
        pace = Pace(rate, seconds, in_flight, batch)
        played = asyncio.run(_run(url, key, tenant, patience, play, pace))
    except ServiceAwayError as error:
        _end(AWAY, f"{error}. Start one with `acclimate serve`, or name it with --url.")
    except RefusedError as error:
        _end(REFUSED, str(error))
    except (ValueError, SpecError) as error:
        _end(BAD_INPUT, str(error))
    except KeyboardInterrupt:
        notes.print("interrupted; the same command goes on where it was")
        raise typer.Exit(INTERRUPTED) from None
    if set(played.statuses) == {"duplicate"}:
        notes.print("All of this had been played before: --run NAME plays the accounts anew.")
    if as_json:
        typer.echo(json.dumps(to_json(play, played)))
        return
    out = Console()
    for part in tables(play, played):
        out.print(part, highlight=False)


async def _run(
    url: str, key: str | None, tenant: str | None, patience: float, play: Play, pace: Pace
) -> Played:
    from training.simulate import Simulation, groups_of
    from training.simulate_service import Service

    async with Service(url, key=key, tenant=tenant, patience_seconds=patience) as service:
        groups = groups_of(play, await service.spec(play.workflow))
        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("decisions"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=notes,
            transient=True,
        )
        with bar:
            task = bar.add_task(play.workflow, total=play.accounts * play.decisions)
            return await Simulation(
                service, play, pace, groups, lambda count: bar.advance(task, count)
            ).run()


def _name(workflow: str) -> str:
    """The workflow's name, from that or from its file."""
    path = Path(workflow)
    return load_workflow(path).workflow if path.suffix in (".yaml", ".yml") else workflow


def _refuse_other_verticals(workflow: str, chosen: tuple[str, ...]) -> None:
    known = verticals(workflow)
    for one in chosen:
        if one not in known:
            raise ValueError(f"vertical: expected some of {', '.join(known)}, got {one!r}")
    if len(set(chosen)) != len(chosen):
        raise ValueError(f"vertical: expected each once, got {', '.join(chosen)}")


def _delay(delay: str | None) -> tuple[int | None, float]:
    """Decisions that feedback is late, None for as it comes, and seconds."""
    if delay is None:
        return None, 0.0
    found = _DELAY.fullmatch(delay)
    if not found:
        raise ValueError(f"delay: expected decisions (3) or seconds (2.5s), got {delay!r}")
    if found["decisions"]:
        return int(found["decisions"]), 0.0
    return None, float(found["seconds"])


def _end(status: int, message: str) -> NoReturn:
    notes.print(f"[red]error:[/red] {escape(message)}", highlight=False, soft_wrap=True)
    raise typer.Exit(status)
