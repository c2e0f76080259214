"""Fits a network's beliefs by likelihood: how surely they foretell the rewards of played trials.

No reinforcement: the policy plays as it is, or at random, and the beliefs take one step of Adam an
iteration on the Gaussian likelihood of every reward before it is learned (ALPaCA: Harrison, Sharma
& Pavone 2018). It must never touch what acts.
"""

from __future__ import annotations

import numpy as np

from training import distributed
from training.curriculum import Curriculum
from training.descent import at_rate, descend, falling
from training.hyperparameters import Hyperparameters
from training.rollout import Believing, play
from training.trpo import Learner, refuse_not_finite_weights, sum_of

_AT_RANDOM = 0.5
"""Share of the trials that are played at random: a policy alone shows only what it likes."""


def fit(learner: Learner, h: Hyperparameters, curriculum: Curriculum) -> dict[str, float]:
    """One iteration. Returns what the learning curve keeps of it."""
    policy = learner.policy
    assert isinstance(policy, Believing)
    iteration = learner.iteration + 1
    at_rate(learner.belief_optimiser, falling(h.fitting_rate, iteration / h.fitting))
    losses, gaps, steps = [], [], 0
    for tasks in curriculum.batches(learner.rng, iteration):
        played = [
            play(
                policy,
                task,
                learner.rng,
                random=learner.rng.random() < _AT_RANDOM,
                beliefs=False,
            )
            for task in tasks
        ]
        loss = sum_of(policy.surprise(one.record) for one in played) / len(played)
        descend(loss, learner.belief_optimiser, policy.belief_parameters(), "belief", iteration)
        losses.append(float(loss.detach()))
        gaps += [one.gap_closed for one in played]
        steps += sum(one.reward.size for one in played)
    refuse_not_finite_weights(learner, iteration)
    learner.iteration = iteration
    learner.steps += distributed.total(steps)
    return {
        "iteration": iteration,
        "steps": learner.steps,
        **distributed.mean_of(
            {"gap_closed": float(np.mean(gaps)), "surprise": float(np.mean(losses))}
        ),
    }
