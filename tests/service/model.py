"""What the service must do for one account, said again the naive way: from the list of all events.

Nothing is kept but the events; the past is worked out from all of them whenever it is asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from contract.adaptation import mean_bounds
from contract.spec import WorkflowSpec

Step = tuple[str, float, bool]
"""Action, reward, whether the episode ends: one interaction."""


@dataclass(frozen=True)
class Made:
    """A decision."""

    decision_id: str
    action: str
    expires_at_us: int


@dataclass(frozen=True)
class Event:
    """Something that happened to the account: a piece of feedback, a default or a reset."""

    kind: str
    decision_id: str = ""
    feedback_id: str = ""
    reward: float = 0.0
    end: bool = False
    late: bool = False


@dataclass
class AccountModel:
    """One life of an account, from its first decision to its erasure."""

    spec: WorkflowSpec
    generation: int = 0
    decisions: dict[str, Made] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    phase: str = "adapting"
    adapted_at: int | None = None
    pasts: dict[tuple[int, int], list[Step]] = field(default_factory=dict)
    """What the past was at each head."""

    def __post_init__(self) -> None:
        self.pasts[self.head] = []

    @property
    def head(self) -> tuple[int, int]:
        """Generation and position."""
        return self.generation, len(self.past())

    def past(self) -> list[Step]:
        """The interactions as they stand."""
        return [step for _, step in self._slots()]

    def given(self, decision_id: str, feedback_id: str) -> Event | None:
        """The piece of feedback of this id, if it came."""
        for event in self._of(decision_id, "piece"):
            if event.feedback_id == feedback_id:
                return event
        return None

    def is_due(self, decision_id: str, now_us: int) -> bool:
        """Whether the default of a decision is to be folded now."""
        if self.spec.feedback.default_reward is None:
            return False
        folded = self._slots_of(decision_id)
        return now_us > self.decisions[decision_id].expires_at_us and not folded

    def fold_defaults(self, now_us: int) -> None:
        """Every default that is due, in the order in which windows closed."""
        made = sorted(self.decisions.values(), key=lambda one: one.expires_at_us)
        for one in made:
            if self.is_due(one.decision_id, now_us):
                self._happen(Event("default", one.decision_id))

    def feed(
        self, decision_id: str, feedback_id: str, reward: float, end: bool, now_us: int
    ) -> tuple[bool, int | None, bool]:
        """Whether the piece is folded or revises, at which position, and whether it is late."""
        if self.is_due(decision_id, now_us):
            self._happen(Event("default", decision_id))
        expired = now_us > self.decisions[decision_id].expires_at_us
        late = expired or bool(self._of(decision_id, "default"))
        before = self.past()
        self._happen(Event("piece", decision_id, feedback_id, reward, end, late))
        after = self.past()
        changed = [i for i, step in enumerate(after) if i >= len(before) or step != before[i]]
        return bool(changed), changed[0] + 1 if changed else None, late

    def reset(self) -> None:
        """The account starts anew."""
        self._happen(Event("reset"))

    def _of(self, decision_id: str, kind: str) -> list[Event]:
        return [one for one in self.events if (one.decision_id, one.kind) == (decision_id, kind)]

    def _happen(self, event: Event) -> None:
        before = self.past()
        self.events.append(event)
        after = self.past()
        if event.kind == "reset":
            self.phase, self.adapted_at = "adapting", None
        if event.kind == "reset" or after[: len(before)] != before:
            self.generation += 1
        if after != before:
            self._judge(after)
        self.pasts[self.head] = after

    def _judge(self, past: list[Step]) -> None:
        wanted = self.spec.adaptation
        recent = [reward for _, reward, _ in past[-wanted.window :]]
        if len(recent) < wanted.window:
            return
        low, high = mean_bounds(recent, wanted.level, self.spec.reward)
        if self.phase != "adapted" and low >= wanted.target:
            self.phase, self.adapted_at = "adapted", self.adapted_at or len(past)
        elif self.phase == "adapted" and high < wanted.target - wanted.hysteresis:
            self.phase = "regressed"

    def _slots(self) -> list[tuple[int, Step]]:
        """Every interaction since the last reset with the place of the event that made it."""
        resets = [i for i, event in enumerate(self.events) if event.kind == "reset"]
        since = resets[-1] if resets else -1
        slots = [slot for one in self.decisions for slot in self._slots_of(one)]
        return sorted(slot for slot in slots if slot[0] > since)

    def _slots_of(self, decision_id: str) -> list[tuple[int, Step]]:
        """What came of one decision, resets aside."""
        rules, action = self.spec.feedback, self.decisions[decision_id].action
        mine = [(i, e) for i, e in enumerate(self.events) if e.decision_id == decision_id]
        default = [(i, e) for i, e in mine if e.kind == "default"]
        pieces = [(i, e) for i, e in mine if e.kind == "piece"]
        late = [(i, e) for i, e in pieces if e.late]
        timely = [(i, e) for i, e in pieces if not e.late]
        if rules.late == "rebuild":
            if default:
                return [(default[0][0], self._sum_up(action, late, default=True))]
            return [(pieces[0][0], self._sum_up(action, pieces))] if pieces else []
        slots = []
        if default:
            slots.append((default[0][0], self._sum_up(action, [], default=True)))
            timely = []
        elif timely and (rules.late == "ignore" or timely[0][0] == pieces[0][0]):
            return [(timely[0][0], self._sum_up(action, timely))]
        if rules.late == "apply" and late:
            counts = timely if timely and rules.aggregation != "earliest" else late[:1]
            slots.append((late[0][0], self._sum_up(action, counts)))
        return slots

    def _sum_up(self, action: str, pieces: list[tuple[int, Event]], default: bool = False) -> Step:
        """One interaction of all the pieces that count, else of the default."""
        if not pieces:
            assert default
            assert self.spec.feedback.default_reward is not None
            return action, self.spec.feedback.default_reward, False
        rewards = [piece.reward for _, piece in pieces]
        ends = [piece.end for _, piece in pieces]
        rule = self.spec.feedback.aggregation
        if rule == "earliest":
            return action, rewards[0], ends[0]
        ways = {
            "latest": rewards[-1],
            "sum": math.fsum(rewards),
            "mean": math.fsum(rewards) / len(rewards),
            "min": min(rewards),
            "max": max(rewards),
        }
        reward = sorted((self.spec.reward.min, ways[rule], self.spec.reward.max))[1]
        return action, reward, any(ends)
