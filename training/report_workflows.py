"""The report of an evaluation on workflows: `report.md`, learning curves and `rows.json`.

Every figure stands with the command that made it; nothing is computed here.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from training.evaluate_workflows import Row, Settings, as_json, by_workflow, pool
from training.peers.roster import PEERS, SLOW_ACCOUNTS, tuned
from training.whole_files import write_picture, write_text
from training.workflow_scores import BEFORE_CHANGE, SMOOTHED_OVER, Estimate, Score, smoothed

_STYLES = {"scratch": "-", "fitted": "--", "fixed": ":", "pooled": "-."}


def write_workflow_report(
    directory: Path,
    rows: Sequence[Row],
    policy: str,
    settings: Settings,
    *,
    split: str,
    command: str,
) -> None:
    """Writes `report.md`, `rows.json` and a picture a workflow into the directory, each whole."""
    directory.mkdir(parents=True, exist_ok=True)
    numbers = json.dumps(as_json(rows, policy, settings), indent=2)
    write_text(directory / "rows.json", numbers + "\n")
    lines = [*_preamble(policy, settings, split, command)]
    for verticals in by_workflow(rows):
        together = pool(verticals, settings)
        _plot([*verticals, together], policy, directory / _picture(together.workflow))
        lines += [
            "",
            f"## {together.workflow}",
            "",
            f"![learning curves]({_picture(together.workflow)})",
            "",
            *_best(together.workflow),
        ]
        for row in [together, *verticals] if len(verticals) > 1 else verticals:
            lines += ["", *_section(row, policy)]
    write_text(directory / "report.md", "\n".join(lines) + "\n")


def _preamble(policy: str, settings: Settings, split: str, command: str) -> list[str]:
    today = datetime.now(UTC).date().isoformat()
    late = "" if settings.delay is None else f" Every feedback comes {settings.delay} late."
    changed = (
        ""
        if settings.change_at is None
        else f" Every account becomes another one before decision {settings.change_at + 1}."
    )
    said = [
        f"{settings.accounts:,} accounts of each vertical, {settings.decisions} decisions each, "
        "played through the ONNX graphs; the same accounts, contexts and coins for every player."
        f"{late}{changed}",
        "The policy takes the most probable action." if settings.greedy else "The policy samples.",
        *(["It is shown no context."] if settings.blind else []),
        "A reward is the expected one of the action served, wherever it was not forced. A batch is "
        "10 decisions: batch 1 is decisions 1–10, batch 5 is 41–50, batch 20 is 191–200. "
        "Differences are policy − player, paired by account; ± is one standard error. Pooled: "
        "verticals count the same.",
        "Adapted: the first interaction at which the cohort's mean reward (centred mean of "
        f"{SMOOTHED_OVER}) has closed 80 % of the gap from fallback to oracle. Recovered: "
        "interactions after the change until 90 % of the gain over the fallback in the "
        f"{BEFORE_CHANGE} decisions before it is regained. Regret: what the oracle earned more, "
        "all decisions together.",
        f"VowpalWabbit and river play the first {SLOW_ACCOUNTS} accounts and are compared on "
        "those. Those who pool accounts meet them one after another at first, then in groups that "
        "double, so that as many have always come and gone.",
    ]
    return [
        f"# {policy} on workflows, {split} verticals",
        "",
        *textwrap.wrap(" ".join(said), 100),
        "",
        f"Command: `{command}`, seed {settings.seed}, {today}.",
    ]


def _best(workflow: str) -> list[str]:
    found = tuned().get(workflow)
    if found is None:
        return ["Its peers are not tuned."]
    return [
        f"Best peer on the training verticals: {found.best_peer}; of those from scratch: "
        f"{found.best_scratch}; of those that forget: {found.best_discounting}."
    ]


def _section(row: Row, policy: str) -> list[str]:
    batches = list(row.policy.reward)
    heads = " | ".join(f"batch {batch} | policy − player" for batch in batches)
    changed = " recovered |" if _changed(row) else ""
    lines = [
        f"### {row.vertical or 'pooled'}, {row.policy.accounts:,} accounts",
        "",
        f"| player | given | {heads} | all | regret | adapted |{changed} decisions / CPU s |",
        "|---" * (2 + 2 * len(batches) + 4 + bool(changed)) + "|",
        _line(f"**{policy}**", "", row.policy, changed, own=True),
    ]
    for name, score in (row.peers | row.pooling).items():
        lines.append(_line(name, PEERS[name].kind, score, changed))
    return [*lines, _line("oracle", "", row.oracle, changed)]


def _line(name: str, kind: str, score: Score, changed: str, own: bool = False) -> str:
    cells = [name, kind]
    for batch, earned in score.reward.items():
        gap = score.difference[batch]
        cells += [_value(earned), "" if own else f"{gap.mean:+.3f} ± {gap.se:.3f}"]
    cells += [_value(score.overall), f"{score.regret.mean:.1f}", _interactions(score.adaptation)]
    cells += [_interactions(score.recovery)] if changed else []
    rate = score.decisions_per_cpu_second
    return "| " + " | ".join([*cells, "" if rate is None else f"{rate:,.0f}"]) + " |"


def _changed(row: Row) -> bool:
    """Whether anybody recovered, or could have."""
    return any(one.recovery is not None for one in (row.policy, row.oracle, *row.peers.values()))


def _value(estimate: Estimate) -> str:
    return f"{estimate.mean:.3f} ± {estimate.se:.3f}"


def _interactions(number: int | None) -> str:
    return "never" if number is None else str(number)


def _plot(rows: Sequence[Row], policy: str, path: Path) -> None:
    """The cohorts' mean expected reward at each decision, a panel a vertical."""
    shown = rows if len(rows) > 2 else rows[:1]
    figure = Figure(figsize=(6.0 * len(shown), 4.5), layout="constrained")
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, row in zip(panels, shown, strict=True):
        decisions = np.arange(1, row.policy.curve.size + 1)
        for name, score in (row.peers | row.pooling).items():
            style = _STYLES[PEERS[name].kind]
            axes.plot(decisions, smoothed(score.curve), label=name, lw=1.0, ls=style)
        axes.plot(decisions, smoothed(row.oracle.curve), label="oracle", color="grey", lw=1.5)
        axes.plot(decisions, smoothed(row.policy.curve), label=policy, color="black", lw=2.0)
        axes.axhline(row.policy.target, color="black", ls=":", lw=1)
        axes.set_title(f"{row.workflow}: {row.vertical or 'pooled'}", fontsize=9)
        axes.set(xlabel="decision")
        axes.grid(alpha=0.3)
    panels[0].set(ylabel=f"expected reward, mean of {SMOOTHED_OVER} decisions")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8)
    write_picture(path, figure, dpi=110)


def _picture(workflow: str) -> str:
    return f"{workflow}.png"
