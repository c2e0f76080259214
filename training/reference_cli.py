"""`acclimate reference`: what a bundle's memories are like in training, kept in the bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from contract.bundle import BundleError
from training.memory_reference import ACCOUNTS, add_reference
from training.train_command import notes, refuse


def reference(
    bundle: Annotated[Path, typer.Argument(help="A bundle's directory, such as policies/NAME/1.")],
    accounts: Annotated[
        int, typer.Option(min=20, help="Accounts of each age to look at.")
    ] = ACCOUNTS,
    seed: Annotated[int, typer.Option(help="Of tasks and draws.")] = 1,
) -> None:
    """Play a bundle on what it was trained on, and keep what its memories look like, by age.

    Writes memory.npz into the bundle and pins it in the manifest; the graphs and their digests stay
    as they are, so every stored memory stays usable. The service compares accounts' memories with
    it and raises the alarm `memory_health`. Needs no torch. Exits with 2 when the bundle is not
    whole or its tasks are not known.

    Example: acclimate reference policies/universal/1 --seed 1
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    try:
        with Progress(*columns, TimeElapsedColumn(), console=notes, transient=True) as progress:
            bar = progress.add_task("accounts of the age that fewest reach", total=accounts)
            found = add_reference(
                bundle,
                seed=seed,
                accounts=accounts,
                on_accounts=lambda count: progress.update(bar, completed=count),
            )
    except (BundleError, ValueError, OSError) as error:
        refuse(str(error))
    ages = ", ".join(map(str, found.positions))
    notes.print(f"{bundle}: {found.accounts} accounts or more at the ages {ages}")
