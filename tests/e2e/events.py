"""Drives accounts through a service that may fail, and remembers what it acknowledged."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.bundles import write_counting_bundle
from tests.service.conftest import CONTEXT, WORKFLOW

DECLARED = "{window_seconds: 100, default_reward: -1, late: apply}"
KEY = "the same draws in every run"


def settings_of(home: Path, window_seconds: float = 100, late: str = "rebuild") -> dict[str, Any]:
    """Settings of a service on the counting policy, whose second feedback revises the first."""
    rules = f"window_seconds: {window_seconds}, default_reward: -1, aggregation: latest"
    assert DECLARED in WORKFLOW
    write_counting_bundle(home / "policies")
    (home / "workflows").mkdir()
    text = WORKFLOW.replace(DECLARED, f"{{{rules}, late: {late}}}")
    (home / "workflows" / "help.yaml").write_text(text)
    return {
        "workflows": home / "workflows",
        "policies": home / "policies",
        "installation_key": KEY,
        "memory_timeout_seconds": 5.0,
        "job_interval_seconds": 0.1,
        "snapshot_every": 3,
    }


@dataclass(frozen=True)
class Asked:
    """One request, to be sent again as it was."""

    path: str
    body: dict[str, Any]


@dataclass
class Events:
    """What one service was asked, and what it answered."""

    http: httpx.AsyncClient
    decisions: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The answer to every acknowledged decision, by id."""
    feedback: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    """The answer to every acknowledged feedback, by decision and feedback id."""
    unanswered: list[Asked] = field(default_factory=list)
    """What got no answer, or 503: it may have been done or not."""
    gone: bool = False
    """Whether a request found no service, or lost it."""

    async def decide(self, account: str, decision_id: str) -> dict[str, Any] | None:
        """The answer; None where there was none."""
        body = {"account_id": account, "decision_id": decision_id, "context": CONTEXT}
        return await self._ask(Asked("/v1/workflows/help/decisions", body))

    async def learn(
        self, decision_id: str, feedback_id: str, reward: float
    ) -> dict[str, Any] | None:
        """The answer; None where there was none."""
        body = {"feedback_id": feedback_id, "reward": reward}
        return await self._ask(Asked(f"/v1/decisions/{decision_id}/feedback", body))

    async def interact(self, account: str, step: int) -> None:
        """One decision and what comes of it: nothing, a reward, or a reward that is revised."""
        decision_id = f"{account}-{step}"
        if await self.decide(account, decision_id) is None or step % 4 == 3:
            return
        if await self.learn(decision_id, "first", float(step % 3)) is not None and step % 3 == 1:
            await self.learn(decision_id, "second", 3.0)

    async def retry(self) -> None:
        """Sends again what was not answered; every one of it is acknowledged now."""
        unanswered, self.unanswered = self.unanswered, []
        for asked in unanswered:
            answer = await self._ask(asked)
            assert answer is not None, asked

    async def _ask(self, asked: Asked) -> dict[str, Any] | None:
        try:
            answer = await self.http.post(asked.path, json=asked.body)
        except httpx.TransportError:
            self.gone = True
            self.unanswered.append(asked)
            return None
        if answer.status_code == 503:
            self.unanswered.append(asked)
            return None
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        if "feedback_id" in told:
            kept = self.feedback.setdefault((told["decision_id"], told["feedback_id"]), told)
            assert kept is told or told["status"] == "duplicate"
        else:
            assert self.decisions.setdefault(told["decision_id"], told) == told
        return told
