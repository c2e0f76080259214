"""`acclimate serve`: the service's command line. Every option is also an environment variable."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from service.server import RefusedToStartError, serve
from service.settings import Settings

app = typer.Typer(help="Serve decisions over REST.", no_args_is_help=False)


@app.command("serve")
def serve_command(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where the embedded ledger and the key live.")
    ] = None,
    workflows: Annotated[Path | None, typer.Option(help="Directory of workflow files.")] = None,
    policies: Annotated[Path | None, typer.Option(help="Directory of bundles.")] = None,
) -> None:
    """Serve every workflow in a directory.

    Without more, this is the embedded profile: one process, memories in it, the ledger in SQLite
    under --data-dir. ACCLIMATE_REDIS_URL and ACCLIMATE_LEDGER_URL make it a production replica;
    service/settings.py lists every setting. Exits with 2 when a setting, a workflow file, a bundle
    or the ledger is not fit to be served, saying why; and with 0 after SIGTERM or SIGINT, when
    every request that had come is answered.
    """
    given: dict[str, Any] = {
        "host": host,
        "port": port,
        "data_dir": data_dir,
        "workflows": workflows,
        "policies": policies,
    }
    settings = read_settings(**given)
    try:
        serve(settings)
    except RefusedToStartError as error:
        print(f"acclimate: cannot serve: {error}", file=sys.stderr)
        raise typer.Exit(2) from error


def read_settings(**given: Any) -> Settings:
    """The environment's settings, and over them those given that are not None. Exits with 2 when
    one is not fit, naming it."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        for one in error.errors():
            name = "_".join(str(part) for part in one["loc"])
            message = one["msg"].removeprefix("Value error, ")
            print(f"acclimate: ACCLIMATE_{name.upper()}: {message}", file=sys.stderr)
        raise typer.Exit(2) from error
