"""What an account's events come to, counted again: its head and its adaptation. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from contract.adaptation import AccountAdaptation, observe, revise
from contract.spec import WorkflowSpec
from service.ledger.records import Account, Generation, Head
from service.ledger.scan import Folded


class HistoryError(Exception):
    """Events that cannot have come about one after another. `what` names the kind."""

    def __init__(self, what: str, detail: str) -> None:
        super().__init__(detail)
        self.what = what


@dataclass
class History:
    """The rows that made or revised an account's interactions: 28 bytes each, however many."""

    generations: list[np.ndarray] = field(default_factory=list)
    positions: list[np.ndarray] = field(default_factory=list)
    rewards: list[np.ndarray] = field(default_factory=list)
    versions: list[np.ndarray] = field(default_factory=list)

    def add(self, rows: list[Folded]) -> None:
        """A page of them."""
        self.generations.append(np.array([row.head.generation for row in rows], np.int64))
        self.positions.append(np.array([row.head.position for row in rows], np.int64))
        self.rewards.append(np.array([row.reward for row in rows], np.float64))
        self.versions.append(np.array([row.spec_version for row in rows], np.int32))

    def in_order(self) -> Iterable[Folded]:
        """As they came about: by generation, then by position."""
        if not self.generations:
            return
        generations, positions, rewards, versions = (
            np.concatenate(one)
            for one in (self.generations, self.positions, self.rewards, self.versions)
        )
        for i in np.lexsort((positions, generations)):
            yield Folded(
                Head(int(generations[i]), int(positions[i])), float(rewards[i]), int(versions[i])
            )


def recount(
    account: Account,
    opened: Iterable[Generation],
    events: Iterable[Folded],
    spec_of: Callable[[int], WorkflowSpec],
) -> tuple[Head, AccountAdaptation]:
    """Head and adaptation after `events` since the account's last reset, in the order they came
    about, and the generations `opened` since. Raises HistoryError."""
    head, state = Head(account.base_generation, 0), AccountAdaptation()
    revisions = iter(_since(account, opened))
    for event in events:
        if event.head.generation == head.generation:
            if event.head.position != head.position + 1:
                raise HistoryError(
                    "positions",
                    f"expected position {head.position + 1} of generation {head.generation}, "
                    f"got {event.head.position}",
                )
            spec = spec_of(event.spec_version)
            state = observe(state, event.reward, spec.adaptation, spec.reward)
            head = event.head
            continue
        generation = next(revisions, None)
        expected = Head(head.generation + 1, generation.position if generation else 0)
        if generation is None or event.head != expected:
            raise HistoryError(
                "generations",
                f"the interaction at {_shown(event.head)} has no generation of its own after "
                f"{_shown(head)}",
            )
        _refuse_out_of_order(generation, head)
        spec = spec_of(event.spec_version)
        back = head.position - generation.position
        state = revise(state, back, event.reward, spec.adaptation, spec.reward)
        head = Head(generation.generation, head.position)
    left = next(revisions, None)
    if left is not None:
        raise HistoryError("generations", f"generation {left.generation} revised nothing")
    return head, state


def _since(account: Account, opened: Iterable[Generation]) -> list[Generation]:
    """The generations above the account's base, which a reset must have opened, if any did."""
    base, above = account.base_generation, []
    for one in opened:
        if one.generation > base:
            if one.reason != "revision":
                raise HistoryError(
                    "generations",
                    f"generation {one.generation} is a {one.reason} above base generation {base}",
                )
            above.append(one)
        elif one.generation == base and one.reason != "reset":
            raise HistoryError(
                "generations", f"base generation {base} is a {one.reason}, expected a reset"
            )
    return above


def _refuse_out_of_order(generation: Generation, head: Head) -> None:
    if generation.generation != head.generation + 1 or generation.head_position != head.position:
        raise HistoryError(
            "generations",
            f"generation {generation.generation} says that it was opened at position "
            f"{generation.head_position}, but it follows {_shown(head)}",
        )


def _shown(head: Head) -> str:
    return f"{head.generation}:{head.position}"
