"""One TRPO iteration: advantages, the step, the critic, and what happens when numbers break."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.training.trials import TINY, TINY_BANDITS, shake, step_by_step, tiny_learner
from training.check import bandit_looks
from training.descent import TrainingDivergedError
from training.hyperparameters import Hyperparameters
from training.policies.network import build
from training.rollout import Played, play
from training.run import look
from training.tasks.bandits import BernoulliBandits
from training.trpo import (
    critic_values,
    entropy,
    generalised_advantage,
    iterate,
    kullback_leibler,
    log_policies,
    new_learner,
    prepare,
)
from training.trust_region import flatten


@pytest.mark.parametrize(("discount", "decay"), [(1.0, 1.0), (0.9, 0.7), (1.0, 0.0)])
def test_the_advantage_is_the_sum_of_discounted_surprises(discount: float, decay: float) -> None:
    torch.manual_seed(0)
    T, B = 6, 3
    reward, value = torch.randn(T, B), torch.randn(T, B)
    following = torch.cat([value[1:], torch.zeros(1, B)])
    surprise = reward + discount * following - value
    found = generalised_advantage(reward, value, discount, decay)
    for t in range(T):
        weights = (discount * decay) ** torch.arange(T - t)
        direct = (weights[:, None] * surprise[t:]).sum(0)
        torch.testing.assert_close(found[t], direct)


def test_divergence_and_entropy_survive_impossible_actions() -> None:
    impossible = -torch.inf
    old = torch.log(torch.tensor([0.5, 0.5, 0.0]))
    new = torch.log_softmax(torch.tensor([0.0, 1.0, impossible]), -1)
    by_hand = 0.5 * (np.log(0.5) - float(new[0])) + 0.5 * (np.log(0.5) - float(new[1]))
    assert float(kullback_leibler(old, new)) == pytest.approx(by_hand)
    assert float(entropy(old)) == pytest.approx(np.log(2))


def test_a_step_stays_inside_the_region_and_improves_the_surrogate() -> None:
    learner = tiny_learner()
    for _ in range(5):
        entry = iterate(learner, TINY, TINY_BANDITS)
        assert 0 <= entry["divergence"] <= TINY.radius
        assert entry["improvement"] >= 0
        assert (entry["scale"] > 0) == (entry["improvement"] > 0)


def test_a_few_iterations_learn_to_prefer_what_pays() -> None:
    h = replace(TINY, radius=0.03)
    family = replace(TINY_BANDITS, steps_per_group=1_500, arms=(5, 5), pulls=(20, 20))
    sizes = {"shared": 8, "row": 8, "width": 16}
    learner = new_learner(build("actionwise", sizes), build("actionwise", sizes, 1), 1, h)
    before = look(learner.policy, family)["n=100, k=5"]
    for _ in range(8):
        iterate(learner, h, family)
    assert look(learner.policy, family)["n=100, k=5"] > before + 5


def test_the_fixed_trials_are_the_same_at_every_look_and_their_luck_is_known() -> None:
    look = bandit_looks((2, 50))[0]
    first, second = look.draw()[0], look.draw()[0]
    first.reset()
    second.reset()
    np.testing.assert_array_equal(first.bounds(), second.bounds())
    assert (first.num_envs, first.actions) == (1_000, 5)
    lucky = 100 * (first.bounds()[1].mean() - 5 / 6)
    assert look.luck == pytest.approx(lucky, abs=0.5)
    (other,) = bandit_looks((3, 3))
    assert (other.name, other.reference) == ("n=100, k=3", None)
    task, _ = other.draw()
    task.reset()
    assert 100 * task.bounds()[1].mean() - other.luck == pytest.approx(100 * 3 / 4)


def test_the_flat_network_trains_by_the_same_iteration() -> None:
    family = replace(TINY_BANDITS, arms=(3, 3))
    sizes = {"actions": 3, "hidden": 8}
    learner = new_learner(build("gru", sizes), build("gru", sizes, 1), 1, TINY)
    first = [p.detach().clone() for p in learner.policy.parameters()]
    entry = iterate(learner, TINY, family)
    assert entry["divergence"] <= TINY.radius
    changed = [
        not torch.equal(p, q) for p, q in zip(first, learner.policy.parameters(), strict=True)
    ]
    assert all(changed)


class Delayed(BernoulliBandits):
    """Feedback comes two pulls late."""

    @property
    def known(self) -> NDArray[np.int64]:
        return np.maximum(np.arange(self.n) - 2, 0)


def test_trials_of_delayed_feedback_are_played_as_they_are_recorded() -> None:
    learner = tiny_learner()
    shake(learner.policy)
    rng = np.random.default_rng(0)
    record = play(learner.policy, Delayed(5, 3, 8, rng), rng).record
    assert record.known is not None
    slow = torch.stack(step_by_step(learner.policy, record)[0])
    with torch.no_grad():
        at_once = torch.softmax(learner.policy.logits([record])[0], -1)
    torch.testing.assert_close(at_once, slow, atol=1e-6, rtol=0)
    assert float(record.horizon_left[2, 0, 0]) == 1.0
    assert float(record.horizon_left[7, 0, 0]) == pytest.approx(1 - 5 / 8)
    for t in range(3):
        torch.testing.assert_close(slow[t], slow[0])


def test_without_the_oracle_returns_are_made_of_coins_alone() -> None:
    h = replace(TINY, expected_rewards=False, gae_lambda=1.0)
    learner = tiny_learner(hyperparameters=h)
    rng = np.random.default_rng(0)
    played = play(learner.policy, BernoulliBandits(20, 3, 4, rng), rng)
    blind = replace(
        played,
        expected=np.full_like(played.expected, np.nan),
        best=np.full_like(played.best, np.nan),
    )
    group = prepare(learner.critic, [blind], h)[0]
    to_go = np.cumsum(played.reward[::-1], 0)[::-1]
    np.testing.assert_allclose(group.target.numpy(), to_go, atol=1e-5)


def test_expected_rewards_and_coins_give_the_same_gradient_on_choices() -> None:
    policy = build("actionwise", {"shared": 5, "row": 4, "width": 6})
    shake(policy, scale=0.5)
    learner = tiny_learner()
    rng = np.random.default_rng(0)

    def gradient(played: Played, expected_rewards: bool) -> torch.Tensor:
        h = replace(TINY, expected_rewards=expected_rewards, gae_lambda=1.0)
        batch = prepare(learner.critic, [played], h)
        # The advantage as it was before it was scaled: the two scales differ by the coins' noise.
        raw = batch[0].target - critic_values(learner.critic, [played.record])[0].detach()
        chosen = log_policies(policy, batch)[0].gather(-1, played.record.action[..., None])
        surrogate = (chosen.squeeze(-1) * raw).mean()
        parameters = list(policy.parameters())
        return flatten(
            list(torch.autograd.grad(surrogate, parameters, materialize_grads=True))
        ).double()

    pairs = []
    for _ in range(40):
        played = play(policy, BernoulliBandits(2_000, 3, 6, rng, choice_share=1.0), rng)
        pairs.append(torch.stack([gradient(played, True), gradient(played, False)]))
    known, coins = torch.stack(pairs).unbind(1)
    moving = known.std(0) > 0
    error = (coins - known)[:, moving]
    z = error.mean(0) / error.std(0) * np.sqrt(len(pairs))
    strength = known.mean(0)[moving] / known.std(0)[moving] * np.sqrt(len(pairs))
    assert float(strength.abs().max()) > 20
    assert float(z.abs().max()) < 4
    assert float(z.square().mean()) < 2


@pytest.mark.parametrize(
    ("network", "weight", "cause"),
    [("policy", "score_row.bias", "log-prob"), ("critic", "value.bias", "critic's")],
)
def test_a_gradient_that_is_not_finite_stops_training_and_says_where_it_comes_from(
    network: str, weight: str, cause: str
) -> None:
    learner = tiny_learner()
    iterate(learner, TINY, TINY_BANDITS)
    broken = learner.policy if network == "policy" else learner.critic
    with torch.no_grad():
        dict(broken.named_parameters())[weight].fill_(torch.nan)
    with pytest.raises(TrainingDivergedError, match=f"iteration 2: .*{cause}"):
        iterate(learner, TINY, TINY_BANDITS)
    assert learner.iteration == 1


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("gae_lambda", {"gae_lambda": 0.0}),
        ("radius", {"radius": 0.0}),
        ("damping", {"damping": float("nan")}),
        ("fisher_trials", {"fisher_trials": 1.2}),
        ("lessons", {"lessons": -1}),
        ("lesson_rate", {"lesson_rate": 0.0}),
        ("lesson_times", {"lesson_times": 0.0}),
    ],
)
def test_hyperparameters_that_cannot_be_are_refused_by_name(
    field: str, wrong: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=f"^{field}: expected"):
        Hyperparameters(**wrong)


def test_three_iterations_give_what_they_have_always_given() -> None:
    learner = tiny_learner()
    found = [iterate(learner, TINY, TINY_BANDITS) for _ in range(3)]
    assert [entry["steps"] for entry in found] == [240, 480, 720]
    for key, always in {
        "gap_closed": [-0.07995524190943651, -0.012286594100095964, -0.06506625163270299],
        "critic_error": [1.8369946219027042, 1.354602912440896, 1.4594761990010738],
        "value_error": [0.3964558020234108, 0.29053567722439766, 0.36333662271499634],
        "divergence": [0.009057373623363674, 0.0036331311566755176, 0.005843739374540746],
    }.items():
        assert [entry[key] for entry in found] == pytest.approx(always, rel=1e-3), key
