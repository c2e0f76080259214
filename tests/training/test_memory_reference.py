"""What memories are like is learned by playing a bundle, and changes nothing of its graphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from contract.bundle import load_manifest
from contract.memory_reference import load_reference
from contract.policy import OnnxPolicy
from service.bundles import load_policy
from tests.bundles import write_counting_bundle
from tests.house.tree import ROOT
from training.curriculum import BanditCurriculum
from training.memory_reference import add_reference, curriculum_of, play, refer

GRU = ROOT / "policies" / "bandits-gru" / "1"
SHORT = BanditCurriculum(arms=(4, 4), pulls=(12, 12), growing=0, steps_per_group=1_200)


def test_a_bundle_is_played_on_what_its_command_says() -> None:
    found = curriculum_of(load_manifest(GRU))
    assert isinstance(found, BanditCurriculum)
    assert (found.arms, found.pulls, found.choice_share) == ((10, 10), (10, 10), 0.0)
    assert found.steps_per_group == 30_000


def test_a_family_without_tasks_here_is_refused(tmp_path: Path) -> None:
    bundle = write_counting_bundle(tmp_path)
    with pytest.raises(ValueError, match="task_family: none has no tasks"):
        add_reference(bundle)


def test_a_counted_memory_is_described_by_its_age_and_the_graphs_stay_as_they_are(
    tmp_path: Path,
) -> None:
    bundle = write_counting_bundle(tmp_path)
    before = load_policy(bundle)
    assert before.reference is None
    made = add_reference(bundle, curriculum=SHORT, seed=3, accounts=200)
    after = load_policy(bundle)
    assert after.identity == before.identity
    assert after.reference is not None
    assert made.positions.tolist() == [1, 2, 5, 10]
    # Of four actions, pulls come to the age; the first number of `shared` counts ends.
    np.testing.assert_allclose(made.row_mean[:, 1], made.positions / 4, rtol=1e-5)
    again = refer(OnnxPolicy.load(bundle), SHORT, seed=3, accounts=200)
    kept = load_reference(bundle, load_manifest(bundle))
    assert kept is not None
    for one, other, third in zip(made, again, kept, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(one, third)


def test_late_feedback_is_learned_in_the_end(tmp_path: Path) -> None:
    policy = OnnxPolicy.load(write_counting_bundle(tmp_path))
    rng = np.random.default_rng(1)
    late = BanditCurriculum(arms=(4, 4), pulls=(10, 10), growing=0, delay_share=1.0)
    (task, *_), *_ = late.batches(rng, 1)
    ages = [position for position, _ in play(policy, task, rng)]
    assert ages == [1, 2, 5, 10]
