"""`acclimate init`: writes a new workflow file. It never writes over one that is there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from contract.new_workflow import write_new_workflow
from service.cli import read_settings


def init_command(
    name: Annotated[str, typer.Argument(help="The workflow's name, as in retention-offer.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write to; default: $ACCLIMATE_WORKFLOWS, else workflows."),
    ] = None,
) -> None:
    """Write a new workflow file, NAME.yaml: complete, commented, and served as it is.

    Edit it, let `acclimate check` look over it, and start `acclimate serve`. Exits with 2 when the
    name is none or the file is there already, and has then written nothing.
    """
    folder = read_settings(workflows=out).workflows
    try:
        path = write_new_workflow(name, folder)
    except FileExistsError as error:
        raise typer.BadParameter(
            f"expected a name that no file has yet, but {error.filename} exists", param_hint="NAME"
        ) from error
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="NAME") from error
    except OSError as error:
        raise typer.BadParameter(
            f"expected a folder that can be written to, but {error}", param_hint="--out"
        ) from error
    print(f"{path}: a new workflow. Edit it, then: acclimate check {path}")
