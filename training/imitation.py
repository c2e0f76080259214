"""Lessons before reinforcement: the student plays, a teacher says what it would have done (DAgger).

Ross, Gordon & Bagnell (2011): states are the student's own, advice the teacher's, and the student
regresses on it. Every iteration plays anew, so nothing is stored. It must never look past what the
teacher says at a task.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from training import distributed
from training.curriculum import Curriculum
from training.descent import LAST_RATE, at_rate, descend, falling
from training.hyperparameters import Hyperparameters
from training.rollout import Played, play
from training.tasks.task import Task
from training.teachers import Teacher
from training.trpo import (
    Learner,
    acting_parameters,
    fit_critic,
    fit_value,
    prepare,
    refuse_not_finite_weights,
    sum_of,
)

_CRITIC_JOINS = 0.8
"""Share of the lessons after which the critic learns beside the policy: TRPO needs it warm."""


def lesson(
    learner: Learner, h: Hyperparameters, curriculum: Curriculum, teacher: Teacher
) -> dict[str, float]:
    """One iteration of imitation. Returns what the learning curve keeps of it."""
    iteration = learner.iteration + 1
    share = min(1.0, iteration / h.lessons)
    rate = falling(h.lesson_rate, share)
    taught = teacher.lessons(curriculum)
    return _take(learner, h, taught, teacher, rate, iteration, share > _CRITIC_JOINS)


def revise(
    learner: Learner, h: Hyperparameters, curriculum: Curriculum, teacher: Teacher
) -> dict[str, float]:
    """What is taught once more, at the last rate, after an iteration of TRPO.

    A natural step on many families forgets a little of those that are known to the end; without
    this a few dozen of them cost a per cent of what Gittins earns.
    """
    taught = teacher.lessons(curriculum)
    rate = h.lesson_rate * LAST_RATE
    revised = _take(learner, h, taught, teacher, rate, learner.iteration, critic=False)
    return {"steps": revised["steps"], "lesson_loss": revised["lesson_loss"]}


def _take(
    learner: Learner,
    h: Hyperparameters,
    taught: Curriculum,
    teacher: Teacher,
    rate: float,
    iteration: int,
    critic: bool,
) -> dict[str, float]:
    """Plays an iteration's trials and regresses on the advice; `critic`: it learns beside."""
    at_rate(learner.lesson_optimiser, rate)
    losses, everything = [], []
    critic_error = value_error = 0.0
    for tasks in taught.batches(learner.rng, iteration):
        played = [play(learner.policy, task, learner.rng) for task in tasks]
        everything.extend(played)
        losses += [
            _imitate(learner, h, teacher, tasks, played, part, iteration)
            for _ in range(h.lesson_passes)
            for part in _parts(learner.rng, played[0].record.trials, h.lesson_parts)
        ]
        if critic:
            batch = prepare(learner.critic, played, h)
            critic_error = fit_critic(learner, [batch], h)
            value_error = fit_value(learner, [batch])
    refuse_not_finite_weights(learner, iteration)
    learner.iteration = iteration
    learner.steps += distributed.total(sum(one.reward.size for one in everything))
    return {
        "iteration": iteration,
        "steps": learner.steps,
        **distributed.mean_of(
            {
                "gap_closed": float(np.mean([one.gap_closed for one in everything])),
                "lesson_loss": float(np.mean(losses)),
                "critic_error": critic_error,
                "value_error": value_error,
            }
        ),
    }


def _imitate(
    learner: Learner,
    h: Hyperparameters,
    teacher: Teacher,
    tasks: Sequence[Task],
    played: Sequence[Played],
    trials: torch.Tensor,
    iteration: int,
) -> float:
    """One step of Adam on the divergence from the teacher's advice to the policy."""
    T = played[0].record.steps
    times = learner.rng.permutation(T)[: max(1, round(h.lesson_times * T))]
    advice = [
        torch.as_tensor(teacher.advise(task, one, times))[:, trials]
        for task, one in zip(tasks, played, strict=True)
    ]
    records = [one.record.take(trials) for one in played]
    logits = learner.policy.logits(records, torch.as_tensor(times))
    loss = sum_of(
        _divergence(wanted, torch.log_softmax(found, -1))
        for wanted, found in zip(advice, logits, strict=True)
    ) / len(played)
    acting = acting_parameters(learner.policy)
    descend(loss, learner.lesson_optimiser, acting, "policy", iteration)
    return float(loss.detach())


def _divergence(wanted: torch.Tensor, log_policy: torch.Tensor) -> torch.Tensor:
    """Mean KL(wanted, policy): zero where the student does just what the teacher would."""
    return (torch.xlogy(wanted, wanted) - wanted * log_policy).sum(-1).mean()


def _parts(rng: np.random.Generator, trials: int, parts: int) -> list[torch.Tensor]:
    """Every trial once, in shuffled parts, as many in every process: each is a common step."""
    order = rng.permutation(trials)
    split = np.array_split(order, min(parts, distributed.fewest(trials)))
    return [torch.as_tensor(part) for part in split]
