"""A simulated workflow as it is trained on: what is forced is all that is allowed."""

from __future__ import annotations

import numpy as np
import pytest

from training.curricula import build_curriculum, settings_of
from training.policies.network import build
from training.rollout import play
from training.tasks.task import Situated
from training.tasks.workflow_trials import WorkflowTrials
from training.tasks.workflows.families import FAMILIES, HELD_OUT_VERTICALS, TRAINING_VERTICALS
from training.workflow_curriculum import WorkflowCurriculum


@pytest.mark.parametrize("workflow", FAMILIES)
def test_every_workflow_can_be_played_and_what_is_forced_is_served(workflow: str) -> None:
    vertical = TRAINING_VERTICALS[workflow][0]
    task = WorkflowTrials(workflow, vertical, 60, 12, np.random.default_rng(1), delay=2)
    task.reset()
    assert isinstance(task, Situated)
    spec = task.spec
    sizes = {
        "shared": 4,
        "row": 3,
        "width": 8,
        "context": max(1, task._slots),
        "action_features": len(spec.actions[0].features),
        "actions": task.actions,
        "features": 4,
        "kinds": 2,
    }
    played = play(build("contextual", sizes, 1), task, np.random.default_rng(2))
    assert np.isfinite(played.expected).all()
    low, high = task.reward_range
    assert (played.reward >= low).all() and (played.reward <= high).all()
    alone = played.record.action_mask.sum(-1) == 1
    chosen = played.record.action_mask.gather(-1, played.record.action[..., None]).squeeze(-1)
    assert bool(chosen.all()) and bool(alone.any())
    assert played.record.known is not None and played.record.known.tolist()[:4] == [0, 0, 0, 1]


def test_no_held_out_vertical_is_ever_drawn() -> None:
    curriculum = WorkflowCurriculum("support-routing", steps_per_group=80, decisions=(4, 8))
    rng = np.random.default_rng(0)
    seen = set()
    for iteration in range(1, 12):
        for batch in curriculum.batches(rng, iteration):
            for task in batch:
                assert isinstance(task, WorkflowTrials)
                seen.add(task.accounts.vertical)
    assert seen == set(TRAINING_VERTICALS["support-routing"])
    assert not seen & set(HELD_OUT_VERTICALS["support-routing"])


def test_its_curriculum_is_built_again_from_what_a_checkpoint_names() -> None:
    curriculum = WorkflowCurriculum("onboarding", decisions=(5, 9))
    assert build_curriculum(curriculum.name, settings_of(curriculum)) == curriculum


def test_a_workflow_without_a_simulator_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"^workflow: expected one with a simulator"):
        WorkflowCurriculum("brand-choice")
