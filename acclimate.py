"""The command line: mounts each room's commands, and does nothing else."""

import typer

import benchmarks.cli
import service.alarms_cli
import service.check_cli
import service.cli
import service.init_cli
import service.jobs_cli
import service.keys_cli
import service.kill_switch_cli
import service.ledger_cli
import service.migrate_cli
import service.openapi_cli
import service.rollout_cli
import service.settings_cli
import training.ablations_cli
import training.baseline_cli
import training.bench_cli
import training.bench_mazes_cli
import training.cli
import training.evaluate_cli
import training.evaluate_mazes_cli
import training.mazes_cli
import training.mdps_cli
import training.probe_cli
import training.reference_cli
import training.simulate_cli
import training.universal_cli
import training.workflow_cli

main = typer.Typer(
    help="Decisions that adapt to each account within a handful of interactions.",
    no_args_is_help=True,
    add_completion=False,
    epilog="Start with `acclimate demo`, then `acclimate serve`.",
)
main.command("demo")(benchmarks.cli.demo)
main.add_typer(benchmarks.cli.bench, name="bench")
benchmarks.cli.bench.command("training")(training.bench_cli.training)
benchmarks.cli.bench.command("mazes")(training.bench_mazes_cli.mazes)
main.command("init")(service.init_cli.init_command)
main.command("check")(service.check_cli.check_command)
main.command("serve")(service.cli.serve_command)
main.command("worker")(service.jobs_cli.worker_command)
main.command("beat")(service.jobs_cli.beat_command)
main.add_typer(service.alarms_cli.app, name="alarms")
main.command("jobs")(service.jobs_cli.jobs_command)
main.add_typer(service.keys_cli.app, name="keys")
main.add_typer(service.ledger_cli.app, name="ledger")
main.command("migrate")(service.migrate_cli.migrate_command)
main.add_typer(service.rollout_cli.app, name="rollout")
main.add_typer(service.kill_switch_cli.app, name="kill-switch")
main.command("openapi")(service.openapi_cli.openapi_command)
main.command("settings")(service.settings_cli.settings_command)
main.command("simulate")(training.simulate_cli.simulate)
main.add_typer(training.evaluate_cli.app, name="evaluate")
main.add_typer(training.evaluate_mazes_cli.play_app, name="play")
training.cli.train_app.command("mdps")(training.mdps_cli.mdps)
main.add_typer(training.cli.train_app, name="train")
training.cli.train_app.command("maze-lessons")(training.mazes_cli.maze_lessons)
training.cli.train_app.command("mazes")(training.mazes_cli.mazes)
training.cli.train_app.command("universal")(training.universal_cli.universal)
training.cli.train_app.command("workflow")(training.workflow_cli.workflow)
main.command("train-baseline")(training.baseline_cli.train_baseline)
main.command("ablations")(training.ablations_cli.ablations)
main.command("probe")(training.probe_cli.probe_command)
main.command("reference")(training.reference_cli.reference)
main.command("export")(training.cli.export)

if __name__ == "__main__":
    main(prog_name="acclimate")
