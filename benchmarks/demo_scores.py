"""The demo as plain numbers, for who reads them by program. It plays and computes nothing."""

from __future__ import annotations

from typing import Any

from training.household_scores import FamilyScore


def to_json(
    families: list[FamilyScore], decisions_per_s: float, p50_ms: float, p99_ms: float
) -> dict[str, Any]:
    """The demo as plain numbers."""
    return {
        "families": [
            {
                "family": score.family,
                "households": score.households,
                "reward": score.policy.reward.mean,
                "reward_se": score.policy.reward.se,
                "baselines": {
                    name: {
                        "reward": baseline.reward.mean,
                        "difference": baseline.difference.mean,
                        "difference_se": baseline.difference.se,
                    }
                    for name, baseline in score.baselines.items()
                },
                "adaptation_interactions": score.policy.adaptation_interactions,
            }
            for score in families
        ],
        "decisions_per_s": decisions_per_s,
        "p50_ms": p50_ms,
        "p99_ms": p99_ms,
    }
