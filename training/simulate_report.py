"""What a play against a service came to, as numbers and as tables."""

from __future__ import annotations

from collections import Counter
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from contract.adaptation import cohort_adaptation
from training.simulate import Group, Play, Played

BATCH = 10
"""Decisions of a batch."""
BATCHES = (1, 5, 20)
"""Those that are told."""
CLOSED = 0.8
"""Of the gap from fallback to oracle: how much an adapted cohort has closed."""


def to_json(play: Play, played: Played) -> dict[str, Any]:
    """All of it; a batch that was not played to its end is null, and so is never."""
    count = play.accounts * play.decisions
    return {
        "workflow": play.workflow,
        "verticals": list(play.verticals),
        "accounts": play.accounts,
        "decisions": count,
        "seed": play.seed,
        "run": play.run,
        "account_prefix": play.prefix,
        "seconds": played.seconds,
        "decisions_per_s": count / played.seconds,
        "reward": by_batch(_all(played.groups, "rewards")),
        "expected": {
            name: by_batch(_all(played.groups, f"{name}_means"))
            for name in ("served", "fallback", "oracle")
        },
        "reasons": dict(played.reasons),
        "policies": dict(played.policies),
        "limits": dict(played.limits),
        "feedback": dict(played.statuses),
        "feedback_late": played.late,
        "adaptation": _adaptation(played),
    }


def by_batch(rewards: NDArray[np.float64]) -> dict[str, float | None]:
    """The mean of `[T, B]` in the batches that are told, by number."""
    return {
        str(batch): float(rewards[(batch - 1) * BATCH : batch * BATCH].mean())
        if len(rewards) >= batch * BATCH
        else None
        for batch in BATCHES
    }


def _all(groups: list[Group], name: str) -> NDArray[np.float64]:
    """`[T, B]` over all groups."""
    return np.concatenate([np.stack(getattr(group, name)) for group in groups], axis=1)


def gap_closed(
    served: NDArray[np.float64], fallback: NDArray[np.float64], oracle: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How much of the way from the fallback's expected reward to the best one what was served went,
    on average over all accounts and the last ten decisions: `[T]`, NaN for the first nine and where
    there is no way to go. Each argument is `[T, B]`."""
    closed = np.full(len(served), np.nan)
    for t in range(BATCH - 1, len(served)):
        last = slice(t - BATCH + 1, t + 1)
        gap = (oracle[last] - fallback[last]).mean()
        if gap > 0:
            closed[t] = (served[last] - fallback[last]).mean() / gap
    return closed


def _adaptation(played: Played) -> dict[str, Any]:
    """By account as the service judges it, and of the cohort as the simulator knows it."""
    served, fallback, oracle = (
        _all(played.groups, f"{name}_means") for name in ("served", "fallback", "oracle")
    )
    adapted = [np.inf if one is None else one for one in played.adapted_at]
    middle = median(adapted)
    return {
        "accounts_adapted": sum(one is not None for one in played.adapted_at),
        "median_interactions": None if np.isinf(middle) else middle,
        "cohort_interactions": cohort_adaptation(gap_closed(served, fallback, oracle), CLOSED),
    }


def tables(play: Play, played: Played) -> list[Table | str]:
    """The same for people."""
    told = to_json(play, played)
    rewards = Table(title="Mean reward by batch of 10 decisions", title_justify="left")
    rewards.add_column("")
    for batch in BATCHES:
        rewards.add_column(f"batch {batch}", justify="right")
    rows = {"came": told["reward"]} | {
        f"expected, {name}": told["expected"][name] for name in ("served", "fallback", "oracle")
    }
    for name, means in rows.items():
        rewards.add_row(name, *(_shown(means[str(batch)]) for batch in BATCHES))
    counts = Table(title="Counts", title_justify="left")
    for column in ("decided by", "limits applied", "feedback"):
        counts.add_column(column)
    counts.add_row(
        _counted(played.reasons), _counted(played.limits), _counted(played.statuses, played.late)
    )
    adaptation = told["adaptation"]
    middle, cohort = adaptation["median_interactions"], adaptation["cohort_interactions"]
    return [
        f"{told['decisions']:,} decisions for {play.accounts:,} accounts {play.prefix}-… of "
        f"{play.workflow} ({', '.join(play.verticals)}) by {_counted(played.policies)}, "
        f"{told['decisions_per_s']:,.0f}/s with their feedback.",
        rewards,
        counts,
        f"Adapted accounts: {adaptation['accounts_adapted']} of {play.accounts}; interactions to "
        f"adaptation: median account {'not yet' if middle is None else f'{middle:g}'}, cohort "
        f"{'not yet' if cohort is None else cohort} (its last ten decisions {CLOSED:.0%} of the "
        "way from fallback to oracle).",
    ]


def _shown(mean: float | None) -> str:
    return "" if mean is None else f"{mean:.3f}"


def _counted(counter: Counter[str], late: int = 0) -> str:
    named = [f"{name} {count:,}" for name, count in counter.most_common()]
    return ", ".join([*named, *([f"of them late {late:,}"] if late else [])]) or "none"
