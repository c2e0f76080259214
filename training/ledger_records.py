"""An exported ledger as arrays: decisions, what came of them, and the order it was learned in.

It reads the file alone, JSON lines or Parquet as `acclimate ledger export` writes them, and never a
database. What a file cannot mean under the workflow is refused with its place; nothing is guessed.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from contract.encode import ContextError, Float32, check_context, context_size, encode_contexts
from contract.spec import WorkflowSpec
from guardrails.limits import Limits
from training.ledger_histories import Read, histories_of
from training.ledger_rows import LogError, Row, rows_of

Array = NDArray[Any]

NEEDED = ("account_id", "context", "action", "probability", "reward")
"""Columns without which a file is no log. Without the others, an account's rows are in the order in
which they were made, and each reward was known before the next decision."""
DRAWN = "policy"
"""The reason of a decision that a policy drew; everything else was certain."""
_AT_ONCE = 4_096


@dataclass(frozen=True)
class Decisions:
    """N decisions, an account's one after another."""

    account: NDArray[np.int64]
    """`[N]`, from 0."""
    history: NDArray[np.int64]
    """`[N]`: the past that it was made from."""
    folded: NDArray[np.int64]
    """`[N]`: how many interactions of that history were in the memory."""
    position: NDArray[np.int64]
    """`[N]`: the memory's position; above `folded` where the file lacks a part of the past."""
    context: Float32
    """Encoded, `[N, C]`."""
    mask: NDArray[np.bool_]
    """What the workflow's limits leave of what was asked for, `[N, K]`."""
    action: NDArray[np.int64]
    """Served, `[N]`."""
    probability: NDArray[np.float64]
    """Logged, of the action served, `[N]`; NaN where none was."""
    drawn: NDArray[np.bool_]
    """`[N]`: by a policy, and not certain for another reason."""
    reward: NDArray[np.float64]
    """What it came to, raw, `[N]`; NaN where nothing was fed back."""

    @property
    def count(self) -> int:
        """N."""
        return len(self.action)


@dataclass(frozen=True)
class Interactions:
    """M interactions, in the order of their histories and of folding within each."""

    history: NDArray[np.int64]
    """`[M]`."""
    ordinal: NDArray[np.int64]
    """`[M]`: how many come before it in its history."""
    decision: NDArray[np.int64]
    """`[M]`: which decision it is of."""
    reward: NDArray[np.float64]
    """Raw, `[M]`: what was learned, which a revision may have changed since."""
    done: NDArray[np.bool_]
    """`[M]`: whether it ended its episode."""


@dataclass
class Found:
    """What was in a file."""

    rows: int = 0
    other_workflows: Counter[str] = field(default_factory=Counter)
    certain: Counter[str] = field(default_factory=Counter)
    """Decisions that no policy drew, by reason."""
    without_feedback: int = 0
    default_rewards: int = 0
    without_probability: int = 0
    impossible_probability: int = 0
    """Not above 0, or above 1."""
    forbidden: int = 0
    """Decisions whose action the workflow as it is now would not allow."""
    incomplete_accounts: int = 0
    """Accounts of whose past the file lacks a part."""


@dataclass(frozen=True)
class Log:
    """One workflow's decisions."""

    spec: WorkflowSpec
    decisions: Decisions
    interactions: Interactions
    accounts: int
    newest: NDArray[np.int64]
    """The history of each account as it stands at last, `[A]`."""
    histories: int
    """An account has one more for each revision of its past that decisions were made after."""
    found: Found


class Turn(NamedTuple):
    """What happens to histories that have folded equally many interactions."""

    decisions: NDArray[np.int64]
    """Made now."""
    interactions: NDArray[np.int64]
    """Folded then, at most one of each history, in the order of histories."""


def turns(log: Log, histories: Array) -> Iterator[Turn]:
    """The turns of these histories `[H]`, ascending, from the first decision to the last fold."""
    made = np.flatnonzero(np.isin(log.decisions.history, histories))
    made = made[np.argsort(log.decisions.folded[made], kind="stable")]
    came = np.flatnonzero(np.isin(log.interactions.history, histories))
    came = came[np.argsort(log.interactions.ordinal[came], kind="stable")]
    when, then = log.decisions.folded[made], log.interactions.ordinal[came]
    last = max(when.max(initial=-1), then.max(initial=-1))
    for n in range(int(last) + 1):
        yield Turn(
            made[slice(*np.searchsorted(when, [n, n + 1]))],
            came[slice(*np.searchsorted(then, [n, n + 1]))],
        )


def read_log(
    path: Path, spec: WorkflowSpec, on_rows: Callable[[int], None] = lambda count: None
) -> Log:
    """The decisions of the workflow `spec` in an exported file.

    Raises LogError naming the line and what was expected, and OSError. `on_rows` hears how many
    rows were just read.
    """
    found = Found()
    reading = _Reading(spec, path)
    for place, row in rows_of(path):
        found.rows += 1
        workflow = row.get("workflow", spec.workflow)
        if workflow != spec.workflow:
            found.other_workflows[str(workflow)] += 1
        else:
            reading.take(place, row)
        if found.rows % _AT_ONCE == 0:
            on_rows(_AT_ONCE)
    if not reading.rows:
        others = ", ".join(found.other_workflows) or "no decisions at all"
        raise LogError(f"{path}: expected decisions of {spec.workflow}, found {others}")
    return reading.log(found)


class _Reading:
    """The rows read so far."""

    def __init__(self, spec: WorkflowSpec, path: Path) -> None:
        self._spec, self._path = spec, path
        self._row_of = {action: row for row, action in enumerate(spec.action_ids)}
        self._accounts: dict[tuple[str, str], int] = {}
        self.rows: list[Read] = []
        self._by_account: dict[int, list[int]] = defaultdict(list)

    def take(self, place: str, row: Row) -> None:
        """Checks a row and keeps what counts of it."""
        where = f"{self._path}, {place}"
        for name in NEEDED:
            if name not in row:
                raise LogError(f"{where}: expected a column {name}, found {', '.join(row)}")
        key = (str(row.get("tenant", "")), str(row["account_id"]))
        account = self._accounts.setdefault(key, len(self._accounts))
        if row["action"] not in self._row_of:
            known = ", ".join(self._row_of)
            raise LogError(f"{where}: action: expected one of {known}, got {row['action']!r}")
        # What caps left, where they took something, is what there was to choose from.
        asked_for = row.get("actions_left") or row.get("asked_for")
        if asked_for is not None and not set(asked_for) <= set(self._row_of):
            raise LogError(f"{where}: asked_for: expected the workflow's actions, got {asked_for}")
        reward = self._reward(where, "reward", row["reward"])
        head = None
        if row.get("memory_position") is not None:
            generation = row.get("memory_generation") or 0
            head = (
                self._count(where, "memory_generation", generation),
                self._count(where, "memory_position", row["memory_position"]),
            )
        elif self.rows and self.rows[0].head is not None:
            raise LogError(f"{where}: memory_position: expected as on the rows before, got nothing")
        self._by_account[account].append(len(self.rows))
        self.rows.append(
            Read(
                account=account,
                context=self._context(where, row["context"]),
                asked_for=None if asked_for is None else list(asked_for),
                action=self._row_of[row["action"]],
                probability=self._number(where, "probability", row["probability"]),
                reason=str(row.get("reason") or DRAWN),
                reward=reward,
                is_default=row.get("reward_kind") == "default",
                ends=bool(row.get("episode_end")),
                head=head,
                pieces=[] if head is None else self._pieces(where, row, reward),
            )
        )

    def log(self, found: Found) -> Log:
        """Everything taken, as arrays."""
        rows, spec = self.rows, self._spec
        order = [i for account in self._by_account.values() for i in account]
        rows = [rows[i] for i in order]
        history = np.zeros(len(rows), np.int64)
        folded = np.zeros(len(rows), np.int64)
        position = np.zeros(len(rows), np.int64)
        newest: list[int] = []
        pasts: list[list[tuple[int, float, bool]]] = []
        start = 0
        for account in self._by_account.values():
            stop = start + len(account)
            own = slice(start, stop)
            made = histories_of(rows[own])
            history[own] = len(pasts) + made.history
            folded[own], position[own] = made.folded, made.position
            found.incomplete_accounts += int((made.position > made.folded).any())
            newest.append(len(pasts) + made.newest)
            pasts += [[(start + i, r, d) for i, r, d in past] for past in made.pasts]
            start = stop
        decisions = self._decisions(rows, history, folded, position)
        _count(found, rows, decisions)
        flat = [one for past in pasts for one in past]
        sizes = [len(past) for past in pasts]
        single = spec.episodes == "single_step"
        interactions = Interactions(
            history=np.repeat(np.arange(len(pasts)), sizes),
            ordinal=np.concatenate([np.arange(n) for n in sizes]).astype(np.int64),
            decision=np.array([i for i, _, _ in flat], np.int64),
            reward=np.array([r for _, r, _ in flat], np.float64),
            done=np.array([single or d for _, _, d in flat], np.bool_),
        )
        return Log(spec, decisions, interactions, len(newest), np.array(newest), len(pasts), found)

    def _decisions(
        self, rows: list[Read], history: Array, folded: Array, position: Array
    ) -> Decisions:
        spec, limits = self._spec, Limits(self._spec)
        size, masks, contexts = context_size(spec), [], []
        for start in range(0, len(rows), _AT_ONCE):
            part = rows[start : start + _AT_ONCE]
            raw = [row.context for row in part]
            contexts.append(encode_contexts(spec, raw, size))
            allowed = limits.allow_each(raw, [row.asked_for for row in part])
            masks.append(np.array([one.mask for one in allowed]))
        return Decisions(
            account=np.array([row.account for row in rows], np.int64),
            history=history,
            folded=folded,
            position=position,
            context=np.concatenate(contexts),
            mask=np.concatenate(masks),
            action=np.array([row.action for row in rows], np.int64),
            probability=np.array([row.probability for row in rows], np.float64),
            drawn=np.array([row.reason == DRAWN for row in rows], np.bool_),
            reward=np.array([row.reward for row in rows], np.float64),
        )

    def _context(self, where: str, context: Any) -> dict[str, Any]:
        """A checked context; Parquet has it as text."""
        if isinstance(context, str):
            try:
                context = json.loads(context)
            except ValueError as error:
                raise LogError(f"{where}: context: expected JSON, but {error}") from error
        if not isinstance(context, dict):
            raise LogError(f"{where}: context: expected an object, got {context!r}")
        try:
            return check_context(self._spec, context)[0]
        except ContextError as error:
            raise LogError(
                f"{where}: {error}. Is it another version of the workflow? "
                "acclimate ledger export --since leaves out what is older"
            ) from error

    def _reward(self, where: str, name: str, value: Any) -> float:
        reward = self._number(where, name, value)
        low, high = self._spec.reward.min, self._spec.reward.max
        if reward < low or reward > high:
            raise LogError(f"{where}: {name}: expected {low:g} to {high:g}, got {reward:g}")
        return reward

    def _number(self, where: str, name: str, value: Any) -> float:
        """A finite number, or NaN for nothing."""
        if value is None:
            return math.nan
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise LogError(f"{where}: {name}: expected a number or null, got {value!r}")
        return float(value) if math.isfinite(value) else math.nan

    def _count(self, where: str, name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise LogError(f"{where}: {name}: expected a whole number from 0, got {value!r}")
        return value

    def _pieces(self, where: str, row: Row, reward: float) -> list[tuple[int, int, float, bool]]:
        """What of it was folded, at which place and in which generation."""
        pieces = {}
        for one in row.get("feedback") or ():
            if one.get("position") is not None:
                generation = self._count(where, "feedback.generation", one.get("generation") or 0)
                place = self._count(where, "feedback.position", one["position"])
                came_to = self._reward(where, "feedback.folded_reward", one.get("folded_reward"))
                pieces[generation, place] = (came_to, bool(one.get("episode_end")))
        if row.get("interaction_position") is not None:
            stands = (
                self._count(
                    where, "interaction_generation", row.get("interaction_generation") or 0
                ),
                self._count(where, "interaction_position", row["interaction_position"]),
            )
            pieces[stands] = (reward, bool(row.get("episode_end")))
        return [(*head, *came) for head, came in pieces.items() if not math.isnan(came[0])]


def _count(found: Found, rows: list[Read], decisions: Decisions) -> None:
    given = decisions.probability
    found.certain.update(row.reason for row in rows if row.reason != DRAWN)
    found.without_feedback = int(np.isnan(decisions.reward).sum())
    found.default_rewards = sum(row.is_default for row in rows)
    found.without_probability = int((np.isnan(given) & decisions.drawn).sum())
    found.impossible_probability = int((((given <= 0) | (given > 1)) & decisions.drawn).sum())
    allowed = decisions.mask[np.arange(decisions.count), decisions.action]
    found.forbidden = int((~allowed & decisions.drawn).sum())
