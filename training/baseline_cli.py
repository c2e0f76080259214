"""`acclimate train-baseline`: a supervised fallback, fitted to an exported ledger."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from contract.bundle import BundleError
from contract.spec import SpecError, load_workflow
from training.ledger_rows import LogError
from training.progress import progress_bar
from training.train_command import need, notes, refuse


def train_baseline(
    file: Annotated[
        Path, typer.Argument(help="What `acclimate ledger export` wrote: .jsonl or .parquet.")
    ],
    workflow: Annotated[Path, typer.Option(help="The workflow's YAML file.")],
    out: Annotated[Path, typer.Option(help="The baseline's directory, such as policies/NAME/1.")],
    trees: Annotated[int, typer.Option(min=1, max=1_000, help="Of the forest.")] = 50,
    seed: Annotated[int, typer.Option(min=0, help="Fixes the forest and who is held out.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace a baseline that is there.")] = (
        False
    ),
    only_json: Annotated[
        bool, typer.Option("--json", help="Only JSON on standard output.")
    ] = False,
) -> None:
    """Fit a supervised baseline to an exported ledger, for use as a workflow's fallback.

    A forest of regression trees says which reward to expect of each action in a context, whoever
    the account is: what one would run without adaptation. A fifth of the accounts is held out to
    judge it on. The folder that is written holds an ONNX graph with parity vectors; a workflow
    names it as `fallback: {model: NAME/1, action: ...}`, beside its policy under policies/.

    Exits with 2 when the file, the workflow or the folder is not fit.

    Example: acclimate train-baseline ledger.parquet --workflow workflows/retention-offer.yaml
    --out policies/retention-baseline/1
    """
    need("train-baseline", "sklearn", "skl2onnx", extra="baseline")
    from training.supervised import fit_baseline, read_examples

    name, number = out.resolve().parent.name, out.resolve().name
    if not re.fullmatch("[a-z][a-z0-9-]{0,63}", name) or not re.fullmatch(
        "[1-9][0-9]{0,8}", number
    ):
        refuse(f"--out: expected a folder NAME/VERSION, such as policies/offers/1, got {out}")
    if out.exists() and not force:
        refuse(f"--out: {out} exists; --force replaces it")
    try:
        spec = load_workflow(workflow)
        with progress_bar(notes) as bar:
            reading = bar.add_task(f"reading {file.name}", total=None)
            examples = read_examples(file, spec, lambda count: bar.advance(reading, count))
            bar.remove_task(reading)
            bar.add_task(f"fitting {len(examples.reward):,} decisions", total=None)
            fitted = fit_baseline(
                spec,
                examples,
                out,
                name=name,
                number=int(number),
                seed=seed,
                trees=trees,
                command=shlex.join(["acclimate", *sys.argv[1:]]),
                replace=force,
            )
    except OSError as error:
        refuse(f"{error.filename}: {error.strerror}")
    except (BundleError, LogError, SpecError) as error:
        refuse(str(error))
    found = fitted.manifest.fitted
    if only_json:
        print(json.dumps({"baseline": fitted.manifest.baseline, "difference": fitted.difference}
                         | found, indent=2))  # fmt: skip
        return
    print(
        f"{out}: baseline {fitted.manifest.baseline}, {found['decisions']:,} decisions; "
        f"scikit-learn and onnxruntime agree within {fitted.difference:.1g}"
    )
    if "explained" in found:
        print(
            f"on {found['held_out_decisions']:,} decisions of accounts it was not fitted to, with "
            f"rewards scaled to [0, 1]: explains {found['explained']:.1%} of their variance; "
            f"earned as logged {found['logged_reward']:.4f}, by its choices (SNIPS) "
            f"{found['snips_reward']:.4f}"
        )
    print(f"next: fallback: {{model: {fitted.manifest.baseline}, ...}} in {workflow}")
