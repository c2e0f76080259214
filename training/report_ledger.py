"""The report of an off-policy evaluation: `report.md` and `ope.json`. Nothing is computed here."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from training.evaluate_ledger import ESTIMATORS, Result, as_json, estimate
from training.whole_files import write_text

_SAYS = {
    "logged": "what was earned by whoever decided",
    "ips": "rewards weighted by probability over logged probability",
    "snips": "the same over the sum of weights: a little biased, varies less",
    "dr": "a reward model, corrected by weighted residuals",
}


def write_ledger_report(directory: Path, result: Result, command: str) -> None:
    """Writes `report.md` and `ope.json` into the directory, each whole."""
    directory.mkdir(parents=True, exist_ok=True)
    write_text(directory / "ope.json", json.dumps(as_json(result), indent=2) + "\n")
    write_text(directory / "report.md", "\n".join(_lines(result, command)) + "\n")


def _lines(result: Result, command: str) -> list[str]:
    overlap, settings = result.evaluation.overlap, result.settings
    lines = [
        f"# {result.policy} on the log of {result.workflow}",
        "",
        f"`{command}`, seed {settings.seed}, {datetime.now(UTC).date().isoformat()}.",
        "",
        "What the policy would have earned at the logged decisions, after the histories in which",
        "they were made. Those histories are the doing of whoever decided then: it is not what the",
        "policy would earn had it decided from the start.",
        "",
        f"| estimate | reward | {settings.level:.0%} interval | above what was logged | interval |",
        "|---|---|---|---|---|",
    ]
    for name in ESTIMATORS:
        one = estimate(result.evaluation, name)
        above = f"{one.difference:+.4f} | {one.difference_low:+.4f} to {one.difference_high:+.4f}"
        lines.append(
            f"| {name}: {_SAYS[name]} | {one.value:.4f} | {one.low:.4f} to {one.high:.4f} | "
            + ("| |" if name == "logged" else f"{above} |")
        )
    lines += [
        "",
        f"{overlap.decisions:,} decisions of {result.evaluation.accounts:,} accounts; intervals "
        "are clustered by account.",
        f"Effective sample size {overlap.effective:,.0f}; {overlap.above_bound:.2%} of decisions "
        f"weigh more than {overlap.bound:g}, the heaviest {overlap.largest:,.1f}; mean weight "
        f"{overlap.mean:.4f} ± {overlap.mean_se:.4f}, expected 1.",
    ]
    if result.warnings:
        lines += ["", "## To know before these figures are believed", ""]
        lines += [f"- {warning}." for warning in result.warnings]
    return lines
