"""Learning from a log alone, against the truth of the simulator that made it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

from acclimate import main
from contract.encode import context_size
from tests.training.ledgers import log_accounts, mixed
from training import graphs
from training.ledger_fit import Fit, fit_belief, foretell, model_of, weights
from training.ledger_model import FittedModel, FittedTrials
from training.ledger_records import Log, read_log
from training.policies.contextual import Contextual
from training.policies.learned_belief import LearnedBelief
from training.policies.network import build
from training.rollout import play
from training.tasks.task import Situated
from training.tasks.workflow_trials import WorkflowTrials
from training.tasks.workflows.families import FILES, TRAINING_VERTICALS, build_accounts

WORKFLOW = "retention-offer"
VERTICAL = TRAINING_VERTICALS[WORKFLOW][0]
FITTING, STEPS = 36, 20
Array = NDArray[Any]


class Learned(NamedTuple):
    """A belief fitted to a log, and other accounts of the same simulator."""

    file: Path
    log: Log
    network: Contextual
    fit: Fit
    fresh: Log
    means: Array
    """The truth of the other accounts' decisions, `[N, K]`."""


def new_network(log: Log) -> Contextual:
    sizes = {
        "shared": 4,
        "row": 3,
        "width": 8,
        "context": context_size(log.spec),
        "action_features": 2,
        "actions": 6,
        "features": 8,
        "kinds": 2,
    }
    network = build("contextual", sizes, 1)
    assert isinstance(network, Contextual)
    return network


def logged(file: Path, accounts: int, steps: int, share: float, seed: int) -> tuple[Log, Array]:
    simulated = build_accounts(
        WORKFLOW, VERTICAL, accounts=accounts, steps=steps, rng=np.random.default_rng(seed)
    )
    rows = log_accounts(simulated, mixed(simulated, share), np.random.default_rng(seed + 1))
    return read_log(rows.write(file), simulated.spec), rows.means


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Learned:
    home = tmp_path_factory.mktemp("logs")
    log, _ = logged(home / "log.jsonl", 200, STEPS, 0.5, 1)
    fresh, means = logged(home / "fresh.jsonl", 80, STEPS, 1.0, 77)
    network = new_network(log)
    rng = np.random.default_rng(3)
    fit = fit_belief(network, log, iterations=FITTING, rate=0.02, rng=rng)
    return Learned(home / "log.jsonl", log, network, fit, fresh, means)


def error(learned: Learned, expected: Array) -> float:
    """Root mean squared error of expectations of every allowed action."""
    allowed = learned.fresh.decisions.mask
    return float(np.sqrt(np.square(expected - learned.means)[allowed].mean()))


def test_a_belief_fitted_to_a_log_foretells_other_accounts(learned: Learned) -> None:
    made = learned.log.decisions
    each = weights(learned.log, np.arange(made.count))
    of = [made.action == k for k in range(made.mask.shape[1])]
    means = np.array([np.average(made.reward[one], weights=each[one]) for one in of])
    found = error(learned, foretell(learned.network, learned.fresh))
    assert found < 0.85 * error(learned, np.broadcast_to(means, learned.means.shape))
    assert learned.fit.after < min(learned.fit.before, learned.fit.action_means) - 0.01


def test_it_is_not_far_from_one_fitted_with_the_simulator_itself(learned: Learned) -> None:
    other, rng = new_network(learned.log), np.random.default_rng(5)
    optimiser = torch.optim.Adam(other.belief_parameters(), lr=0.02)
    for n in range(FITTING):
        optimiser.param_groups[0]["lr"] = 0.02 * (1 - 0.95 * (n + 1) / FITTING)
        trials = WorkflowTrials(WORKFLOW, VERTICAL, 40, STEPS, rng)
        loss = other.surprise(play(other, trials, rng, random=True).record)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    with_simulator = error(learned, foretell(other, learned.fresh))
    assert error(learned, foretell(learned.network, learned.fresh)) < 1.2 * with_simulator


def test_what_was_rarely_served_counts_for_more_up_to_a_bound(learned: Learned) -> None:
    made = learned.log.decisions
    every = weights(learned.log, np.arange(made.count))
    assert every.mean() == pytest.approx(1.0)
    rare = made.drawn & (made.probability < 0.2)
    often = made.drawn & (made.probability > 0.5)
    assert every[rare].mean() > 1.5 * every[often].mean()
    assert every.max() <= 5.5


def test_accounts_of_the_fitted_model_are_like_those_of_the_log(
    learned: Learned, tmp_path: Path
) -> None:
    model_of(learned.network, learned.log).save(tmp_path / "model.npz")
    model = FittedModel.load(tmp_path / "model.npz")
    rng = np.random.default_rng(1)
    trials = FittedTrials(model, 400, 12, rng, delay=2)
    played = play(learned.network, trials, rng, random=True)
    assert isinstance(trials, Situated)
    assert played.reward.min() >= 0 and played.reward.max() <= 1
    spread = played.expected.mean(0).std()
    made = learned.fresh.decisions
    truth = np.where(made.mask, learned.means, np.nan)
    assert played.random.mean() == pytest.approx(np.nanmean(truth), abs=0.08)
    assert spread > 0.03  # accounts differ
    assert played.best.mean() > played.random.mean() + 0.03
    known = {context.tobytes() for context in learned.log.decisions.context}
    assert {one.tobytes() for one in played.record.context.numpy()[:, 7]} <= known


def test_features_without_torch_are_those_of_the_network(learned: Learned) -> None:
    model = model_of(learned.network, learned.log)
    context = learned.log.decisions.context[:5]
    features = torch.as_tensor(model.action_features)
    described = torch.cat([features, torch.eye(6)], -1).expand(5, -1, -1)
    models = learned.network.models
    assert isinstance(models, LearnedBelief)
    with torch.no_grad():
        wanted = models._features(torch.as_tensor(context), described)
    np.testing.assert_allclose(model.features(context), wanted.numpy(), atol=1e-5)


def train(learned: Learned, out: Path, *words: str) -> tuple[int, str]:
    small = ["--shared", "4", "--row", "3", "--width", "8", "--features", "6", "--kinds", "3"]
    small += ["--fitting", "4", "--horizons", "1", "--groups", "1", "--steps-per-group", "200"]
    small += ["--decisions", "5", "10", "--check-every", "50", "--seed", "3", "--out", str(out)]
    file = FILES / f"{WORKFLOW}.yaml"
    command = ["train", "workflow", str(file), "--ledger", str(learned.file), *small, *words]
    done = CliRunner().invoke(main, command)
    return done.exit_code, " ".join(done.output.split())


def test_a_policy_is_trained_from_a_log_alone_and_goes_on_where_it_stopped(
    learned: Learned, tmp_path: Path
) -> None:
    code, said = train(learned, tmp_path / "run", "--iterations", "1")
    assert code == 0, said
    assert "by the mean of each action alone" in said
    assert json.loads((tmp_path / "run" / "ledger-fit.json").read_text())["accounts"] == 200
    again, said = train(learned, tmp_path / "run", "--iterations", "1")
    assert (again, "add --resume" in said) == (2, True)
    code, said = train(learned, tmp_path / "run", "--iterations", "2", "--resume")
    assert code == 0, said


def test_the_step_is_exported_for_any_number_of_accounts(learned: Learned) -> None:
    graph = graphs.describe(learned.network)["learn"]
    session = onnxruntime.InferenceSession(graphs.build(learned.network, "learn", graph))
    assert all(one.shape[0] == "B" for one in (*session.get_inputs(), *session.get_outputs()))


def test_a_log_that_cannot_be_learned_from_is_refused(learned: Learned, tmp_path: Path) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text("".join(learned.file.read_text().splitlines(keepends=True)[:40]))
    code, said = train(learned._replace(file=few), tmp_path / "run", "--iterations", "1")
    assert (code, "at least 20 accounts" in said) == (2, True)
    none = learned._replace(file=tmp_path / "none.jsonl")
    assert train(none, tmp_path / "run", "--iterations", "1")[0] == 2
    assert not (tmp_path / "run").exists()
