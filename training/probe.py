"""What a policy's memory holds, and whose rule its choices follow. Numpy and ONNX, never torch.

Linear probes (Alain & Bengio 2016): a ridge regression, fitted on half of the trials and scored on
the other half, reads the posterior mean and deviation of every arm's Bernoulli mean under a flat
prior off the memory. What is scored was never told to the policy. Choices are compared with those
of Gittins, UCB1 and Thompson sampling on the policy's own history, so a disagreement is the
policy's and not its luck's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.draw import sample
from contract.encode import encode_reward, horizon_left
from contract.policy import Memory, OnnxPolicy
from training.baselines import (
    UCB1_EXPLORATION,
    Algorithm,
    GittinsTable,
    History,
    gittins_rule,
    gittins_table,
    thompson,
    ucb1,
)
from training.tasks.bandits import BernoulliBandits, refuse_impossible_family

Array = NDArray[Any]
Floats = NDArray[np.float64]

MOST_POSITIONS = 25
"""Positions within a trial whose memories are kept for the probes, spread evenly."""
_RIDGE = 1e-4
"""Penalty, as a share of the number of samples, on standardised features."""
_THOMPSON_DRAWS = 16
_ROWS_AT_ONCE = 128


@dataclass(frozen=True)
class Fit:
    """How much of a quantity a linear map reads off the memory, on trials it was not fitted on."""

    r2: float
    r2_without_memory: float
    """Of the best guess that knows only how many interactions there were."""
    r2_by_position: list[float]


@dataclass(frozen=True)
class Probed:
    """What the probes found."""

    n: int
    k: int
    trials: int
    positions: list[int]
    """Interactions folded into the memories that were probed."""
    posterior: dict[str, Fit]
    """`mean` and `deviation`."""
    agreement: dict[str, list[float]]
    """By rule, `[n]`: share of trials whose most probable arm is the rule's at that pull; for
    Thompson sampling, its probability of drawing it."""
    never_tried: dict[str, list[float]]
    """By player, `[n]`: share of pulls that go to an arm never tried before, each on its own
    history."""


def probe(
    policy: OnnxPolicy,
    *,
    n: int,
    k: int,
    trials: int,
    seed: int,
    on_step: Callable[[int], None] = lambda pulls: None,
) -> Probed:
    """Plays `trials` Bernoulli trials of n pulls on k arms and looks into the policy's memory."""
    refuse_misfit(policy, n=n, k=k, trials=trials)
    table = gittins_table(n)
    positions = sorted({round(x) for x in np.linspace(1, n, min(n, MOST_POSITIONS))})
    agreement = {name: np.zeros(n) for name in ("gittins", "ucb1", "ts")}
    tried = np.zeros(n)
    features: list[list[Array]] = []
    targets: list[list[Array]] = []
    for start in range(0, trials, _ROWS_AT_ONCE):
        batch = min(_ROWS_AT_ONCE, trials - start)
        seen, known = [], []
        rng = np.random.default_rng([seed, start])
        for t, (memory, probabilities, history, action) in enumerate(
            _played(policy, batch, n, k, rng)
        ):
            if t in positions:
                seen.append(_features(memory))
                known.append(posterior_of(history))
            if t == n:
                break
            chosen = probabilities.argmax(1)
            for name, share in agreement_with(history, chosen, n - t, table, rng).items():
                agreement[name][t] += share * batch / trials
            tried[t] += float((history.pulls[np.arange(batch), action] == 0).sum()) / trials
            on_step(batch)
        features.append(seen)
        targets.append(known)
    x = [np.concatenate(parts) for parts in zip(*features, strict=True)]
    y = [np.concatenate(parts) for parts in zip(*targets, strict=True)]
    fits = _read_off(x, y)
    never_tried = {"policy": tried.tolist()}
    rules: Mapping[str, Algorithm] = {
        "gittins": gittins_rule(n, table),
        "ucb1": ucb1(),
        "ts": thompson(),
    }
    for name, rule in rules.items():
        never_tried[name] = _never_tried(rule, n, k, trials, seed)
    return Probed(
        n=n,
        k=k,
        trials=trials,
        positions=positions,
        posterior=dict(zip(("mean", "deviation"), fits, strict=True)),
        agreement={name: share.tolist() for name, share in agreement.items()},
        never_tried=never_tried,
    )


def refuse_misfit(policy: OnnxPolicy, *, n: int, k: int, trials: int) -> None:
    """Raises ValueError naming the field of what cannot be probed."""
    refuse_impossible_family(k=k, n=n, trials=trials)
    actions = policy.manifest.actions
    if not actions.min <= k <= actions.max:
        raise ValueError(
            f"k: policy {policy.manifest.policy} takes {actions.min} to {actions.max} arms, got {k}"
        )
    if trials < 10:
        raise ValueError(f"trials: expected at least 10, to fit on half of them, got {trials}")


def ridge(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Weights `[F, Y]` and intercept `[Y]` of the ridge regression of y `[N, Y]` on x `[N, F]`."""
    centre, spread = x.mean(0), x.std(0) + 1e-6
    standard = (x - centre) / spread
    penalty = _RIDGE * len(x) * np.eye(x.shape[1])
    weights = np.linalg.solve(standard.T @ standard + penalty, standard.T @ (y - y.mean(0)))
    weights /= spread[:, None]
    return weights, y.mean(0) - centre @ weights


def _played(policy: OnnxPolicy, batch: int, n: int, k: int, rng: np.random.Generator) -> Any:
    """Memory, probabilities, history and sampled action before each pull, and after the last."""
    bandits = BernoulliBandits(batch, k, n, rng)
    bandits.reset()
    history, memory = History.blank(batch, k), policy.blank(batch, k)
    manifest = policy.manifest
    context = np.zeros((batch, manifest.context_size), np.float32)
    features = np.zeros((batch, k, manifest.action_feature_size), np.float32)
    mask, done = np.ones((batch, k), bool), np.ones(batch, np.float32)
    for t in range(n + 1):
        probabilities, _ = policy.decide(
            memory,
            context=context,
            action_mask=mask,
            horizon_left=np.tile(horizon_left(t, n), (batch, 1)),
            action_features=features,
        )
        action = sample(probabilities, rng.random(batch))
        yield memory, probabilities, history, action
        if t < n:
            _, reward, _, _, _ = bandits.step(action)
            shown = encode_reward(reward, 0.0, 1.0)
            memory = policy.learn(
                memory,
                context=context,
                action=action,
                reward=shown,
                done=done,
                action_features=features,
            )
            history.observe(action, reward)


def _features(memory: Memory) -> Array:
    """What a probe of each arm may look at.

    A row an arm: that row and the shared part, `[B, K, H + G]`; one map serves all arms. No rows:
    the shared part, `[B, 1, G]`; every arm has its own map.
    """
    batch, k, size = memory.rows.shape
    if size == 0:
        return memory.shared[:, None].astype(np.float32)
    shared = np.broadcast_to(memory.shared[:, None], (batch, k, memory.shared.shape[1]))
    return np.concatenate([memory.rows, shared], 2).astype(np.float32)


def posterior_of(history: History) -> Array:
    """Mean and deviation of every arm's Beta posterior under a flat prior, `[B, K, 2]`."""
    won, pulls = history.rewards + 1.0, history.pulls + 2.0
    mean = won / pulls
    return np.stack([mean, np.sqrt(mean * (1.0 - mean) / (pulls + 1.0))], 2)


def _read_off(x: list[Array], y: list[Array]) -> list[Fit]:
    """The fits of mean and deviation, from features and targets by position."""
    half = len(x[0]) // 2
    arms_apart = x[0].shape[1] == 1
    shape = (-1, y[0].shape[1]) if arms_apart else (-1, 1)
    fits = []
    for which in range(2):
        train_x = np.concatenate([one[:half].reshape(-1, one.shape[2]) for one in x])
        train_y = np.concatenate([one[:half, :, which].reshape(shape) for one in y])
        weights, intercept = ridge(train_x.astype(np.float64), train_y)
        errors, spreads, guesses, by_position = [], [], [], []
        level = train_y.mean()
        for seen, known in zip(x, y, strict=True):
            truth = known[half:, :, which].reshape(shape)
            found = seen[half:].reshape(-1, seen.shape[2]) @ weights + intercept
            error, spread = np.square(found - truth).sum(), np.square(truth - truth.mean()).sum()
            by_position.append(float(1.0 - error / spread) if spread > 0 else float("nan"))
            guess = known[:half, :, which].mean()
            errors.append(error)
            spreads.append(np.square(truth - level).sum())
            guesses.append(np.square(truth - guess).sum())
        fits.append(
            Fit(
                r2=float(1.0 - sum(errors) / sum(spreads)),
                r2_without_memory=float(1.0 - sum(guesses) / sum(spreads)),
                r2_by_position=by_position,
            )
        )
    return fits


def agreement_with(
    history: History, chosen: Array, left: int, table: GittinsTable, rng: np.random.Generator
) -> dict[str, float]:
    """Share of trials whose `chosen` arm `[B]` is each rule's at this pull."""
    rows = np.arange(chosen.size)
    won, lost = history.rewards, history.pulls - history.rewards
    best = table.best_arms(won, lost, left)
    pulls = history.pulls + 2.0
    bound = (won + 1.0) / pulls
    bound = bound + UCB1_EXPLORATION * np.sqrt(2 * np.log(history.decisions + 1) / pulls)
    drawn = rng.beta(won + 1.0, lost + 1.0, (_THOMPSON_DRAWS, *won.shape)).argmax(2)
    return {
        "gittins": float(best[rows, chosen].mean()),
        "ucb1": float((bound[rows, chosen] >= bound.max(1)).mean()),
        "ts": float((drawn == chosen).mean()),
    }


def _never_tried(rule: Algorithm, n: int, k: int, trials: int, seed: int) -> list[float]:
    """Share of a rule's pulls that go to an arm never tried before, `[n]`."""
    rng = np.random.default_rng([seed, trials])
    bandits = BernoulliBandits(trials, k, n, rng)
    bandits.reset()
    history = History.blank(trials, k)
    share = []
    for _ in range(n):
        action = rule(history, rng)
        share.append(float((history.pulls[np.arange(trials), action] == 0).mean()))
        _, reward, _, _, _ = bandits.step(action)
        history.observe(action, reward)
    return share
