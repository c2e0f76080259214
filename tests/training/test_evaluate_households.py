"""A bundle on real households: who is scored, how families pool, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from acclimate import main
from contract.policy import OnnxPolicy
from contract.spec import load_workflow
from training.evaluate_households import evaluate_households, play_policy, purchases
from training.household_baselines import BASELINES, permutation_seeds, play_baselines
from training.tasks.households import FAMILIES, load_panels

SPEC = load_workflow(Path("workflows/brand-choice.yaml"))
PANELS = {name: replace(panel, test=panel.test[:6]) for name, panel in load_panels().items()}


@pytest.fixture(scope="module")
def policy() -> OnnxPolicy:
    return OnnxPolicy.load(Path("policies/bandits/1"))


def test_every_family_is_scored_and_the_pool_is_all_their_households(policy: OnnxPolicy) -> None:
    heard: list[int] = []
    scores = evaluate_households(
        policy, SPEC, PANELS, permutations=2, seed=3, on_purchases=heard.append
    )
    assert [score.family for score in scores] == [*FAMILIES, "pooled"]
    assert sum(heard) == purchases(PANELS, 2)
    *families, pooled = scores
    assert pooled.households == sum(score.households for score in families)
    bought = [sum(household.choices.size for household in panel.test) for panel in PANELS.values()]
    for name in BASELINES:
        each = [score.baselines[name].difference.mean for score in families]
        together = pooled.baselines[name].difference.mean
        assert together == pytest.approx(np.average(each, weights=bought))


def test_a_policy_that_learns_predicts_better_than_chance(policy: OnnxPolicy) -> None:
    rng = np.random.default_rng(0)
    earned = play_policy(policy, SPEC, PANELS["yogurt"], permutations=4, seed=0, rng=rng)
    buying = np.array([household.choices.size for household in PANELS["yogurt"].test])
    assert set(np.unique(earned)) <= {0.0, 1.0}
    assert (earned.sum(axis=1) / buying).mean() > 0.5


def test_another_seed_is_another_set_of_permutations() -> None:
    assert not set(permutation_seeds(0, 20)) & set(permutation_seeds(1, 20))
    first, again, other = (
        play_baselines(PANELS["catsup"], PANELS["catsup"].test, 2, seed=seed) for seed in (1, 1, 2)
    )
    for name in BASELINES:
        assert np.array_equal(first[name], again[name])
    assert any(not np.array_equal(first[name], other[name]) for name in BASELINES)


def test_json_has_the_families_of_the_demo_and_the_pool() -> None:
    words = ["--policy", "policies/bandits/1", "--seed", "5", "--permutations", "1", "--json"]
    done = CliRunner().invoke(main, ["evaluate", "households", *words])
    assert done.exit_code == 0, done.output
    families = json.loads(done.stdout)["families"]
    assert [one["family"] for one in families] == [*FAMILIES, "pooled"]
    for one in families:
        fitted = one["baselines"]["ts_fitted"]
        assert one["reward"] - fitted["reward"] == pytest.approx(fitted["difference"])
        assert fitted["difference_se"] > 0


def test_what_cannot_play_households_is_refused(tmp_path: Path) -> None:
    def said(*words: str) -> str:
        done = CliRunner().invoke(main, ["evaluate", "households", *words])
        assert done.exit_code == 2
        return " ".join(done.output.split())

    assert "manifest.json" in said("--policy", str(tmp_path))
    assert "mdps" in said("--policy", "policies/mdps/1")
    text = Path("workflows/brand-choice.yaml").read_text()
    (tmp_path / "brand-choice.yaml").write_text(text.replace("  - id: brand_4\n", ""))
    three = said("--policy", "policies/bandits/1", "--workflows", str(tmp_path))
    assert "expected 4 actions" in three
