"""A bundle's `report.md` and its picture: where the policy comes from and what it was seen to do.

Every figure stands with what made it; it must never pass off as measured one that is quoted.
"""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.bundle import Manifest
from contract.policy import OnnxPolicy
from training.baselines import Algorithm, History
from training.curricula import settings_of
from training.curriculum import BanditCurriculum, Curriculum, MdpCurriculum
from training.curves import plot_history, plot_within_trial
from training.evaluate import BASELINES, Cell, evaluate_bandits, recurrent
from training.evaluate_mdps import evaluate_mdps
from training.hyperparameters import Hyperparameters
from training.report_mdps import told_of_mdps
from training.report_phases import told_of_phases
from training.tasks.bandits import BernoulliBandits
from training.trpo import Learner

Array = NDArray[Any]

EVALUATION_SEED = 7

EVALUATED_EPISODES = (10, 25, 50, 75, 100)
"""Lengths of the trials that a policy of tabular MDPs is evaluated on."""

WITHIN_TRIAL = (100, 5, 2_000)
"""(n, k, trials) of the picture of what is earned pull by pull."""

CELLS = ((100, 5, 1), (10, 5, 1), (30, 4, 1), (100, 10, 1), (500, 5, 10), (100, 50, 10))
"""(n, k, share): evaluated on trials / share fresh trials; the first is the bundle's bar."""

_GITTINS = {(10, 5): 6.665, (100, 5): 78.58, (100, 10): 83.76, (100, 50): 85.59, (500, 5): 408.6}
"""Finite-horizon Gittins (Gittins 1979) by (n, k), the ceiling: quoted, computed once as a table
over successes, failures and pulls left."""


def write_report(
    directory: Path,
    manifest: Manifest,
    learner: Learner,
    record: dict[str, Any],
    hyperparameters: Hyperparameters,
    curriculum: Curriculum,
    note: str,
    evaluation_trials: int,
    run: Path,
    evaluation: Path | None = None,
) -> None:
    """Writes `report.md` and `curve.png` beside the graphs they speak of.

    `run` is the directory of its checkpoint, and `evaluation` one that `acclimate evaluate …
    --report` wrote of this policy.
    """
    policy = OnnxPolicy.load(directory)
    on_mdps = manifest.task_family == MdpCurriculum.name
    on_bandits = evaluation_trials > 0 and manifest.task_family == BanditCurriculum.name
    cells = evaluate(policy, evaluation_trials) if on_bandits else []
    if learner.history:
        looks = curriculum.looks(learner.policy.action_range)
        plot_history(learner.history, looks, directory / "curve.png")
    allowed = policy.manifest.actions
    if cells and allowed.min <= WITHIN_TRIAL[1] <= allowed.max:
        plot_within_trial(
            within_trial(policy, *WITHIN_TRIAL),
            f"n = {WITHIN_TRIAL[0]}, k = {WITHIN_TRIAL[1]}, mean of {WITHIN_TRIAL[2]:,} trials",
            directory / "within-trial.png",
        )
    parts = [
        f"# {manifest.policy}: {manifest.network} on {manifest.task_family}",
        _origin(manifest, learner, record, hyperparameters),
        "## Learning curve\n\n![learning curve](curve.png)" if learner.history else "",
        told_of_phases(learner, manifest.provenance.seed, hyperparameters, curriculum, run),
        _evaluation(manifest, cells) if cells else "",
        _on_mdps(directory, policy, evaluation_trials) if on_mdps and evaluation_trials else "",
        quoted(evaluation, directory) if evaluation else "",
        f"## What was tried\n\n{note.strip()}" if note.strip() else "",
        _hyperparameters(
            record.get("lessons") or settings_of(curriculum) | asdict(hyperparameters)
        ),
    ]
    text = "\n\n".join(part for part in parts if part)
    (directory / "report.md").write_text(text + "\n", encoding="utf-8")


def evaluate(policy: OnnxPolicy, trials: int) -> list[Cell]:
    """Every cell that the policy has enough actions for."""
    allowed = policy.manifest.actions
    return [
        evaluate_bandits(policy, n=n, k=k, trials=max(2, trials // share), seed=EVALUATION_SEED)
        for n, k, share in CELLS
        if allowed.min <= k <= allowed.max
    ]


def quoted(evaluation: Path, directory: Path) -> str:
    """What the report of an evaluation says, a heading lower; its pictures are copied along."""
    title, _, said = (evaluation / "report.md").read_text(encoding="utf-8").partition("\n")
    for picture in [*evaluation.glob("*.png"), *evaluation.glob("*.gif")]:
        shutil.copy(picture, directory / picture.name)
    lower = said.strip().replace("\n## ", "\n### ")
    return f"## Evaluation: {title.lstrip('# ')}\n\n{lower}"


def within_trial(policy: OnnxPolicy, n: int, k: int, trials: int) -> dict[str, Array]:
    """Mean expected reward at every pull `[T]`, for the policy and for Thompson sampling."""
    players: dict[str, Algorithm] = {
        policy.manifest.policy: recurrent(policy, n=n),
        "Thompson sampling": BASELINES["ts"],
    }
    curves = {}
    for number, (name, player) in enumerate(players.items()):
        bandits = BernoulliBandits(trials, k, n, np.random.default_rng(EVALUATION_SEED))
        own_draws = np.random.default_rng([EVALUATION_SEED, number])
        bandits.reset()
        history = History.blank(trials, k)
        curve = np.empty(n)
        for t in range(n):
            actions = player(history, own_draws)
            curve[t] = bandits.means[np.arange(trials), actions].mean()
            history.observe(actions, bandits.step(actions)[1])
        curves[name] = curve
    return curves


def _on_mdps(directory: Path, policy: OnnxPolicy, trials: int) -> str:
    """The evaluation of a policy of tabular MDPs, a tenth of the trials each n."""
    count = max(2, trials // 10)
    cells = [
        evaluate_mdps(policy, n=n, trials=count, seed=EVALUATION_SEED) for n in EVALUATED_EPISODES
    ]
    command = (
        f"acclimate evaluate mdps --policy policies/{policy.manifest.policy} "
        f"--trials {count} --seed {EVALUATION_SEED}"
    )
    told = told_of_mdps(directory, policy.manifest, cells, command=command, seed=EVALUATION_SEED)
    return f"## Evaluation\n\n{told.replace('## ', '### ')}"


def _method(hyperparameters: Hyperparameters, iterations: int) -> str:
    """How the weights were found in so many iterations, in a line."""
    if fitted := hyperparameters.fitting:
        began = f"beliefs fitted by likelihood in {min(fitted, iterations)} iterations"
        return f"{began}, then TRPO" if iterations > fitted else f"{began}, no TRPO"
    if hyperparameters.teacher == "none" or not hyperparameters.lessons:
        return "TRPO from scratch, no teacher"
    lessons, teacher = hyperparameters.lessons, hyperparameters.teacher
    taught = f"{min(lessons, iterations)} lessons from a teacher ({teacher}, DAgger)"
    return f"{taught}, then TRPO" if iterations > lessons else f"{taught}, no TRPO"


def _origin(
    manifest: Manifest, learner: Learner, record: dict[str, Any], hyperparameters: Hyperparameters
) -> str:
    provenance = manifest.provenance
    versions = ", ".join(f"{name} {version}" for name, version in provenance.versions.items())
    seconds = record["seconds"]
    rate = learner.steps / seconds if seconds else 0.0
    machine = record.get("machine", {})
    return f"""\
| | |
|---|---|
| command | `{provenance.command}` |
| seed | {provenance.seed} |
| trained, exported | {machine.get("date", provenance.date)}, {provenance.date} |
| training | {learner.iteration} iterations, {learner.steps:,} interactions, \
{seconds / 60:.1f} minutes ({rate:,.0f} interactions/s) |
| method | {_method(hyperparameters, learner.iteration)} |
| hardware | {machine.get("hardware") or hardware()}, {machine.get("threads", 1)} thread(s) |
| versions | {versions} |
| memory | shared {manifest.shared_size} floats, {manifest.row_size} floats an action |
| torch to onnxruntime | {provenance.torch_parity:.1g} at most apart over the parity vectors |"""


def _evaluation(manifest: Manifest, cells: list[Cell]) -> str:
    lines = [
        "## Evaluation",
        "",
        "Total reward of a trial of n pulls on k arms, means uniform(0, 1), played through the",
        "ONNX graphs. `sampled` is how the service plays; differences are paired, sampled −",
        "other on the same arm means and coins; ± is one standard error over trials. Greedy play",
        "is the same policy, always at its most probable arm.",
        "",
        "| n | k | trials | sampled | − greedy play | − Thompson | − UCB1 | Gittins, finite n |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for cell in cells:
        others = cell.greedy_play, cell.baselines["ts"], cell.baselines["ucb1"]
        differences = [
            f"{other.difference:+.2f} ± {other.difference_se:.2f}" for other in others if other
        ]
        lines.append(
            f"| {cell.n} | {cell.k} | {cell.trials:,} "
            f"| {cell.policy:.2f} ± {cell.policy_se:.2f} "
            f"| {' | '.join(differences)} "
            f"| {_GITTINS.get((cell.n, cell.k), '–')} |"
        )
    command = (
        f"acclimate evaluate bandits --policy policies/{manifest.policy} "
        f"--n N --k K --trials TRIALS --seed {EVALUATION_SEED}"
    )
    lines += [
        "",
        f"Each row: `{command}`, {manifest.provenance.date}. UCB1 is tuned, as in the tables of "
        "Duan et al. (2016). Gittins is quoted, not measured here.",
    ]
    n, k, count = WITHIN_TRIAL
    lines += [
        "",
        f"What is earned pull by pull, n = {n}, k = {k}, {count:,} trials of the same kind:",
        "",
        "![expected reward at each pull](within-trial.png)",
    ]
    return "\n".join(lines)


def _hyperparameters(settings: dict[str, Any]) -> str:
    rows = "\n".join(f"| {key} | {value} |" for key, value in settings.items())
    return f"## Hyperparameters\n\n| | |\n|---|---|\n{rows}"


def hardware() -> str:
    """This machine in plain words."""
    return f"{os.cpu_count()} CPU cores, {platform.machine()}, {platform.system()}"
