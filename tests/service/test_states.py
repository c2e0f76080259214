"""The service beside a small model of itself, through whatever happens to either in any order."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import zlib
from collections import defaultdict
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from contract.spec import load_workflow
from service.app import create_app
from service.ledger.records import AccountKey, Head
from service.memory.store import StoredMemory
from service.runtime import open_service
from service.settings import Settings
from tests.redis_server import redis_client
from tests.service.conftest import WORKFLOW, Client, Time
from tests.service.model import AccountModel, Made, Step
from tests.service.pasts import ACTIONS, RULES, same

T = TypeVar("T")

WINDOW_SECONDS = 100
STEPS = 40
STEADY = settings(
    max_examples=4,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # what fails is printed as it came: shrinking lives takes minutes
    suppress_health_check=list(HealthCheck),
)
"""The same steps on every machine."""

ACCOUNT = st.sampled_from(["a", "b"])
ASKED = st.tuples(ACCOUNT, st.sampled_from(ACTIONS), st.booleans())
"""Account, action, whether the caller names the decision."""
WHICH = st.integers(0, 9)
"""Which of the newest, counted from the newest."""
PIECE = st.tuples(
    WHICH,
    st.sampled_from([None, "x", "y", "z"]),
    st.sampled_from([-1.0, 0.0, 1.0, 3.0]),
    st.booleans(),
)
"""Decision, feedback id, reward, whether the episode ends."""


def step(name: str, **arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[str, Any]]:
    """A call of that method of `Beside`."""
    return st.tuples(st.just(name), st.fixed_dictionaries(arguments))


CALL = step(
    "callers_call",
    asked=st.lists(ASKED, min_size=1, max_size=3),
    pieces=st.lists(PIECE, min_size=2, max_size=6),
)
LIFE = st.lists(
    st.one_of(
        *[CALL] * 4,
        step("callers_ask_again", which=WHICH),
        step(
            "time_passes",
            seconds=st.sampled_from([1, 60, WINDOW_SECONDS + 1, WINDOW_SECONDS + 2, -30]),
            jobs=st.booleans(),
        ),
        step(
            "operators_operate",
            account=ACCOUNT,
            what=st.sampled_from(["nothing", "reset", "reset", "erase"]),
        ),
        step(
            "something_befalls",
            what=st.sampled_from(["copy", "old copy", "flush", "corrupt", "copy", "restart"]),
            account=ACCOUNT,
            which=WHICH,
            junk=st.sampled_from([b"", b"junk", b"ACM\x01" + b"\0" * 100]),
        ),
        step("a_memory_of_another_day_is_folded_again", account=ACCOUNT, which=WHICH),
    ),
    min_size=STEPS,
    max_size=STEPS,
)


class Beside:
    """Whatever is done to the service is done to the model; they must answer alike."""

    def __init__(self, home: Path, policies: Path, redis_url: str | None) -> None:
        self.workflow_file = home / "help.yaml"
        self.policies, self.redis_url = policies, redis_url
        self.time = Time()
        self.models: dict[str, AccountModel] = {}
        self.erased: dict[str, int] = {}
        self.owners: dict[str, str] = {}
        self.answers: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        self.copies: dict[str, list[StoredMemory]] = defaultdict(list)
        self.touched: set[str] = set()
        self.runner = asyncio.Runner()
        self.service = contextlib.AsyncExitStack()
        self.data = tempfile.TemporaryDirectory(dir=home)
        self.spec = load_workflow(self.workflow_file)
        self.run(self.open())

    def live(self, life: list[tuple[str, Any]]) -> None:
        """Does each step, and looks at both after it."""
        for name, arguments in life:
            getattr(self, name)(**arguments)
            self.accounts_stand_where_the_model_says()
            self.memories_are_the_fold_of_the_past()

    def close(self) -> None:
        """Lets go of the service and its ledger."""
        self.run(self.service.aclose())
        self.runner.close()
        self.data.cleanup()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    async def open(self) -> None:
        chosen = Settings(
            data_dir=Path(self.data.name),
            workflows=self.workflow_file.parent,
            policies=self.policies,
            access="open",
            redis_url=self.redis_url,
            memory_timeout_seconds=5.0,
            snapshot_every=3,
        )
        opened = open_service(chosen, self.time, schedule=False)
        service = await self.service.enter_async_context(opened)
        transport = httpx.ASGITransport(create_app(service))
        http = httpx.AsyncClient(transport=transport, base_url="http://localhost")
        self.client = Client(service, await self.service.enter_async_context(http))

    # What callers do

    def decide_and_expect(self, account: str, action: str, decision_id: str | None) -> None:
        self.time.now += 1
        body: dict[str, Any] = {"account": account, "actions": [action]}
        if decision_id is not None:
            body["decision_id"] = decision_id
        response = self.run(self.client.decide(**body))
        assert response.status_code == 200, response.text
        answer = response.json()
        model = self.models.get(account)
        if model is None:
            model = AccountModel(self.spec, self.erased.get(account, -1) + 1)
            self.models[account] = model
        assert (answer["memory_generation"], answer["memory_position"]) == model.head
        assert (answer["reason"], answer["action"]) == ("policy", action)
        expires = self.time.now + WINDOW_SECONDS * 1_000_000
        model.decisions[answer["decision_id"]] = Made(answer["decision_id"], action, expires)
        self.owners[answer["decision_id"]] = account
        self.answers[answer["decision_id"]] = (body, answer)
        self.touched.add(account)

    def callers_call(
        self,
        asked: list[tuple[str, str, bool]],
        pieces: list[tuple[int, str | None, float, bool]],
    ) -> None:
        for account, action, named in asked:
            self.decide_and_expect(account, action, f"d{len(self.answers)}" if named else None)
        for piece in pieces:
            if self.owners:
                self.feed_back_and_expect(*piece)

    def chosen(self, which: int) -> str:
        known = list(self.owners)
        return known[-1 - which % len(known)]

    def callers_ask_again(self, which: int) -> None:
        if not self.owners:
            return
        decision_id = self.chosen(which)
        body, answer = self.answers[decision_id]
        again = self.run(self.client.decide(**body | {"decision_id": decision_id}))
        if "decision_id" in body:
            assert again.json() == answer
        found = self.run(self.client.http.get(f"/v1/decisions/{decision_id}")).json()
        assert {name: found[name] for name in answer} == answer
        other = {"account": self.owners[decision_id], "episode_id": "another"}
        refused = self.run(self.client.decide(decision_id=decision_id, **other))
        assert refused.status_code == 422

    def feed_back_and_expect(
        self, which: int, feedback_id: str | None, reward: float, end: bool
    ) -> None:
        self.time.now += 1
        decision_id = self.chosen(which)
        model = self.models[self.owners[decision_id]]
        body: dict[str, Any] = {"reward": reward, "episode_end": end}
        if feedback_id is not None:
            body["feedback_id"] = feedback_id
        response = self.run(self.client.learn(decision_id, **body))
        twin = model.given(decision_id, feedback_id or "")
        if twin is not None and (twin.reward, twin.end) != (reward, end):
            assert response.status_code == 422
            return
        assert response.status_code == 200, response.text
        answer = response.json()
        if twin is not None:
            assert (answer["status"], answer["late"]) == ("duplicate", twin.late)
            return
        changed, position, late = model.feed(
            decision_id, feedback_id or "", reward, end, self.time.now
        )
        assert answer["status"] in (("folded", "revised") if changed else ("recorded",))
        assert (answer["memory_position"], answer["late"]) == (position, late)
        self.touched.add(self.owners[decision_id])

    # What time and operators do

    def time_passes(self, seconds: int, jobs: bool) -> None:
        self.time.pass_seconds(seconds)
        if jobs:
            self.jobs_run()

    def jobs_run(self) -> None:
        self.run(self.client.service.scheduler.run_once())
        for account, model in self.models.items():
            model.fold_defaults(self.time.now)
            self.touched.add(account)

    def operators_operate(self, account: str, what: str) -> None:
        if account not in self.models:
            return
        if what == "reset":
            self.run(self.client.service.ledger.reset(self.key(account), self.time.now))
            self.models[account].reset()
            self.touched.add(account)
        elif what == "erase":
            self.run(self.client.service.ledger.erase(self.key(account), self.time.now))
            self.erased[account] = self.models.pop(account).generation
            self.owners = {one: who for one, who in self.owners.items() if who != account}
            self.touched.discard(account)

    # What befalls memories

    def something_befalls(self, what: str, account: str, which: int, junk: bytes) -> None:
        memories: Any = self.client.service.memories
        key, policy, copies = self.key(account), self.policy(), self.copies[account]
        if what == "restart":
            self.run(self.service.aclose())
            self.service = contextlib.AsyncExitStack()
            self.run(self.open())
        elif what == "copy":
            copies += filter(None, [self.run(memories.get(key, policy))])
        elif what == "old copy" and copies:
            self.run(memories.put(key, policy, copies[which % len(copies)]))
        elif what == "flush" and self.redis_url is None:
            memories._memories.clear()
        elif what == "flush":
            assert self.redis_url is not None
            with redis_client(self.redis_url) as direct:
                direct.flushall()
        elif what == "corrupt" and self.redis_url is not None:
            with redis_client(self.redis_url) as direct:
                direct.set(memories._name(key, policy), junk)

    # What always holds

    def accounts_stand_where_the_model_says(self) -> None:
        for account in self.touched:
            model = self.models[account]
            address = f"/v1/workflows/help/accounts/{account}"
            record = self.run(self.client.http.get(address)).json()
            assert (record["generation"], record["interactions"]) == model.head
            assert record["decisions"] == len(model.decisions)
            assert (record["phase"], record["adapted_at"]) == (model.phase, model.adapted_at)

    def memories_are_the_fold_of_the_past(self) -> None:
        for account in self.touched:
            model, key = self.models[account], self.key(account)
            served = self.client.service.catalog.workflows["help"]
            recall = self.client.service.recall
            head = Head(*model.head)
            fold = self.run(recall.fresh(served, key))
            assert fold.memory.head == head
            self.counts(fold.memory, model.past())
            quick = self.run(recall.fresh(served, key, from_snapshots=True))
            assert same(quick.memory.memory, fold.memory.memory)
            stored = self.run(self.client.service.memories.get(key, self.policy()))
            if stored is not None and stored.head == head:
                assert same(stored.memory, fold.memory.memory)
        self.touched.clear()

    def a_memory_of_another_day_is_folded_again(self, account: str, which: int) -> None:
        if account in self.models:
            pasts = self.models[account].pasts
            head = list(pasts)[-1 - which % len(pasts)]
            served = self.client.service.catalog.workflows["help"]
            recall = self.client.service.recall
            for from_snapshots in (False, True):
                fold = self.run(
                    recall.fresh(
                        served, self.key(account), Head(*head), from_snapshots=from_snapshots
                    )
                )
                assert fold.complete
                self.counts(fold.memory, pasts[head])

    def counts(self, stored: StoredMemory, past: list[Step]) -> None:
        """Wins and pulls an action, and episodes that ended."""
        rows, single = np.zeros((len(ACTIONS), 2)), self.spec.episodes == "single_step"
        for action, reward, _ in past:
            rows[ACTIONS.index(action)] += [(reward + 1) / 4, 1]
        np.testing.assert_allclose(stored.memory.rows[0], rows, atol=1e-5)
        assert stored.memory.shared[0, 0] == sum(single or end for _, _, end in past)

    def key(self, account: str) -> AccountKey:
        return AccountKey("default", "help", account)

    def policy(self) -> Any:
        return self.client.service.catalog.workflows["help"].policy.identity


@pytest.mark.parametrize(
    ("rules", "redis"),
    [
        ("earliest, late: ignore, default_reward: null", False),
        ("earliest, late: rebuild, default_reward: -1", False),
        ("latest, late: apply, default_reward: null", False),
        ("sum, late: rebuild, default_reward: -1", True),
        ("mean, late: rebuild, default_reward: null", False),
        ("mean, late: apply, default_reward: 0", True),
        ("min, late: ignore, default_reward: 1", False),
        ("max, late: rebuild, default_reward: -1", False),
    ],
)
def test_the_service_and_its_model_agree(
    tmp_path: Path,
    counting_policies: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    rules: str,
    redis: bool,
) -> None:
    monkeypatch.setattr("service.ledger.past.PAGE", 4)
    workflow = WORKFLOW.replace(
        RULES, f"feedback: {{window_seconds: {WINDOW_SECONDS}, aggregation: {rules}}}"
    )
    (tmp_path / "help.yaml").write_text(workflow + "episodes: multi_step\n")
    url = request.getfixturevalue("redis_url") if redis else None

    @seed(zlib.crc32(rules.encode()))  # other lives under other rules
    @STEADY
    @given(LIFE)
    def live(life: list[tuple[str, Any]]) -> None:
        beside = Beside(tmp_path, counting_policies, url)
        try:
            beside.live(life)
        finally:
            beside.close()

    live()
