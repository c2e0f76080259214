"""Decisions with propensities and rewards, as files that other tools read: Parquet, JSON lines,
and Vowpal Wabbit's text. One page is in memory at a time, and a file is whole or not there.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from sqlalchemy import Connection

from contract.spec import BooleanFeature, CategoryFeature, ImageFeature, WorkflowSpec
from service.clock import to_moment, to_moment_or_none
from service.ledger.ledger import Ledger
from service.ledger.records import Decision, Feedback, Head
from service.ledger.scan import Place, Scope, place_of, read_decisions, read_scopes

PAGE = 5_000
"""Decisions read, and written as one row group, at a time."""

COLUMNS: Mapping[str, tuple[str, str]] = {
    "tenant": ("string", "Whose account it is."),
    "workflow": ("string", "What was decided on."),
    "account_id": ("string", "Whom the decision adapts to."),
    "decision_id": ("string", "Unique within the tenant."),
    "episode_id": ("string", "The journey it belongs to; may be null."),
    "spec_version": ("int32", "Of the workflow's spec that it was made under."),
    "policy": ("string", "Name and version of the bundle."),
    "context": ("string", "As it was sent, JSON."),
    "asked_for": ("strings", "The actions on offer; null: all of the spec's."),
    "actions_left": (
        "strings",
        "What every guardrail left, where the account's own past took something; null: it did not.",
    ),
    "deviates": (
        "bool",
        "Whether the fallback would have chosen another action; null: nobody counts.",
    ),
    "action": ("string", "What was served."),
    "probability": ("double", "The propensity: of the action served, after every guardrail."),
    "draw": ("double", "The uniform number that picked the action."),
    "reason": ("string", "`policy`, or why something else chose; those have probability 1."),
    "limits": ("strings", "Hard limits that removed an action."),
    "mode": ("string", "`serve`, or `defer`: it waited for `activate`."),
    "memory_generation": ("int32", "Of the memory it was made from."),
    "memory_position": ("int64", "Interactions in the memory it was made from."),
    "created_at": ("time", "When it was made."),
    "expires_at": ("time", "When its window closes."),
    "activated_at": ("time", "Of a deferred decision; null: never, or served at once."),
    "reward": (
        "double",
        "Of its interaction, raw units: what the workflow's aggregation made of the feedback, or "
        "the default reward where none came; null: nothing is folded.",
    ),
    "reward_kind": ("string", "`received` or `default`; null: nothing is folded."),
    "episode_end": ("bool", "Whether the interaction ends its episode."),
    "interaction_generation": ("int32", "The generation that made or last revised it."),
    "interaction_position": ("int64", "Its place in the account's past, from 1."),
    "feedback": ("feedback", "Everything that came of it, in order of arrival."),
}
"""Every column with its type and what it says."""

FEEDBACK: Mapping[str, str] = {
    "feedback_id": "string",
    "kind": "string",
    "reward": "double",
    "outcome": "string",
    "episode_end": "bool",
    "late": "bool",
    "generation": "int32",
    "position": "int64",
    "folded_reward": "double",
    "occurred_at": "time",
    "received_at": "time",
}
"""The fields of one piece of feedback. `generation` and `position` name the interaction that it
made or revised, `folded_reward` what that then came to; null: it is recorded only."""

Row = dict[str, Any]


class ExportError(ValueError):
    """What was asked for cannot be written. The message says what was expected."""


class Writer(Protocol):
    """Takes pages of decisions with what came of them."""

    def write(self, page: Sequence[tuple[Decision, Sequence[Feedback]]]) -> None:
        """Appends them."""

    def close(self) -> None:
        """Nothing comes any more."""


@dataclass(frozen=True)
class Export:
    """What is to be written where."""

    scope: Scope
    path: Path
    since_us: int | None = None
    folded_only: bool = True

    def run(self, ledger: Ledger, on_page: Callable[[int], None] = lambda _: None) -> int:
        """How many decisions were written; `on_page` is told how many each page has. Blocks.

        Raises ExportError, OSError and LedgerUnavailableError: then no file is there.
        """
        written = 0
        with _whole(self.path) as draft, contextlib.closing(self._writer(ledger, draft)) as writer:
            for page in self._pages(ledger):
                writer.write(page)
                written += len(page)
                on_page(len(page))
        if self.path.suffix == ".vw":
            _write_sidecar(self.path, _specs(ledger, self.scope))
        return written

    def _writer(self, ledger: Ledger, draft: Path) -> Writer:
        match self.path.suffix:
            case ".parquet":
                return ParquetWriter(draft)
            case ".jsonl":
                return JsonLinesWriter(draft)
            case ".vw":
                return VowpalWabbitWriter(draft, _specs(ledger, self.scope))
            case other:
                raise ExportError(
                    f"expected a file that ends in .parquet, .vw or .jsonl, got {other!r}"
                )

    def _pages(self, ledger: Ledger) -> Iterator[list[tuple[Decision, list[Feedback]]]]:
        for scope in ledger.read_now(read_scopes(self.scope)):
            after = None
            while page := ledger.read_now(self._page(scope, after)):
                yield page
                after = place_of(page[-1][0])

    def _page(
        self, scope: Scope, after: Place | None
    ) -> Callable[[Connection], list[tuple[Decision, list[Feedback]]]]:
        return read_decisions(
            scope, after, PAGE, since_us=self.since_us, folded_only=self.folded_only
        )


class ParquetWriter:
    """Apache Parquet, a row group a page; every column says what it is in its metadata."""

    def __init__(self, path: Path) -> None:
        """Raises ExportError without pyarrow."""
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise ExportError(".parquet needs pyarrow: pip install 'acclimate[export]'") from error
        self._schema = _arrow_schema()
        self._record_batch = pyarrow.RecordBatch
        self._file = pyarrow.parquet.ParquetWriter(path, self._schema, compression="zstd")

    def write(self, page: Sequence[tuple[Decision, Sequence[Feedback]]]) -> None:
        """See Writer."""
        rows = [to_row(*one) for one in page]
        self._file.write_batch(self._record_batch.from_pylist(rows, self._schema))

    def close(self) -> None:
        """See Writer."""
        self._file.close()


class JsonLinesWriter:
    """One JSON object a line, times in RFC 3339."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")

    def write(self, page: Sequence[tuple[Decision, Sequence[Feedback]]]) -> None:
        """See Writer."""
        for one in page:
            row = to_row(*one)
            row["context"] = one[0].context
            self._file.write(json.dumps(row, default=lambda moment: moment.isoformat()) + "\n")

    def close(self) -> None:
        """See Writer."""
        self._file.close()


class VowpalWabbitWriter:
    """`action:cost:probability | features`, cost = −reward, for `vw --cb`; a decision that came to
    no reward is a line without a label."""

    def __init__(self, path: Path, specs: Mapping[int, WorkflowSpec]) -> None:
        self._specs = specs
        self._file = path.open("w", encoding="utf-8")

    def write(self, page: Sequence[tuple[Decision, Sequence[Feedback]]]) -> None:
        """See Writer."""
        for decision, came_of_it in page:
            spec = self._specs[decision.spec_version]
            stands = standing(came_of_it)
            label = ""
            if stands is not None and stands.folded_reward is not None:
                number = spec.action_ids.index(decision.action) + 1
                cost = 0.0 - stands.folded_reward
                label = f"{number}:{cost!r}:{decision.probability!r} "
            self._file.write(f"{label}|{_features(spec, decision.context)}\n")

    def close(self) -> None:
        """See Writer."""
        self._file.close()


def to_row(decision: Decision, came_of_it: Sequence[Feedback]) -> Row:
    """One decision under the names of COLUMNS."""
    stands = standing(came_of_it)
    head, made_from = stands.head if stands else None, decision.head or Head()
    return {
        **decision.key._asdict(),
        "decision_id": decision.decision_id,
        "episode_id": decision.episode_id,
        "spec_version": decision.spec_version,
        "policy": decision.policy,
        "context": json.dumps(decision.context),
        "asked_for": decision.asked_for,
        "actions_left": decision.actions_left,
        "deviates": decision.deviates,
        "action": decision.action,
        "probability": decision.probability,
        "draw": decision.draw,
        "reason": decision.reason,
        "limits": decision.limits,
        "mode": decision.mode,
        "memory_generation": made_from.generation,
        "memory_position": made_from.position,
        "created_at": to_moment(decision.created_at_us),
        "expires_at": to_moment(decision.expires_at_us),
        "activated_at": to_moment_or_none(decision.activated_at_us),
        "reward": stands.folded_reward if stands else None,
        "reward_kind": stands.kind if stands else None,
        "episode_end": stands.folded_end if stands else None,
        "interaction_generation": head.generation if head else None,
        "interaction_position": head.position if head else None,
        "feedback": [_feedback(one) for one in came_of_it],
    }


def standing(came_of_it: Sequence[Feedback]) -> Feedback | None:
    """The feedback whose interaction is what the decision came to: the newest revision of what was
    received, or the default where nothing was."""
    folded = [one for one in came_of_it if one.head is not None]
    received = [one for one in folded if one.kind == "received"]
    return max(received or folded, key=lambda one: one.head or Head(), default=None)


def _feedback(given: Feedback) -> Row:
    return {
        "feedback_id": given.feedback_id or None,
        "kind": given.kind,
        "reward": given.reward,
        "outcome": given.outcome,
        "episode_end": given.episode_end,
        "late": given.late,
        "generation": given.head.generation if given.head else None,
        "position": given.head.position if given.head else None,
        "folded_reward": given.folded_reward,
        "occurred_at": to_moment_or_none(given.occurred_at_us),
        "received_at": to_moment(given.received_at_us),
    }


def _features(spec: WorkflowSpec, context: Mapping[str, Any]) -> str:
    """` name:number`, ` name=value` and ` name=true` for each feature of a context."""
    parts = []
    for name, feature in spec.context.items():
        value = context[name]
        match feature:
            case CategoryFeature():
                parts.append(f" {name}={quote(value, safe='')}")
            case BooleanFeature():
                parts.append(f" {name}={'true' if value else 'false'}")
            case ImageFeature():
                bytes_ = base64.b64decode(value)
                parts.extend(f" {name}_{at}:{byte}" for at, byte in enumerate(bytes_))
            case _:
                parts.append(f" {name}:{float(value)!r}")
    return "".join(parts)


def _write_sidecar(path: Path, specs: Mapping[int, WorkflowSpec]) -> None:
    """What the lines cannot say themselves: the format has no comments."""
    newest = specs[max(specs)]  # action lists only ever grow at their end
    said = {
        "workflow": newest.workflow,
        "line": "action:cost:probability | features",
        "cost": "minus the reward, in the workflow's raw units",
        "actions": {str(row + 1): one for row, one in enumerate(newest.action_ids)},
        "reward": {"min": newest.reward.min, "max": newest.reward.max},
        "features": {
            name: {
                "category": "name=value, percent-encoded",
                "boolean": "name=true or name=false",
                "image": "name_AT:byte, from 0",
            }
            .get(feature.type, "name:value")
            for name, feature in newest.context.items()
        },
        "train": f"vw --cb {len(newest.action_ids)} --cb_type ips {path.name}",
    }  # fmt: skip
    with _whole(path.with_name(path.name + ".json")) as draft:
        draft.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


def _specs(ledger: Ledger, scope: Scope) -> dict[int, WorkflowSpec]:
    if scope.workflow is None:
        raise ExportError("expected one workflow: its actions have the numbers that .vw names")
    specs = ledger.spec_versions(scope.workflow)
    if not specs:
        raise ExportError(f"expected a workflow that the ledger knows, got {scope.workflow!r}")
    return specs


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A draft beside `path` that takes its place when everything went through."""
    draft = path.with_name(path.name + ".part")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _arrow_schema() -> Any:
    import pyarrow

    types: dict[str, Any] = {
        "string": pyarrow.string(),
        "strings": pyarrow.list_(pyarrow.string()),
        "int32": pyarrow.int32(),
        "int64": pyarrow.int64(),
        "double": pyarrow.float64(),
        "bool": pyarrow.bool_(),
        "time": pyarrow.timestamp("us", tz="UTC"),
    }
    given = pyarrow.struct([(name, types[kind]) for name, kind in FEEDBACK.items()])
    types["feedback"] = pyarrow.list_(given)
    return pyarrow.schema(
        pyarrow.field(name, types[kind], metadata={"description": said})
        for name, (kind, said) in COLUMNS.items()
    )
