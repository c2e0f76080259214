"""Trust-region policy optimisation of a recurrent policy over trials (Schulman et al. 2015, 2016).

One iteration, top to bottom: play trials, estimate advantages, take the natural step, fit the
critic. RL² is in the trial alone: memory and return cross the ends of episodes (Duan et al. 2016).
It must never look at a task's arm means except where `expected_rewards` says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from training import distributed
from training.curriculum import Curriculum
from training.descent import TrainingDivergedError, descend
from training.hyperparameters import Hyperparameters
from training.policies.network import Critic, Network
from training.record import Record
from training.rollout import Believing, Played
from training.spread import play
from training.trust_region import FisherProduct, flatten, natural_step, unflatten


@dataclass
class Learner:
    """Everything that changes in training, and so everything that a checkpoint keeps."""

    policy: Network
    critic: Critic
    rng: np.random.Generator
    critic_optimiser: torch.optim.Adam
    value_optimiser: torch.optim.Adam
    lesson_optimiser: torch.optim.Adam
    belief_optimiser: torch.optim.Adam
    iteration: int = 0
    steps: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


def acting_parameters(policy: Network) -> list[nn.Parameter]:
    """A policy's parameters but for its value head and what stands still."""
    return list(named_acting_parameters(policy).values())


def belief_parameters(policy: Network) -> list[nn.Parameter]:
    """What of a policy is fitted by likelihood and stands still under TRPO; often nothing."""
    return policy.belief_parameters() if isinstance(policy, Believing) else []


def named_acting_parameters(policy: Network) -> dict[str, nn.Parameter]:
    """The same by name."""
    value_head = {id(parameter) for parameter in policy.value_parameters()}
    resting = value_head | {id(parameter) for parameter in belief_parameters(policy)}
    return {n: p for n, p in policy.named_parameters() if id(p) not in resting}


def new_learner(
    policy: Network, critic: Critic, seed: int, hyperparameters: Hyperparameters
) -> Learner:
    """A learner at iteration 0."""
    rate = hyperparameters.critic_rate
    return Learner(
        policy=policy,
        critic=critic,
        rng=distributed.own_generator(seed),
        critic_optimiser=torch.optim.Adam(critic.parameters(), lr=rate),
        value_optimiser=torch.optim.Adam(policy.value_parameters(), lr=rate),
        lesson_optimiser=torch.optim.Adam(acting_parameters(policy), hyperparameters.lesson_rate),
        belief_optimiser=torch.optim.Adam(
            belief_parameters(policy) or [torch.zeros(1)], hyperparameters.fitting_rate
        ),
    )


@dataclass(frozen=True)
class Group:
    """One family's trials with what the step needs of them."""

    played: Played
    advantage: Tensor
    """`[T, B]`, mean 0 and, with what is known at once, deviation 1 over the group."""
    target: Tensor
    """`[T, B]`, what the critic should have said."""
    known: Tensor | None
    """`[T, B, K]`, in the unit of the advantage: what each action earns at once, where the task
    knows it; the advantage is then of what follows alone."""
    scale: float
    """Deviation of the targets: the critic's errors count in this unit."""


Batch = list[Group]
"""Families with the same number of steps, which pass through time together."""


def iterate(
    learner: Learner, hyperparameters: Hyperparameters, curriculum: Curriculum
) -> dict[str, float]:
    """One iteration. Returns what the learning curve keeps of it."""
    h = hyperparameters
    iteration = learner.iteration + 1
    batches = [
        prepare(learner.critic, played, h)
        for played in collect(learner.policy, learner.rng, curriculum, iteration)
    ]
    improved = improve_policy(learner.policy, batches, learner.rng, h, iteration)
    critic_error = fit_critic(learner, batches, h)
    value_error = fit_value(learner, batches)
    played = [group.played for batch in batches for group in batch]
    refuse_not_finite_weights(learner, iteration)
    learner.iteration = iteration
    learner.steps += distributed.total(sum(one.reward.size for one in played))
    return {
        "iteration": iteration,
        "steps": learner.steps,
        **distributed.mean_of(
            {
                "gap_closed": float(np.mean([one.gap_closed for one in played])),
                "critic_error": critic_error,
                "value_error": value_error,
                **improved,
            }
        ),
    }


def collect(
    policy: Network, rng: np.random.Generator, curriculum: Curriculum, iteration: int
) -> list[list[Played]]:
    """The trials of one iteration, a list a batch."""
    return [
        [play(policy, task, rng) for task in tasks] for tasks in curriculum.batches(rng, iteration)
    ]


def prepare(critic: Critic, played: list[Played], h: Hyperparameters) -> Batch:
    """Values, advantages and the critic's targets of one batch of trials."""
    with torch.no_grad():
        values = critic_values(critic, [one.record for one in played])
    batch = []
    for one, value in zip(played, values, strict=True):
        gain = np.asarray(one.reward, np.float64)
        if h.expected_rewards and one.expected_cost is not None:
            # Costs are known of every action: nothing of a step's own depends on the draw.
            gain = -one.expected_cost
        elif h.expected_rewards:
            # What the actions cost adds up to the return less the best play's, but for luck
            # (the performance difference lemma of Kakade & Langford 2002).
            gain = one.expected - one.best if one.lost is None else -one.lost
        reward = torch.as_tensor(gain).float()
        advantage = generalised_advantage(reward, value, h.discount, h.gae_lambda)
        target = advantage + value
        advantage = advantage - advantage.mean()
        known, spread = None, advantage.std() + 1e-8
        if h.expected_rewards and one.costs is not None:
            assert one.lost is not None and one.expected_cost is not None
            spread = (advantage - torch.as_tensor(one.lost - one.expected_cost)).std() + 1e-8
            known = torch.as_tensor(-one.costs).float() / spread
        batch.append(
            Group(
                played=one,
                advantage=(advantage / spread).float(),
                known=known,
                target=target,
                scale=float(target.std()) + 1e-3,
            )
        )
    return batch


def generalised_advantage(reward: Tensor, value: Tensor, discount: float, decay: float) -> Tensor:
    """GAE (Schulman et al. 2016) `[T, B]`; what follows the last step of a trial is worth 0."""
    advantage = torch.empty_like(value)
    after = torch.zeros_like(value[0])
    following = torch.zeros_like(value[0])
    for t in reversed(range(value.shape[0])):
        surprise = reward[t] + discount * following - value[t]
        after = surprise + discount * decay * after
        advantage[t], following = after, value[t]
    return advantage


def improve_policy(
    policy: Network,
    batches: list[Batch],
    rng: np.random.Generator,
    h: Hyperparameters,
    iteration: int,
) -> dict[str, float]:
    """The natural step on the surrogate E[π/π_old · A] under a bound on E[KL(π_old, π)]."""
    named = named_acting_parameters(policy)
    parameters = list(named.values())
    count = sum(len(batch) for batch in batches)

    old: list[list[Tensor]] = []
    gradient = torch.zeros(sum(parameter.numel() for parameter in parameters))
    for batch in batches:
        logs = log_policies(policy, batch)
        old.append([one.detach() for one in logs])
        # At the old policy the ratio's gradient is the score, the log-probability's own.
        surrogate = sum_of(
            (_chosen(log, group) * group.advantage).mean() + _at_once(log, group)
            for log, group in zip(logs, batch, strict=True)
        )
        grads = torch.autograd.grad(surrogate / count, parameters, materialize_grads=True)
        gradient += flatten(list(grads))
    gradient = distributed.mean(gradient)
    _refuse_not_finite(gradient, batches, iteration)

    products = [_fisher(policy, named, batch, rng, h) for batch in batches]

    def product(vector: Tensor) -> Tensor:
        total = distributed.mean(torch.stack([one(vector) for one in products]).mean(0))
        return total + h.damping * vector

    start = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def evaluate(step: Tensor) -> tuple[float, float]:
        _move(parameters, start, step)
        improvement, divergence = 0.0, 0.0
        for batch, logs_old in zip(batches, old, strict=True):
            for group, log_old, log in zip(
                batch, logs_old, log_policies(policy, batch), strict=True
            ):
                ratio = torch.exp(_chosen(log, group) - _chosen(log_old, group))
                gain = ((ratio - 1) * group.advantage).mean()
                gain = gain + _at_once(log, group) - _at_once(log_old, group)
                improvement += float(gain) / count
                divergence += float(kullback_leibler(log_old, log).mean()) / count
        both = distributed.mean(torch.tensor([improvement, divergence], dtype=torch.float64))
        return float(both[0]), float(both[1])

    step, report = natural_step(
        gradient, product, evaluate, radius=h.radius, iterations=h.cg_iterations
    )
    _move(parameters, start, step)
    entropies = [entropy(log).mean() for logs in old for log in logs]
    return {
        "entropy": float(torch.stack(entropies).mean()),
        "improvement": report.improvement,
        "divergence": report.divergence,
        "scale": report.scale,
    }


def fit_critic(learner: Learner, batches: list[Batch], h: Hyperparameters) -> float:
    """Regresses the recurrent critic on the targets; mean squared error in units of the spread."""
    errors = []
    for _ in range(h.critic_epochs):
        for batch, trials in _shuffled_parts(batches, learner.rng, h.critic_batches):
            records = [group.played.record.take(trials) for group in batch]
            values = critic_values(learner.critic, records)
            loss = sum_of(
                ((value - group.target[:, trials]) / group.scale).square().mean()
                for value, group in zip(values, batch, strict=True)
            ) / len(batch)
            parameters = list(learner.critic.parameters())
            descend(loss, learner.critic_optimiser, parameters, "critic", learner.iteration + 1)
            errors.append(float(loss.detach()))
    return float(np.mean(errors))


def fit_value(learner: Learner, batches: list[Batch]) -> float:
    """Regresses the policy's own value head, which the service reads: what it earns per step.

    The target is the mean expected reward over what is left of the trial, encoded to [−1, 1].
    The policy's memory is left alone.
    """
    errors = []
    for batch in batches:
        records = [group.played.record for group in batch]
        steps = records[0].steps
        times = torch.as_tensor(learner.rng.permutation(steps)[: max(1, steps // 4)])
        left = np.arange(steps, 0, -1)[:, None]
        with torch.no_grad():
            pools = learner.policy.pools(records, times)
        losses = []
        for pool, group in zip(pools, batch, strict=True):
            to_go = np.cumsum(group.played.expected[::-1], 0)[::-1] / left
            target = torch.as_tensor(group.played.encoded(to_go))[times]
            losses.append((learner.policy.value_of(pool) - target).square().mean())
        loss = sum_of(losses) / len(batch)
        parameters = learner.policy.value_parameters()
        descend(loss, learner.value_optimiser, parameters, "value head", learner.iteration + 1)
        errors.append(float(loss.detach()))
    return float(np.mean(errors))


def critic_values(critic: Critic, records: list[Record]) -> list[Tensor]:
    """What the rest of the trial is worth, `[T, B]` for each record.

    The network answers in units of √(steps left), in which all horizons are of one size.
    """
    left = torch.arange(records[0].steps, 0, -1, dtype=torch.float32)[:, None]
    return [critic.value_of(pool) * torch.sqrt(left) for pool in critic.pools(records)]


def log_policies(policy: Network, batch: Batch) -> list[Tensor]:
    """Log-probabilities `[T, B, K]` of a batch's families."""
    logits = policy.logits([group.played.record for group in batch])
    return [torch.log_softmax(one, -1) for one in logits]


def kullback_leibler(log_old: Tensor, log_new: Tensor) -> Tensor:
    """KL(old, new) over the last axis; an action impossible under both adds nothing."""
    return (log_old.exp() * (log_old - log_new).nan_to_num()).sum(-1)


def entropy(log_policy: Tensor) -> Tensor:
    """Entropy over the last axis, in nats."""
    return -(log_policy.exp() * log_policy.nan_to_num(neginf=0.0)).sum(-1)


def sum_of(losses: Iterable[Tensor]) -> Tensor:
    """The sum of scalars."""
    return torch.stack(list(losses)).sum()


def _fisher(
    policy: Network,
    named: Mapping[str, nn.Parameter],
    batch: Batch,
    rng: np.random.Generator,
    h: Hyperparameters,
) -> FisherProduct:
    """The Fisher product on a sample of a batch's trials and of their steps."""
    record = batch[0].played.record
    trials = rng.permutation(record.trials)[: max(1, round(h.fisher_trials * record.trials))]
    times = rng.permutation(record.steps)[: max(1, round(h.fisher_times * record.steps))]
    seen = [group.played.record.take(torch.as_tensor(trials)) for group in batch]
    at = torch.as_tensor(times)

    return FisherProduct(policy.linearised(seen, at, named), named)


def _chosen(log_policy: Tensor, group: Group) -> Tensor:
    """Log-probability of the action taken, `[T, B]`."""
    return log_policy.gather(-1, group.played.record.action[..., None]).squeeze(-1)


def _at_once(log_policy: Tensor, group: Group) -> Tensor:
    """What the policy earns a step at once, in expectation over all its actions."""
    if group.known is None:
        return log_policy.new_zeros(())
    return (log_policy.exp() * group.known).sum(-1).mean()


@torch.no_grad()
def _move(parameters: list[nn.Parameter], start: list[Tensor], step: Tensor) -> None:
    """Sets the parameters to start + step."""
    for parameter, origin, part in zip(parameters, start, unflatten(step, start), strict=True):
        parameter.copy_(origin + part)


def _shuffled_parts(
    batches: list[Batch], rng: np.random.Generator, parts: int
) -> list[tuple[Batch, Tensor]]:
    """Every trial once: pairs (batch, indices of trials in each of its families), shuffled.

    As many in each process as in the one that has fewest.
    """
    pairs: list[tuple[Batch, Tensor]] = []
    for batch in batches:
        order = rng.permutation(batch[0].played.record.trials)
        split = np.array_split(order, min(parts, order.size))
        pairs.extend((batch, torch.as_tensor(part)) for part in split)
    shuffled = [pairs[i] for i in rng.permutation(len(pairs))]
    return shuffled[: distributed.fewest(len(pairs))]


def refuse_not_finite_weights(learner: Learner, iteration: int) -> None:
    """Raises TrainingDivergedError with the first weight that is not finite."""
    for name, network in (("policy", learner.policy), ("critic", learner.critic)):
        for weight, parameter in network.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                raise TrainingDivergedError(
                    f"iteration {iteration}: {name}.{weight} is not finite any more"
                )


def _refuse_not_finite(gradient: Tensor, batches: list[Batch], iteration: int) -> None:
    """Raises TrainingDivergedError with the first quantity that is not finite."""
    if bool(torch.isfinite(gradient).all()):
        return
    cause = "the policy's own log-probabilities"
    for group in (group for batch in batches for group in batch):
        if not bool(torch.isfinite(group.target).all()):
            cause = "the critic's values"
    raise TrainingDivergedError(
        f"iteration {iteration}: the policy gradient is not finite; it comes from {cause}"
    )
