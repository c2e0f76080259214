"""A supervised baseline finds what pays in which context, and is served only as it was exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from acclimate import main
from contract.baseline import baseline_rows, context_slots, load_baseline
from contract.bundle import BundleError
from contract.spec import WorkflowSpec, parse_workflow
from guardrails.fallback import Fallback
from service.catalog import expected_of
from training.ledger_rows import LogError
from training.supervised import fit_baseline, read_examples


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(main, [str(one) for one in arguments])


SPEC = """
schema: 1
workflow: offers
actions:
  - {id: nothing, features: {cost: 0}}
  - {id: call, features: {cost: 5}}
  - {id: mail, features: {cost: 1}}
context:
  tenure: {type: number, min: 0, max: 100, out_of_range: clip}
  plan: {type: category, values: [basic, premium]}
  angry: {type: boolean, feeds: rules}
reward: {min: -1, max: 3}
fallback: {action: nothing}
adaptation: {target: 1}
"""


def best(context: dict[str, Any]) -> str:
    """What pays: a call where somebody is angry, else a mail for the newer ones."""
    if context["angry"]:
        return "call"
    return "mail" if context["tenure"] < 50 else "nothing"


@pytest.fixture(scope="module")
def spec() -> WorkflowSpec:
    return parse_workflow(SPEC)


def draw_context(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "tenure": float(rng.uniform(0, 110)),
        "plan": str(rng.choice(["basic", "premium"])),
        "angry": bool(rng.random() < 0.3),
    }


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory, spec: WorkflowSpec) -> Path:
    """3,000 decisions of 300 accounts, two thirds at random."""
    rng = np.random.default_rng(1)
    path = tmp_path_factory.mktemp("log") / "ledger.jsonl"
    lines = []
    for n in range(3_000):
        context = draw_context(rng)
        action = str(rng.choice(spec.action_ids))
        won = rng.random() < (0.8 if action == best(context) else 0.3)
        lines.append({
            "workflow": "offers", "tenant": "t", "account_id": f"a{n % 300}", "context": context,
            "action": action, "probability": 1 / 3, "asked_for": None,
            "reward": (3.0 if won else -1.0) if n % 50 else None,
        })  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def baseline(log: Path, spec: WorkflowSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("policies") / "offers" / "1"
    fitted = fit_baseline(spec, read_examples(log, spec), out, name="offers", number=1, trees=20)
    assert fitted.difference < 1e-5
    return out


def test_it_chooses_what_pays_in_contexts_it_has_not_seen(
    baseline: Path, spec: WorkflowSpec
) -> None:
    fallback = Fallback(spec, expected_of(load_baseline(baseline), spec))
    rng = np.random.default_rng(2)
    contexts = [draw_context(rng) for _ in range(300)]
    contexts = [c | {"tenure": min(c["tenure"], 100.0)} for c in contexts]
    everything = np.ones(3, np.bool_)
    right = [spec.action_ids[fallback.choose(c, everything)] == best(c) for c in contexts]
    assert np.mean(right) > 0.9
    for context in contexts[:50]:
        chosen = fallback.choose(context, everything)
        others = np.arange(3) != chosen
        assert fallback.choose(context, others) != chosen


def test_what_it_is_worth_is_judged_on_accounts_it_has_not_seen(baseline: Path) -> None:
    told = load_baseline(baseline).manifest.fitted
    assert 300 < told["held_out_decisions"] < 900
    assert told["decisions"] == 2_940
    assert told["logged_reward"] == pytest.approx(0.467, abs=0.06)
    assert told["snips_reward"] == pytest.approx(0.8, abs=0.08)
    assert told["explained"] > 0.1


def test_a_workflow_s_actions_may_have_grown_since(baseline: Path, spec: WorkflowSpec) -> None:
    more = parse_workflow(
        SPEC.replace("context:", "  - {id: visit, features: {cost: 9}}\ncontext:")
    )
    loaded = load_baseline(baseline)
    assert loaded.misfits(more) == []
    context = {"tenure": 10.0, "plan": "basic", "angry": False}
    rewards = loaded.rewards(more, context)
    assert rewards.shape == (4,)
    assert rewards[3] == -np.inf
    only_new = np.array([False, False, False, True])
    assert Fallback(more, expected_of(loaded, more)).choose(context, only_new) == 3


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("workflow: offers", "workflow: others", "workflow"),
        ("id: call", "id: ring", "actions"),
        ("[basic, premium]", "[basic, gold]", "context"),
        ("tenure:", "months:", "context"),
        ("cost", "price", "action features"),
    ],
)
def test_it_does_not_fit_another_workflow(baseline: Path, old: str, new: str, what: str) -> None:
    (problem, *_) = load_baseline(baseline).misfits(parse_workflow(SPEC.replace(old, new)))
    assert problem.field == "fallback.model"
    assert f"offers/1, whose {what} " in problem.message


def test_it_is_refused_when_it_is_not_what_was_exported(baseline: Path, tmp_path: Path) -> None:
    def copy() -> Path:
        home = tmp_path / str(len(list(tmp_path.iterdir())))
        home.mkdir()
        for file in baseline.iterdir():
            (home / file.name).write_bytes(file.read_bytes())
        return home

    gone = copy()
    (gone / "baseline.json").unlink()
    with pytest.raises(BundleError, match="expected a baseline's manifest"):
        load_baseline(gone)
    other = copy()
    with (other / "baseline.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match="not the one that was exported"):
        load_baseline(other)
    off = copy()
    with np.load(off / "parity.npz") as stored:
        np.savez(off / "parity.npz", rows=stored["rows"], reward=stored["reward"] + 1e-3)
    told = json.loads((off / "baseline.json").read_text())
    from contract.bundle import sha256_of

    told["sha256"]["parity.npz"] = sha256_of(off / "parity.npz")
    (off / "baseline.json").write_text(json.dumps(told))
    with pytest.raises(BundleError, match=r"0\.001 off its parity vectors"):
        load_baseline(off)


def test_every_slot_of_a_row_has_its_name(spec: WorkflowSpec) -> None:
    context = {"tenure": 100.0, "plan": "premium", "angry": True}
    rows = baseline_rows(spec, context)
    assert context_slots(spec) == ["angry", "plan=basic", "plan=premium", "tenure"]
    np.testing.assert_array_equal(rows[:, :4], [[1, 0, 1, 1]] * 3)
    np.testing.assert_array_equal(rows[:, 4:7], np.eye(3))
    np.testing.assert_allclose(rows[:, 7], [-1, 1, -0.6], atol=1e-6)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"action": "bribe"}, "line 1: expected an action of"),
        ({"context": {"tenure": 1}}, "line 1: context.plan: expected one of"),
    ],
)
def test_a_row_that_is_none_is_refused_by_its_line(
    log: Path, spec: WorkflowSpec, tmp_path: Path, changed: dict[str, Any], expected: str
) -> None:
    first, *others = log.read_text().splitlines()
    path = tmp_path / "bad.jsonl"
    row = json.loads(first) | {"reward": 1.0} | changed
    path.write_text("\n".join([json.dumps(row), *others]))
    with pytest.raises(LogError, match=expected):
        read_examples(path, spec)


def test_the_command_fits_and_says_what_came_of_it(log: Path, tmp_path: Path) -> None:
    workflow = tmp_path / "offers.yaml"
    workflow.write_text(SPEC)
    out = tmp_path / "policies" / "offers" / "2"
    arguments = [log, "--workflow", workflow, "--out", out, "--trees", "5"]
    ended = run("train-baseline", *arguments, "--json")
    assert ended.exit_code == 0, ended.output
    told = json.loads(ended.stdout)
    assert told["baseline"] == "offers/2"
    assert load_baseline(out).manifest.fitted["seed"] == 0
    again = run("train-baseline", *arguments)
    assert again.exit_code == 2
    assert "exists; --force replaces it" in again.stderr
    assert run("train-baseline", *arguments, "--force").exit_code == 0
    few = tmp_path / "few.jsonl"
    few.write_text("\n".join(log.read_text().splitlines()[:50]))
    refused = run("train-baseline", few, "--workflow", workflow, "--out", tmp_path / "x" / "1")
    assert refused.exit_code == 2
    assert "expected at least 100 decisions of offers with a reward" in refused.stderr
    assert not (tmp_path / "x").exists()
