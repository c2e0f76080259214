"""Training on tabular MDPs, from the planner's lessons to a bundle, by the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from acclimate import main
from contract.policy import OnnxPolicy, verify_parity
from training.baselines_mdps import History, planner_values
from training.curriculum import BanditCurriculum, MdpCurriculum
from training.policies.network import build
from training.rollout import play
from training.tasks.mdps import EPISODE_STEPS, TabularMDPs
from training.teachers import build_teacher

TINY = ("--steps-per-horizon", "200", "--horizons", "2", "--episodes", "2", "4", "--width", "4")


def acclimate(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def test_the_teacher_advises_what_the_planner_would_do_and_ties_share() -> None:
    rng = np.random.default_rng(0)
    mdps = TabularMDPs(6, 3, rng)
    played = play(build("planning", {}), mdps, rng)
    times = np.array([17, 0, 29])
    advice = build_teacher("planner").advise(mdps, played, times)
    assert advice.shape == (3, 6, 5)
    np.testing.assert_allclose(advice.sum(-1), 1.0)
    np.testing.assert_allclose(advice[1], 0.2)
    history = History.blank(6, 3)
    states = played.record.context.argmax(-1).numpy()
    for t in range(29):
        if t == 17:
            values = planner_values(history)
            assert history.episode_step == 17 % EPISODE_STEPS
            assert (advice[0, np.arange(6), values.argmax(-1)] > 0).all()
            assert not advice[0][values < values.max(-1, keepdims=True) - 1e-6].any()
        history.observe(played.record.action[t].numpy(), played.reward[t], states[t + 1])


def test_the_planner_teaches_mdps_and_nothing_else() -> None:
    curriculum = MdpCurriculum()
    assert build_teacher("planner").lessons(curriculum) is curriculum
    with pytest.raises(ValueError, match="planner teaches mdps, not bandits"):
        build_teacher("planner").lessons(BanditCurriculum())


def test_a_run_takes_lessons_then_trpo_and_resumes_to_the_bit(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    words = ("train", "mdps", "--lessons", 1, *TINY)
    assert acclimate(*words, "--iterations", 3, "--out", whole).exit_code == 0
    for iterations, resume in ((2, ()), (3, ("--resume",))):
        done = acclimate(*words, "--iterations", iterations, "--out", parts, *resume)
        assert done.exit_code == 0, done.output
    first, second = (torch.load(run / "checkpoint.pt", weights_only=True) for run in (whole, parts))
    assert ["lesson_loss" in entry for entry in first["history"]] == [True, False, False]
    for part in ("policy", "critic"):
        for name, weight in first[part].items():
            assert torch.equal(weight, second[part][name]), name


def test_a_run_becomes_a_bundle_whose_report_holds_the_evaluation_on_mdps(tmp_path: Path) -> None:
    run, bundle = tmp_path / "run", tmp_path / "mdps" / "1"
    assert acclimate("train", "mdps", *TINY, "--iterations", 1, "--out", run).exit_code == 0
    exported = acclimate("export", run, bundle, "--evaluation-trials", 20)
    assert exported.exit_code == 0, exported.output
    policy = OnnxPolicy.load(bundle)
    assert policy.manifest.task_family == "mdps"
    assert verify_parity(policy, bundle).difference == 0.0
    report = (bundle / "report.md").read_text()
    assert "1 lessons from a teacher (planner, DAgger), no TRPO" in report
    for n in (10, 25, 50, 75, 100):
        assert f"### n = {n}, 2 trials" in report
    assert "acclimate evaluate mdps --policy policies/mdps/1 --trials 2 --seed 7" in report
    assert (bundle / "by-episode.png").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--episodes", "0", "5"), "--episodes: expected a range from 1 up"),
        (("--horizons", "0"), "--horizons: expected at least 1"),
        (("--radius", "0"), "--radius: expected more than 0"),
        (("--teacher", "gittins"), "gittins teaches bandits, not mdps"),
        (("--teacher", "nobody"), "teacher: expected none or one of gittins, planner"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_name(
    words: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    refused = acclimate("train", "mdps", "--iterations", 1, *TINY, *words, "--out", out)
    assert refused.exit_code == 2, refused.output
    assert message in " ".join(refused.output.split())
    assert not (out / "checkpoint.pt").exists()


def test_another_network_or_number_of_processes_is_not_resumed(tmp_path: Path) -> None:
    words = ("train", "mdps", "--teacher", "none", *TINY, "--out", tmp_path)
    assert acclimate(*words, "--iterations", 1).exit_code == 0
    kept = tmp_path / "checkpoint.pt"
    before = kept.read_bytes()
    other = acclimate(*words, "--iterations", 2, "--resume", "--network", "gru", "--hidden", 8)
    assert other.exit_code == 2
    assert "holds planning" in other.output
    assert kept.read_bytes() == before
    state = torch.load(kept, weights_only=True)
    state["run"]["processes"] = 2
    torch.save(state, kept)
    fewer = acclimate(*words, "--iterations", 2, "--resume")
    assert fewer.exit_code == 2
    assert "trained by 2 processes" in " ".join(fewer.output.split())
