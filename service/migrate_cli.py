"""`acclimate migrate`: brings the ledger to this release's version, before replicas need it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from service.cli import read_settings
from service.ledger.ledger import migrate_ledger
from service.ledger.reading import read_version
from service.ledger.records import LedgerUnavailableError
from service.ledger.version import newest, standing_of

TO_DO = 1


def migrate_command(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; say whether there is something to do.")
    ] = False,
    data_dir: Annotated[Path | None, typer.Option(help="Where the embedded ledger lives.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Bring the ledger to the version that this release works on.

    Settings are those of `acclimate serve`. Run it once before replicas of a new release start,
    and give those ACCLIMATE_MIGRATIONS=wait: they are not ready before it is done. Several at once
    do it once; what fails leaves the ledger as it was. Exits with 0 when the ledger is of this
    version, with 1 under --check when it is of an older one, and with 2 when it cannot be opened
    or is of a newer one.
    """
    settings = read_settings(data_dir=data_dir)
    try:
        before = read_version(settings.ledger) if check else migrate_ledger(settings.ledger)
    except LedgerUnavailableError as error:
        print(f"acclimate: {error}", file=sys.stderr)
        raise typer.Exit(2) from error
    standing = standing_of(before)
    if as_json:
        print(json.dumps({"found": before, "expected": newest(), "standing": standing}))
    elif standing == "current":
        print(f"The ledger is of version {before}, as expected.")
    elif check:
        print(f"The ledger is of version {before or 'none'}, expected {newest()}: {standing}.")
    else:
        print(f"The ledger was of version {before or 'none'}; it is of version {newest()} now.")
    if check and standing != "current":
        raise typer.Exit(TO_DO if standing == "older" else 2)
