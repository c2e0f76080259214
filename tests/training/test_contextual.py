"""The network for any context: a record says what the step says, and the belief is exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from training.contextual_curriculum import ContextualCurriculum
from training.hyperparameters import Hyperparameters
from training.likelihood import fit
from training.policies.contextual import Contextual, ContextualSizes
from training.policies.linear_belief import BeliefSizes, LinearBelief
from training.policies.network import build, build_critic
from training.rollout import play
from training.tasks.contextual import ContextualTrials, draw_layout
from training.tasks.funnel import FunnelTrials
from training.tasks.side_by_side import SideBySide
from training.tasks.task import TOLD, Situated
from training.trpo import Learner, iterate, new_learner

SMALL: dict[str, Any] = {"shared": 5, "row": 3, "width": 8}
TINY = ContextualCurriculum(
    horizons=1, groups=2, families=2, steps_per_group=200, actions=(2, 5), decisions=(8, 20)
)


def trials(k: int = 4, *, n: int = 12, delay: int = 0, seed: int = 3) -> ContextualTrials:
    rng = np.random.default_rng(seed)
    layout = draw_layout(rng, k)
    while not (layout.slots and layout.action_features.any() and layout.masked):
        layout = draw_layout(rng, k)
    return ContextualTrials(16, n, layout, rng, delay=delay)


def learner(h: Hyperparameters) -> Learner:
    return new_learner(
        build("contextual", SMALL, 1), build_critic("informed", {"told": TOLD}, 2), 1, h
    )


@pytest.mark.parametrize("delay", [0, 3])
@pytest.mark.parametrize("named", [0, 4])
def test_what_is_learned_from_is_what_was_played(delay: int, named: int) -> None:
    network = build("contextual", SMALL | {"actions": named}, 1)
    rng = np.random.default_rng(5)
    record = play(network, trials(delay=delay), rng).record
    found = torch.softmax(network.logits([record])[0], -1)
    shared, rows = network.blank(record.trials, 4)
    folded = 0
    known = range(record.steps) if record.known is None else record.known.tolist()
    with torch.no_grad():
        for t, position in enumerate(known):
            while folded < position:
                shared, rows = network.learn(
                    shared,
                    rows,
                    record.context[folded],
                    record.action[folded],
                    record.reward[folded],
                    record.done[folded],
                    record.action_features,
                )
                folded += 1
            stepped, _ = network.decide(
                shared,
                rows,
                record.context[t],
                record.action_mask[t],
                record.horizon_left[t],
                record.action_features,
            )
            torch.testing.assert_close(stepped, found[t], atol=2e-6, rtol=0)


def test_neither_the_order_of_actions_nor_that_of_features_counts() -> None:
    network = build("contextual", SMALL, 1)
    record = play(network, trials(), np.random.default_rng(5)).record
    actions, slots = torch.tensor([2, 0, 3, 1]), torch.randperm(16)
    place = torch.argsort(actions)
    shared, rows = network.blank(record.trials, 4)
    other_shared, other_rows = network.blank(record.trials, 4)
    features, other = record.action_features, record.action_features[:, actions]
    with torch.no_grad():
        for t in range(record.steps):
            left, mask = record.horizon_left[t], record.action_mask[t]
            context = record.context[t]
            one, _ = network.decide(shared, rows, context, mask, left, features)
            two, _ = network.decide(
                other_shared, other_rows, context[:, slots], mask[:, actions], left, other
            )
            torch.testing.assert_close(one[:, actions], two, atol=1e-5, rtol=0)
            reward, done = record.reward[t], record.done[t]
            action = record.action[t]
            shared, rows = network.learn(shared, rows, context, action, reward, done, features)
            other_shared, other_rows = network.learn(
                other_shared, other_rows, context[:, slots], place[action], reward, done, other
            )


def test_one_action_s_model_is_the_regression_that_its_rewards_make() -> None:
    """With the shared model known for certain, the posterior is Bayesian linear regression's."""
    torch.manual_seed(0)
    belief = LinearBelief(BeliefSizes(3, 1))
    with torch.no_grad():
        belief.common_log_variance.fill_(-40.0)
        belief.prior_mean.zero_()
        belief.doubt.copy_(torch.tensor([40.0, -40.0]))
        belief.noise.guess.copy_(torch.tensor([-1.0, 30.0]))
    shared, row = (part[None] for part in belief.blank())
    contexts, rewards = torch.rand(9, 3) * 2 - 1, torch.rand(9) * 2 - 1
    with torch.no_grad():
        for context, reward in zip(contexts, rewards, strict=True):
            shared, row, *_ = belief.update(
                shared, row, context[None], reward[None], torch.zeros(1, 1)
            )
        query = torch.rand(1, 3) * 2 - 1
        found = belief.predict(shared, row[:, None], query, torch.zeros(1, 1, 1))
        x = torch.cat([torch.ones(9, 1), contexts], 1).double()
        prior = torch.exp(belief.own_log_variance).double()
        precision = torch.diag(1 / torch.cat([prior[:1], prior[1:].expand(3)]))
        noise = float(torch.exp(torch.tensor(-1.0)))
        covariance = torch.linalg.inv(precision + x.T @ x)
        mean = covariance @ x.T @ rewards.double()
        at = torch.cat([torch.ones(1), query[0]]).double()
    assert float(found.mean) == pytest.approx(float(at @ mean), abs=1e-4)
    assert float(found.own_deviation) == pytest.approx(
        (noise * float(at @ covariance @ at)) ** 0.5, abs=1e-4
    )


def test_fitting_moves_the_beliefs_alone_and_reinforcement_all_but_the_beliefs() -> None:
    h = Hyperparameters(fitting=1, fitting_rate=0.02, cg_iterations=3)
    one = learner(h)
    network = one.policy
    assert isinstance(network, Contextual)
    beliefs = {f"models.{name}" for name, _ in network.models.named_parameters()}
    beliefs |= {f"counts.{name}" for name, _ in network.counts.named_parameters()}

    def moved(before: dict[str, torch.Tensor]) -> set[str]:
        after = dict(network.named_parameters())
        return {name for name, was in before.items() if not torch.equal(was, after[name])}

    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    entry = fit(one, h, TINY)
    assert np.isfinite(entry["surprise"])
    assert moved(before) and moved(before) <= beliefs
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    iterate(one, h, TINY)
    assert moved(before) and not moved(before) & beliefs


def test_likelihood_falls_as_beliefs_are_fitted() -> None:
    h = Hyperparameters(fitting=12, fitting_rate=0.1)
    one = learner(h)
    network = one.policy
    assert isinstance(network, Contextual)
    record = play(network, trials(seed=11, n=30), np.random.default_rng(2), random=True).record
    with torch.no_grad():
        at_first = float(network.surprise(record))
    for _ in range(12):
        fit(one, h, TINY)
    with torch.no_grad():
        assert float(network.surprise(record)) < at_first - 0.02


def test_every_family_of_the_curriculum_can_be_played() -> None:
    network = build("contextual", SMALL, 1)
    rng = np.random.default_rng(1)
    seen: set[str] = set()
    for iteration in range(1, 30):
        for batch in TINY.batches(rng, iteration):
            for task in batch:
                assert isinstance(task, SideBySide)
                seen.update(type(one).__name__ for one in task.tasks)
            if iteration < 4:
                for task in batch:
                    played = play(network, task, rng)
                    assert isinstance(task, Situated)
                    assert np.isfinite(played.expected).all()
                    assert played.lost is not None and (played.lost >= -1e-9).all()
    assert seen == {"ContextualTrials", "SituatedBandits", "FunnelTrials"}


def test_a_journey_s_worth_is_what_the_best_play_earns() -> None:
    rng = np.random.default_rng(4)
    task = FunnelTrials(4_000, 3, 40, rng, slots=16)
    task.reset()
    earned, lengths = np.zeros(4_000), np.zeros(4_000)
    worth = task.means.max(1)
    running = np.ones(4_000, bool)
    for _ in range(task.patience):
        _, reward, done, _, _ = task.step(task.means.argmax(1))
        earned += np.where(running, reward, 0.0)
        lengths += running
        running &= ~done
    assert not running.any()
    assert earned.mean() == pytest.approx(worth.mean(), abs=4 * earned.std() / 4_000**0.5)


@pytest.mark.parametrize(
    ("field", "settings"),
    [
        ("actions", {"actions": (1, 5)}),
        ("actions", {"actions": (5, 2)}),
        ("decisions", {"decisions": (1, 5)}),
        ("choice_share", {"choice_share": 1.5}),
        ("choice_share", {"choice_share": 0.6, "bandit_share": 0.6}),
        ("groups", {"groups": 0}),
    ],
)
def test_an_impossible_family_is_refused_by_field(field: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{field}: expected"):
        ContextualCurriculum(**settings)


@pytest.mark.parametrize(
    ("field", "sizes"), [("actions", {"actions": 51}), ("action_features", {"action_features": 0})]
)
def test_impossible_sizes_are_refused_by_field(field: str, sizes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{field}: expected"):
        ContextualSizes(**sizes)
