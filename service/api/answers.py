"""What the engine gives, as the API's answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import Response
from pydantic_core import to_json

from service.api.schemas import FeedbackRecord, WorkflowRecord
from service.catalog import Workflow
from service.clock import to_moment, to_moment_or_none
from service.learn import status
from service.ledger.records import Decision, Feedback
from service.ledger.settle import Recorded


class Json(Response):
    """An answer straight to bytes, as pydantic would write the model that documents it."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        self.status_code = 200
        self.background = None
        self.body = to_json(answer, inf_nan_mode="null")
        self.raw_headers = [
            (b"content-length", str(len(self.body)).encode()),
            (b"content-type", b"application/json"),
        ]


def decision_answer(decision: Decision) -> dict[str, object]:
    """The same decision always gives the same answer, first time and under retry."""
    assert decision.head is not None
    return {
        "decision_id": decision.decision_id,
        "workflow": decision.key.workflow,
        "account_id": decision.key.account_id,
        "episode_id": decision.episode_id,
        "action": decision.action,
        "probability": decision.probability,
        "reason": decision.reason,
        "policy": decision.policy,
        "memory_position": decision.head.position,
        "memory_generation": decision.head.generation,
        "limits": decision.limits,
        "mode": decision.mode,
        "created_at": to_moment(decision.created_at_us),
        "expires_at": to_moment(decision.expires_at_us) if decision.mode == "serve" else None,
    }


def feedback_answer(recorded: Recorded) -> dict[str, object]:
    """What became of one piece of feedback."""
    given = recorded.feedback
    return {
        "decision_id": given.decision_id,
        "feedback_id": given.feedback_id or None,
        "status": status(recorded),
        "reward": given.reward,
        "late": given.late,
        "memory_position": given.head.position if given.head else None,
        "memory_generation": given.head.generation if given.head else None,
    }


def feedback_record(given: Feedback) -> FeedbackRecord:
    """One piece of feedback as the ledger has it."""
    return FeedbackRecord(
        feedback_id=given.feedback_id or None,
        kind=given.kind,
        reward=given.reward,
        outcome=given.outcome,
        episode_end=given.episode_end,
        late=given.late,
        memory_position=given.head.position if given.head else None,
        memory_generation=given.head.generation if given.head else None,
        folded_reward=given.folded_reward,
        occurred_at=to_moment_or_none(given.occurred_at_us),
        received_at=to_moment(given.received_at_us),
    )


def workflow_record(workflow: Workflow) -> WorkflowRecord:
    """One workflow being served."""
    spec = workflow.spec
    return WorkflowRecord(
        workflow=spec.workflow,
        description=spec.description,
        version=workflow.version,
        sha256=spec.sha256,
        policy=workflow.policy_name,
        actions=list(spec.action_ids),
        spec=spec,
    )
