"""What several pieces of feedback for one decision come to. Pure; the workflow says how."""

from __future__ import annotations

import math
from collections.abc import Sequence

from contract.spec import Feedback as FeedbackRules
from contract.spec import WorkflowSpec
from service.ledger.records import Feedback


def counted(given: Feedback, rules: FeedbackRules) -> bool:
    """Whether a piece of feedback counts towards its decision's reward: what came in time does, and
    what came late where the workflow rebuilds."""
    return given.kind == "received" and (not given.late or rules.late == "rebuild")


def aggregated(pieces: Sequence[Feedback], spec: WorkflowSpec) -> tuple[float, bool]:
    """The reward, clipped to the spec's range, and whether the episode ends, of the pieces that
    count, in order of arrival. At least one."""
    rewards = [piece.reward for piece in pieces]
    match spec.feedback.aggregation:
        case "earliest":
            reward = rewards[0]
        case "latest":
            reward = rewards[-1]
        case "sum":
            reward = math.fsum(rewards)
        case "mean":
            reward = math.fsum(rewards) / len(rewards)
        case "min":
            reward = min(rewards)
        case "max":
            reward = max(rewards)
    reward = min(max(reward, spec.reward.min), spec.reward.max)
    return reward, any(piece.episode_end for piece in pieces)
