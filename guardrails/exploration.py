"""The exploration budget: may this decision deviate from the fallback, and what does that spend?

Deviations are counted per account, tenant and workflow in sliding windows, and an account's are
held to the conservative rule. One that is sure to do better than the fallback spends no budget.
"""

from __future__ import annotations

from collections.abc import Mapping

from contract.safety import Scope
from contract.spec import WorkflowSpec
from guardrails.conservative import may_deviate
from guardrails.tally import Tally

Tallies = Mapping[Scope, Tally]
"""Of the account, and of all accounts together of its tenant and its workflow where they are
needed."""

BUCKETS = 100
"""Into which a window is divided: a deviation may count a hundredth of it too long, never too
short."""
CONSERVATIVE = "exploration.conservative"


class Exploration:
    """The exploration budget of one workflow, which may declare none."""

    def __init__(self, spec: WorkflowSpec) -> None:
        declared = spec.guardrails.exploration
        budgets = declared.budgets if declared else []
        self._rule = declared.conservative if declared else None
        self._reward = spec.reward
        self._most: dict[Scope, tuple[int, int]] = {
            budget.per: (budget.at_most, round(budget.window_seconds * 1e6)) for budget in budgets
        }
        self.declared = declared is not None
        self.fallback_reward = declared.fallback_reward if declared else 0.0
        """In the reward's own units."""
        self.scopes: tuple[Scope, ...] = tuple(
            scope for scope in ("workflow", "tenant") if scope in self._most
        )
        """What is counted besides the account, all accounts together."""

    def spent(self, tallies: Tallies, free: bool, now_us: int) -> tuple[str, ...]:
        """Names of what does not let the account deviate now; `free`: it is sure to do better than
        the fallback."""
        against = []
        if not free:
            for scope, (most, window_us) in self._most.items():
                if deviations_within(tallies[scope], window_us, now_us) >= most:
                    against.append(f"exploration.{scope}")
        if self._rule is not None:
            scaled = self.scaled(self.fallback_reward)
            if not may_deviate(tallies["account"].spent, self._rule, scaled):
                against.append(CONSERVATIVE)
        return tuple(against)

    def count(self, deviates: bool, tallies: Tallies, free: bool, at_us: int) -> Tallies:
        """The tallies once a decision was served that `deviates` from the fallback, or not."""
        account = tallies["account"]
        if self._rule is not None:
            was = account.spent
            now = was._replace(
                fallbacks=was.fallbacks + (not deviates), deviations=was.deviations + deviates
            )
            account = account._replace(spent=now)
        after = {**tallies, "account": account}
        if deviates and not free:
            for scope, (_, window_us) in self._most.items():
                after[scope] = _deviated(after[scope], window_us, at_us)
        return after

    def earned(self, tally: Tally, reward: float, before: float | None) -> Tally:
        """The account's tally once a deviation has earned the raw `reward`; `before` is what it had
        been taken to have earned."""
        more = self.scaled(reward) - (0.0 if before is None else self.scaled(before))
        return tally._replace(spent=tally.spent._replace(earned=tally.spent.earned + more))

    def scaled(self, reward: float) -> float:
        """A raw reward in [0, 1]."""
        return (reward - self._reward.min) / (self._reward.max - self._reward.min)


def deviations_within(tally: Tally, window_us: int, now_us: int) -> int:
    """How many deviations count in the window that ends now."""
    return sum(count for end_us, count in tally.explored if now_us - end_us < window_us)


def _deviated(tally: Tally, window_us: int, at_us: int) -> Tally:
    """The tally with one deviation more, and without what no window has any more."""
    size = max(window_us // BUCKETS, 1)
    end_us = (at_us // size + 1) * size
    counts = {end: count for end, count in tally.explored if at_us - end < window_us}
    counts[end_us] = counts.get(end_us, 0) + 1
    return tally._replace(explored=tuple(sorted(counts.items())))
