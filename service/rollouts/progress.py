"""What is counted of one rollout, written down with how far its evidence has been gathered."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from service.ledger.rollout_tables import rollout_progress
from service.rollouts.records import Rollout


@dataclass
class Progress:
    """How far a rollout's evidence has been gathered, and what is counted."""

    read_to_us: int = 0
    stage_since_us: int = 0
    """Of the stage that what follows is about."""
    stage_candidates: int = 0
    stage_controls: int = 0
    stage_interactions: int = 0
    stage_control_interactions: int = 0
    stage_candidate_alarms: int = 0
    stage_control_alarms: int = 0
    """Interactions of each cohort that an alarm had the fallback decide."""
    stage_due: int = 0
    """Of the candidate's, those after each account's first: by then its memory has come over."""
    stage_served: int = 0
    """Of these, those that the candidate decided or failed to."""
    unwatched_us: int = 0
    """In this stage, how long nobody looked."""
    watched_at_us: int = 0
    decisions: int = 0
    failures: int = 0
    shadow_decisions: int = 0
    shadow_failures: int = 0
    shadow_agreement: float = 0.0
    """Sum of the candidate's probabilities of what was served."""
    verdict: str = ""
    reason: str = ""
    detail: str = ""
    """The last verdict."""
    comparisons: dict[str, Any] = field(default_factory=dict)
    """What it rested on."""

    def enter(self, rollout: Rollout) -> None:
        """Begins to count anew where the rollout has come to another stage."""
        if self.stage_since_us != rollout.stage_since_us:
            self.stage_since_us = rollout.stage_since_us
            self.stage_candidates = self.stage_controls = self.stage_interactions = 0
            self.stage_control_interactions = self.stage_due = self.stage_served = 0
            self.stage_candidate_alarms = self.stage_control_alarms = 0
            self.unwatched_us = 0

    @property
    def stage_alarmed(self) -> float:
        """The share of this stage's interactions that an alarm had the fallback decide, of the
        cohort that has more."""
        return max(
            alarms / max(alarms + rest, 1)
            for alarms, rest in (
                (self.stage_candidate_alarms, self.stage_interactions),
                (self.stage_control_alarms, self.stage_control_interactions),
            )
        )


def read_progress(connection: Connection, rollout_id: str) -> Progress:
    """As it was written last, or a blank one."""
    columns = rollout_progress.c
    query = select(columns.body).where(columns.rollout_id == rollout_id)
    body = connection.scalar(query)
    return Progress() if body is None else Progress(**json.loads(body))


def write_progress(connection: Connection, rollout_id: str, progress: Progress) -> None:
    """In place of what was there."""
    columns = rollout_progress.c
    connection.execute(delete(rollout_progress).where(columns.rollout_id == rollout_id))
    row = {"rollout_id": rollout_id, "body": json.dumps(asdict(progress))}
    connection.execute(insert(rollout_progress).values(row))
