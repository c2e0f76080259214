"""A service in this process, on a policy whose memory can be read, with a clock the test owns."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import create_app
from service.runtime import Service, open_service
from service.settings import Settings
from tests.bundles import write_counting_bundle

WORKFLOW = """
schema: 1
workflow: help
policy: counting/1
horizon: {interactions: 20, floor: 0.1}
actions:
  - id: wait
    features: {cost: 0}
  - id: mail
    features: {cost: 1}
  - id: call
    features: {cost: 5}
context:
  tenure: {type: number, min: 0, max: 100}
  plan: {type: category, values: [basic, premium]}
  note: {type: category, values: [calm, angry], feeds: rules}
  age: {type: number, min: 0, max: 10, out_of_range: clip, feeds: rules}
reward:
  min: -1
  max: 3
  outcomes: {solved: 3, unsolved: -1}
feedback: {window_seconds: 100, default_reward: -1, late: apply}
guardrails:
  limits:
    - {name: cheap_only, forbid: 'action.cost > 2 && context.plan == "basic"'}
    - {name: leave_alone, forbid: 'context.age > 5'}
  safe_action: wait
fallback:
  rules:
    - {when: 'context.note == "angry"', action: call}
  action: mail
adaptation: {target: 2, window: 3, level: 0.6, hysteresis: 0.1}
"""

CONTEXT = {"tenure": 50, "plan": "premium", "note": "calm", "age": 1}


@dataclass
class Time:
    """A clock that stands still until it is moved."""

    now: int = 1_800_000_000_000_000

    def __call__(self) -> int:
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        self.now += round(seconds * 1e6)


@dataclass
class Client:
    """Speaks to one service over its ASGI app."""

    service: Service
    http: httpx.AsyncClient
    count: int = field(default=0)

    async def decide(self, account: str = "a", **body: Any) -> httpx.Response:
        workflow = body.pop("workflow", "help")
        tenant = body.pop("tenant", "default")
        body = {"account_id": account, "context": CONTEXT} | body
        return await self.http.post(
            f"/v1/workflows/{workflow}/decisions",
            json=body,
            headers={"X-Acclimate-Tenant": tenant},
        )

    async def learn(self, decision_id: str, **body: Any) -> httpx.Response:
        tenant = body.pop("tenant", "default")
        return await self.http.post(
            f"/v1/decisions/{decision_id}/feedback",
            json=body,
            headers={"X-Acclimate-Tenant": tenant},
        )

    async def interact(self, account: str = "a", reward: float = 3.0, **body: Any) -> str:
        """One decision and its feedback; the action served."""
        answer = await self.decide(account, **body)
        assert answer.status_code == 200, answer.text
        learned = await self.learn(answer.json()["decision_id"], reward=reward)
        assert learned.status_code == 200, learned.text
        return str(answer.json()["action"])

    async def metric(self, name: str) -> float:
        """The sum of a metric's samples over its labels."""
        text = (await self.http.get("/metrics")).text
        lines = (line for line in text.splitlines() if not line.startswith("#"))
        samples = (line.rsplit(" ", 1) for line in lines)
        return sum(float(value) for key, value in samples if key.split("{")[0] == name)


Open = Callable[..., contextlib.AbstractAsyncContextManager[Client]]


@pytest.fixture
def time() -> Time:
    """The service's clock."""
    return Time()


@pytest.fixture(scope="session")
def counting_policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of bundles with the counting policy in it."""
    home = tmp_path_factory.mktemp("policies")
    write_counting_bundle(home)
    return home


@pytest.fixture
def settings(tmp_path: Path, counting_policies: Path) -> Iterator[Settings]:
    """The embedded profile in a directory of its own."""
    workflows = tmp_path / "workflows"
    workflows.mkdir()
    (workflows / "help.yaml").write_text(WORKFLOW)
    yield Settings(
        data_dir=tmp_path / "data",
        workflows=workflows,
        policies=counting_policies,
        access="open",  # also on the stores of production; tests of keys say otherwise
    )


@pytest.fixture
def open_client(settings: Settings, time: Time) -> Open:
    """Opens the service, closed again on leaving; settings may be changed by name."""

    @contextlib.asynccontextmanager
    async def open_one(*, schedule: bool = False, **changes: Any) -> AsyncIterator[Client]:
        changed = settings.model_copy(update=changes)
        async with open_service(changed, time, schedule=schedule) as service:
            transport = httpx.ASGITransport(create_app(service), raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
                yield Client(service, http)

    return open_one


@pytest.fixture
async def client(open_client: Open) -> AsyncIterator[Client]:
    """The service, embedded."""
    async with open_client() as client:
        yield client


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty ledger's address, on each of the databases."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    return str(request.getfixturevalue("postgres_url"))
