"""Plays a bundle on what it was trained on, and keeps what its memories are like. Never torch.

The tasks are the curriculum's own, as iterations draw them; actions are drawn as in service. One
half of the accounts gives means and deviations, the other what is usual.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from contract.bundle import Manifest, load_manifest, sha256_of
from contract.draw import sample
from contract.encode import horizon_left
from contract.memory_reference import FILE, MemoryReference, save_reference
from contract.policy import Memory, OnnxPolicy
from guardrails.memory_health import measure_each
from training.contextual_curriculum import ContextualCurriculum
from training.curriculum import BanditCurriculum, Curriculum, MdpCurriculum
from training.tasks.task import Situated, Task
from training.workflow_curriculum import WorkflowCurriculum

Array = NDArray[Any]
C = TypeVar("C", bound=Curriculum)

POSITIONS = (1, 2, 5, 10, 20, 50, 100, 150, 300)
"""Ages that are looked at."""
ACCOUNTS = 1_000
"""Accounts of each age, where the tasks last so long."""
LEAST = 200
"""An age that fewer reach is left out."""
MOST_ITERATIONS = 20
_LATE = 1_000
"""The iteration whose tasks are drawn first: every horizon has grown by then."""
_USUAL = 0.999
_EDGE = 0.5
"""A number within [−1, 1] that never gets here is not one that saturates."""


class TooFewAccountsError(ValueError):
    """A curriculum too small to say what memories are like."""


def curriculum_of(manifest: Manifest) -> Curriculum:
    """What a shipped bundle was trained on. Raises ValueError when that is not known."""
    words = shlex.split(manifest.provenance.command)
    match manifest.task_family:
        case "bandits":
            return _as_told(BanditCurriculum(), words)
        case "mdps":
            return _as_told(MdpCurriculum(), words)
        case "contexts":
            return _as_told(ContextualCurriculum(), words)
        case "workflow":
            return _as_told(WorkflowCurriculum(manifest.name), words)
    raise ValueError(f"task_family: {manifest.task_family} has no tasks to play here")


def _as_told(curriculum: C, words: Sequence[str]) -> C:
    """The curriculum with what the command that trained the bundle says of it."""
    told: dict[str, Any] = {}
    for field in fields(curriculum):  # type: ignore[arg-type]
        option, default = f"--{field.name.replace('_', '-')}", getattr(curriculum, field.name)
        if option not in words or isinstance(default, str):
            continue
        count = len(default) if isinstance(default, tuple) and field.name[:4] != "held" else 1
        at = words.index(option) + 1
        kind = float if isinstance(default, float) else int
        values = tuple(kind(word) for word in words[at : at + count])
        told[field.name] = values if isinstance(default, tuple) else values[0]
    return replace(curriculum, **told)  # type: ignore[type-var]


def add_reference(
    directory: Path,
    *,
    curriculum: Curriculum | None = None,
    seed: int = 1,
    accounts: int = ACCOUNTS,
    on_accounts: Callable[[int], None] = lambda count: None,
) -> MemoryReference:
    """Plays the bundle in `directory`, writes what its memories are like beside its graphs, and
    pins that in its manifest. The graphs stay as they are. Raises BundleError and ValueError."""
    manifest = load_manifest(directory)
    policy = OnnxPolicy.load(directory)
    chosen = curriculum or curriculum_of(manifest)
    reference = refer(policy, chosen, seed=seed, accounts=accounts, on_accounts=on_accounts)
    save_reference(reference, directory)
    pinned = manifest.model_copy(
        update={"sha256": manifest.sha256 | {FILE: sha256_of(directory / FILE)}}
    )
    (directory / "manifest.json").write_text(pinned.model_dump_json(indent=2) + "\n")
    return reference


def refer(
    policy: OnnxPolicy,
    curriculum: Curriculum,
    *,
    seed: int = 1,
    accounts: int = ACCOUNTS,
    on_accounts: Callable[[int], None] = lambda count: None,
) -> MemoryReference:
    """What the memories are like, at every age that enough accounts reach."""
    rng = np.random.default_rng(seed)
    seen: dict[int, list[Memory]] = {position: [] for position in POSITIONS}
    counts = dict.fromkeys(POSITIONS, 0)
    for iteration in range(_LATE, _LATE + MOST_ITERATIONS):
        for batch in curriculum.batches(rng, iteration):
            for task in batch:
                if min(counts[one] for one in POSITIONS if one <= task.steps) >= accounts:
                    continue
                for position, memory in play(policy, task, rng):
                    wanted = accounts - counts[position]
                    if wanted > 0:  # copies: a batch must not be kept for a few of its rows
                        some = Memory(memory.shared[:wanted].copy(), memory.rows[:wanted].copy())
                        seen[position].append(some)
                        counts[position] += len(some.shared)
        on_accounts(min(accounts, min(counts.values())))
        if min(counts.values()) >= accounts:
            break
    known = [one for one in POSITIONS if counts[one] >= min(LEAST, accounts)]
    if not known:
        raise TooFewAccountsError("curriculum: expected tasks of some accounts, got hardly any")
    return _summary(known, [seen[one] for one in known], min(counts[one] for one in known))


def play(policy: OnnxPolicy, task: Task, rng: np.random.Generator) -> Iterator[tuple[int, Memory]]:
    """The task's B accounts from the first decision to the last: each age with their memories."""
    manifest = policy.manifest
    batch, actions = task.num_envs, task.actions
    context, _ = task.reset()
    memory = policy.blank(batch, actions)
    situated = task if isinstance(task, Situated) else None
    left = situated.told_horizon if situated else horizon_left(task.known, task.steps)
    features = np.zeros((batch, actions, manifest.action_feature_size), np.float32)
    if situated and manifest.action_feature_size:
        features[..., : situated.action_features.shape[-1]] = situated.action_features
    past: list[dict[str, Array]] = []
    learned = 0
    for t in range(task.steps + 1):
        while learned < (task.known[t] if t < task.steps else task.steps):
            memory = policy.learn(memory, **past[learned], action_features=features)
            learned += 1
            if learned in POSITIONS:
                yield learned, memory
        if t == task.steps:
            return
        shown = np.zeros((batch, manifest.context_size), np.float32)
        slots = min(shown.shape[1], context.shape[1])
        shown[:, :slots] = context[:, :slots]
        mask = situated.mask if situated else np.ones((batch, actions), bool)
        probabilities, _ = policy.decide(
            memory,
            context=shown,
            action_mask=mask,
            horizon_left=np.tile(np.asarray(left[t], np.float32), (batch, 1)),
            action_features=features,
        )
        action = sample(probabilities.astype(np.float64), rng.random(batch))
        context, reward, terminated, truncated, _ = task.step(action)
        done = np.asarray(terminated | truncated, np.float32)
        past.append(
            {"context": shown, "action": action, "reward": task.shown(reward), "done": done}
        )


def _by_row(rows: Array) -> Array:
    """`[B, K, H]` as `[B * K, H]`."""
    return rows.reshape(rows.shape[0] * rows.shape[1], rows.shape[2])


def _summary(positions: list[int], seen: list[list[Memory]], accounts: int) -> MemoryReference:
    # Every second account gives means and deviations, the others say what is usual.
    half = [[Memory(one.shared[::2], one.rows[::2]) for one in some] for some in seen]
    shared = [np.concatenate([one.shared for one in some]) for some in half]
    flat = [np.concatenate([_by_row(one.rows) for one in some]) for some in half]

    def bounded(parts: list[Array]) -> NDArray[np.bool_]:
        most = np.max([np.abs(one).max(axis=0) for one in parts], axis=0)
        within: NDArray[np.bool_] = (most <= 1.0) & (most >= _EDGE)
        return within

    reference = MemoryReference(
        positions=np.array(positions, np.int64),
        shared_mean=np.stack([one.mean(axis=0) for one in shared]),
        shared_std=np.stack([one.std(axis=0) for one in shared]),
        row_mean=np.stack([one.mean(axis=0) for one in flat]),
        row_std=np.stack([one.std(axis=0) for one in flat]),
        shared_bounded=bounded(shared),
        row_bounded=bounded(flat),
        usual=np.zeros((len(positions), 3), np.float32),
        accounts=accounts,
    )
    usual = []
    for position, some in zip(positions, seen, strict=True):
        found = [
            measure_each(reference, Memory(one.shared[1::2], one.rows[1::2]), position)
            for one in some
            if len(one.shared) > 1
        ]
        usual.append([np.quantile(np.concatenate(one), _USUAL) for one in zip(*found, strict=True)])
    return reference._replace(usual=np.array(usual, np.float32))
