"""What comes before a run of `acclimate train workflow --ledger`: it reads the log, fits the belief
and keeps the model that the run plays. It writes into the run's directory alone.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from contract.spec import WorkflowSpec
from training import distributed
from training.checkpoints import FILE
from training.ledger_curriculum import MODEL
from training.ledger_fit import fit_belief, model_of
from training.ledger_records import read_log
from training.policies.contextual import Contextual
from training.policies.network import Network
from training.progress import progress_bar
from training.train_command import notes

FIT = "ledger-fit.json"
"""What the fit gained, beside the model."""


def fit_and_keep(
    policy: Network,
    ledger: Path,
    spec: WorkflowSpec,
    folder: Path,
    iterations: int,
    rate: float,
    seed: int,
    threads: int,
) -> None:
    """Fits the policy's belief in place, and writes the model into `folder`.

    Raises ValueError (LogError) for a log that cannot be used, or where a run is already.
    """
    assert isinstance(policy, Contextual)
    if (folder / FILE).exists():
        raise ValueError(
            f"{folder / FILE} exists: add --resume to go on with it, or choose another --out"
        )
    if distributed.count() > 1:
        raise ValueError("--ledger: expected one process; the fit is a matter of minutes")
    if iterations < 1:
        raise ValueError(f"--fitting: expected at least 1 with --ledger, got {iterations}")
    torch.set_num_threads(threads)
    try:
        with progress_bar(notes) as bar:
            reading = bar.add_task(f"reading {ledger.name}", total=None)
            log = read_log(ledger, spec, lambda count: bar.advance(reading, count))
            bar.remove_task(reading)
            task = bar.add_task("fitting the belief", total=iterations)
            fit = fit_belief(
                policy,
                log,
                iterations=iterations,
                rate=rate,
                rng=np.random.default_rng(seed),
                on_iteration=lambda: bar.advance(task),
            )
    except OSError as error:
        raise ValueError(f"--ledger: {error.filename}: {error.strerror}") from error
    folder.mkdir(parents=True, exist_ok=True)
    model_of(policy, log).save(folder / MODEL)
    (folder / FIT).write_text(json.dumps(asdict(fit), indent=2) + "\n")
    notes.print(
        f"fitted to {fit.accounts - fit.held_out:,} accounts; surprise (mean negative "
        f"log-likelihood) on {fit.held_out} others {fit.after:.4f}, {fit.before:.4f} before, "
        f"{fit.action_means:.4f} by the mean of each action alone",
        highlight=False,
        soft_wrap=True,
    )
