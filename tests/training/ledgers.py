"""Logs of simulated accounts, as `acclimate ledger export` writes them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.draw import sample
from training.tasks.workflows import Accounts, Situation, raw_context

Array = NDArray[Any]
Behaviour = Callable[[Situation, int], Array]
"""The probabilities of B accounts, `[B, K]`, in a situation before decision t."""


@dataclass(frozen=True)
class Logged:
    """The rows, account by account, and what only the simulator knows."""

    rows: list[dict[str, Any]]
    means: NDArray[np.float64]
    """Expected reward of each action at the decision of each row, `[N, K]`."""

    def write(self, path: Path) -> Path:
        """The rows as JSON lines."""
        path.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        return path


def mixed(accounts: Accounts, share: float) -> Behaviour:
    """The workflow's fallback, and at random for this share of decisions."""

    def behave(situation: Situation, t: int) -> Array:
        mask = situation.mask
        given: Array = share * mask / mask.sum(1, keepdims=True)
        given[np.arange(len(mask)), accounts.fallback()] += 1.0 - share  # type: ignore[attr-defined]
        return given

    return behave


def log_accounts(accounts: Accounts, behave: Behaviour, rng: np.random.Generator) -> Logged:
    """Plays all accounts under the behaviour; feedback gets its position when it arrives."""
    accounts.reset()
    spec, B, T = accounts.spec, accounts.num_envs, accounts.steps
    rows: list[list[dict[str, Any]]] = [[] for _ in range(B)]
    means = np.empty((B, T, len(spec.actions)))
    head = np.zeros(B, np.int64)
    due: dict[int, list[tuple[int, int]]] = defaultdict(list)

    def deliver(arrived: Iterable[tuple[int, int]]) -> None:
        for b, when in sorted(arrived):
            head[b] += 1
            rows[b][when] |= {"interaction_generation": 0, "interaction_position": int(head[b])}

    for t in range(T):
        deliver(due.pop(t, []))
        situation = accounts.situation()
        given = behave(situation, t)
        chosen = sample(given, rng.random(B))
        actions = np.where(situation.forced < 0, chosen, situation.forced)
        outcome = accounts.step(actions)
        means[:, t] = situation.means
        for b in range(B):
            is_forced = situation.forced[b] >= 0
            rows[b].append(
                {
                    "tenant": "default",
                    "workflow": spec.workflow,
                    "account_id": f"a{b:05d}",
                    "decision_id": f"d{b}-{t}",
                    "context": raw_context(spec, situation.columns, b),
                    "asked_for": [spec.action_ids[k] for k in np.flatnonzero(situation.mask[b])],
                    "action": spec.action_ids[outcome.served[b]],
                    "probability": 1.0 if is_forced else float(given[b, outcome.served[b]]),
                    "reason": "memory_unavailable" if is_forced else "policy",
                    "memory_generation": 0,
                    "memory_position": int(head[b]),
                    "reward": float(outcome.reward[b]),
                    "reward_kind": "received",
                    "episode_end": bool(outcome.done[b]),
                }
            )
            due[int(outcome.known_at[b])].append((b, t))
    for when in sorted(due):
        deliver(due[when])
    return Logged([row for own in rows for row in own], means.reshape(B * T, -1))


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
