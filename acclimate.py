"""The command line: mounts each room's commands, and does nothing else."""

import typer

import benchmarks.cli
import service.cli
import training.evaluate_cli

main = typer.Typer(
    help="Decisions that adapt to each account within a handful of interactions.",
    no_args_is_help=True,
    add_completion=False,
    epilog="Start with `acclimate demo`, then `acclimate serve`.",
)
main.add_typer(service.cli.app)
main.add_typer(benchmarks.cli.app)
main.add_typer(training.evaluate_cli.app, name="evaluate")
